"""Messages of a producer in a list that no worker reads are found, with the change that the producer needs."""

import json

import pytest
from celery import Celery
from redis.asyncio import Redis

from tasks.ledger.unread_messages import find_unread_messages

MESSAGE = json.dumps({"body": "W10=", "headers": {"task": "docv.archive"}})
PREFIX, QUEUE = 'the key prefix (global_keyprefix="docv:")', 'queue="live" or queue="backfill"'

pytestmark = pytest.mark.both_redises


@pytest.mark.parametrize(
    ("key", "fix"),
    [
        ("celery", f"set {PREFIX} and {QUEUE} in the producer, see docs/producers.md#celery"),
        ("docv:celery", f"set {QUEUE} in the producer"),
        ("live", f"set {PREFIX} in the producer"),
        ("backfill", f"set {PREFIX} in the producer"),
        ("docv:Live", f"set {QUEUE} in the producer"),
    ],
)
async def test_a_list_that_no_worker_reads_is_found_with_its_fix(redis: Redis, key: str, fix: str) -> None:
    await redis.rpush(key, *[MESSAGE] * 3)
    await redis.rpush(f"{key}\x06\x169", MESSAGE)
    (found,) = await find_unread_messages(redis, is_broker=True)
    assert (found.key, found.count, found.fix.startswith(fix)) == (key, 4, True)
    assert found.fix.endswith("then send them again, and delete the list")


async def test_lists_of_workers_and_of_other_programs_are_not_found(redis: Redis) -> None:
    for key in ("docv:live", "docv:backfill", "docv:backfill\x06\x163"):
        await redis.rpush(key, MESSAGE)
    await redis.rpush("celery", MESSAGE.replace("docv.archive", "mails.send"))
    await redis.set("live", "no list")
    assert await find_unread_messages(redis, is_broker=True) == []


async def test_every_list_is_found_if_rabbitmq_is_the_broker(redis: Redis) -> None:
    await redis.rpush("docv:live", MESSAGE)
    (found,) = await find_unread_messages(redis, is_broker=False)
    assert (found.key, "publish to the RabbitMQ of DOCV_BROKER_URL" in found.fix) == ("docv:live", True)


async def test_messages_that_celery_publishes_without_a_queue_are_found(redis: Redis, redis_url: str) -> None:
    broker = redis_url.replace("unix://", "redis+socket://")
    with Celery("producer", broker=broker, set_as_current=False) as producer:
        producer.send_task("docv.archive", kwargs={"eval_ids": []})
    assert [(found.key, found.count) for found in await find_unread_messages(redis, is_broker=True)] == [("celery", 1)]
