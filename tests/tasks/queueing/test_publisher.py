import asyncio
import base64
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kombu.exceptions import KombuError, OperationalError
from pydantic import SecretStr
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.queueing.message import MAX_BATCH, read_message
from tasks.queueing.publisher import Backlog, Publisher, batch_size, count_backlog, enqueue
from worker.app import make_publishing_app
from worker.clients.embedded_redis import embedded_redis
from worker.clients.redis import open_redis
from worker.config.settings import Settings

API_KEY = "the-key-of-the-account"


def publisher_to(redis_url: str) -> Publisher:
    return Publisher(make_publishing_app(Settings(redis_url=SecretStr(redis_url), api_key=SecretStr(API_KEY))))


@pytest.fixture
def ledger(redis: Redis) -> Ledger:
    return Ledger(redis)


@pytest.fixture
def publisher(redis_url: str) -> Iterator[Publisher]:
    publisher = publisher_to(redis_url)
    yield publisher
    publisher.close()


@pytest.fixture
def broken_publisher(tmp_path: Path) -> Iterator[Publisher]:
    """There is no Redis where it wants to publish."""
    publisher = publisher_to(f"unix://{tmp_path}/nobody.sock")
    yield publisher
    publisher.close()


def some_ids(count: int) -> list[str]:
    return [str(uuid4()) for _ in range(count)]


async def raw_messages(redis: Redis, queue: Queue) -> list[dict[str, Any]]:
    """The messages of a queue as they lie in Redis, the newest first."""
    return [json.loads(text) for text in await redis.lrange(f"docv:{queue}", 0, -1)]


def arguments(message: dict[str, Any]) -> tuple[list[object], dict[str, Any]]:
    positional, keywords, _ = json.loads(base64.b64decode(message["body"]))
    return positional, keywords


async def batches(redis: Redis, queue: Queue) -> list[list[str]]:
    return [arguments(message)[1]["eval_ids"] for message in await raw_messages(redis, queue)]


async def put(
    ledger: Ledger,
    publisher: Publisher,
    eval_ids: list[str],
    queue: Queue = Queue.BACKFILL,
    delay: float = 0.0,
) -> int:
    trigger = Trigger("enqueue")
    return await enqueue(ledger, publisher, eval_ids, EnqueueOptions(queue, "default", trigger, delay=delay))


# -- the message


async def test_a_message_is_json_and_names_the_task(publisher: Publisher, redis: Redis, eval_id: str) -> None:
    publisher.publish(Queue.LIVE, [eval_id], 1)

    (message,) = await raw_messages(redis, Queue.LIVE)

    assert message["content-type"] == "application/json"
    assert message["headers"]["task"] == "docv.archive"
    assert arguments(message) == ([], {"eval_ids": [eval_id], "accepted": True})


@pytest.mark.parametrize("queue", Queue)
async def test_a_worker_reads_in_a_message_what_was_put_there(publisher: Publisher, redis: Redis, queue: Queue) -> None:
    eval_ids = some_ids(3)
    publisher.publish(queue, eval_ids, 3)

    (raw,) = await raw_messages(redis, queue)
    read = read_message(raw["properties"]["delivery_info"]["routing_key"], *arguments(raw))

    assert (read.eval_ids, read.bad, read.queue, read.accepted) == (tuple(eval_ids), (), queue, True)


async def test_celery_is_told_neither_to_retry_nor_to_delay_nor_to_answer(
    publisher: Publisher, redis: Redis, eval_id: str
) -> None:
    publisher.publish(Queue.LIVE, [eval_id], 1)
    (message,) = await raw_messages(redis, Queue.LIVE)
    headers = message["headers"]
    assert (headers["eta"], headers["expires"], headers["retries"]) == (None, None, 0)
    assert headers["timelimit"] == [None, None]


async def test_a_message_holds_no_secret_and_no_address(
    publisher: Publisher, redis: Redis, redis_url: str, eval_id: str
) -> None:
    publisher.publish(Queue.LIVE, [eval_id], 1)
    (text,) = await redis.lrange("docv:live", 0, -1)
    shown = text + base64.b64decode(json.loads(text)["body"]).decode()
    assert API_KEY not in shown
    assert redis_url.removeprefix("unix://") not in shown


async def test_celery_s_keys_stand_under_our_prefix(publisher: Publisher, redis: Redis, eval_id: str) -> None:
    publisher.publish(Queue.BACKFILL, [eval_id], 1)
    assert [key for key in await redis.keys() if not key.startswith("docv:")] == []


async def test_several_threads_publish_through_one_publisher(publisher: Publisher, redis: Redis) -> None:
    eval_ids = some_ids(40)
    await asyncio.gather(*(asyncio.to_thread(publisher.publish, Queue.LIVE, [each], 1) for each in eval_ids))
    assert sorted(await batches(redis, Queue.LIVE)) == sorted([each] for each in eval_ids)


# -- how many in a message


@pytest.mark.parametrize(
    ("evaluations", "size"), [(0, 1), (1, 1), (64, 1), (127, 1), (128, 2), (6399, 99), (6400, 100), (1_000_000, 100)]
)
def test_a_backfill_is_spread_over_many_messages_before_they_grow(evaluations: int, size: int) -> None:
    assert batch_size(Queue.BACKFILL, evaluations) == size


@pytest.mark.parametrize("evaluations", [0, 1, 1_000_000])
def test_live_events_travel_alone(evaluations: int) -> None:
    assert batch_size(Queue.LIVE, evaluations) == 1


def test_no_message_is_larger_than_the_contract_allows() -> None:
    assert batch_size(Queue.BACKFILL, 10**9) == MAX_BATCH


async def test_the_last_message_takes_what_is_left(publisher: Publisher, redis: Redis) -> None:
    eval_ids = some_ids(7)
    publisher.publish(Queue.BACKFILL, eval_ids, 3)
    assert (await batches(redis, Queue.BACKFILL))[::-1] == [eval_ids[:3], eval_ids[3:6], eval_ids[6:]]


# -- IDs → ledger → queue


async def test_thousands_of_ids_are_in_the_ledger_and_each_in_one_message(
    ledger: Ledger, publisher: Publisher, redis: Redis
) -> None:
    eval_ids = some_ids(2500)

    assert await put(ledger, publisher, eval_ids) == 2500

    found = await batches(redis, Queue.BACKFILL)
    assert sorted(sum(found, [])) == sorted(eval_ids)  # noqa: RUF017  # some thousand
    assert max(map(len, found)) == 2500 // 64
    assert (await ledger.get_stats()).queued == {Queue.LIVE: 0, Queue.BACKFILL: 2500}


async def test_what_is_under_way_is_not_published_again(ledger: Ledger, publisher: Publisher, redis: Redis) -> None:
    old, new = some_ids(2), some_ids(3)
    await put(ledger, publisher, old, Queue.LIVE)
    assert await put(ledger, publisher, old + new, Queue.LIVE) == 3
    assert await count_backlog(redis) == Backlog({Queue.LIVE: 5, Queue.BACKFILL: 0}, 0)


async def test_no_ids_make_no_message(ledger: Ledger, publisher: Publisher, redis: Redis) -> None:
    assert await put(ledger, publisher, []) == 0
    assert await redis.keys() == []


async def test_what_is_delayed_waits_in_the_ledger_and_not_in_celery(
    ledger: Ledger, publisher: Publisher, redis: Redis, eval_id: str
) -> None:
    assert await put(ledger, publisher, [eval_id], Queue.LIVE, delay=15) == 0
    assert await batches(redis, Queue.LIVE) == []
    assert (await ledger.get_stats()).parked == 1


async def test_what_is_accepted_is_kept_although_it_cannot_be_published(
    ledger: Ledger, broken_publisher: Publisher, eval_id: str
) -> None:
    with pytest.raises(OperationalError):
        await put(ledger, broken_publisher, [eval_id])
    assert (await ledger.get_stats()).queued[Queue.BACKFILL] == 1


async def test_when_only_publishing_fails_every_id_has_been_accepted(
    ledger: Ledger, broken_publisher: Publisher
) -> None:
    with pytest.raises(OperationalError):
        await put(ledger, broken_publisher, some_ids(2500))
    assert (await ledger.get_stats()).queued[Queue.BACKFILL] == 2500


# -- when Redis is away


def test_a_publisher_goes_on_when_redis_is_back(tmp_path: Path) -> None:
    with embedded_redis(tmp_path) as embedded:
        publisher = publisher_to(embedded.url)
        publisher.publish(Queue.LIVE, ["before"], 1)
    with pytest.raises(KombuError):
        publisher.publish(Queue.LIVE, ["meanwhile"], 1)

    with embedded_redis(tmp_path) as embedded, BlockingRedis.from_url(embedded.url) as redis:
        publisher.publish(Queue.LIVE, ["after"], 1)
        texts = redis.lrange("docv:live", 0, -1)
    publisher.close()

    assert isinstance(texts, list)
    assert [arguments(json.loads(text))[1]["eval_ids"] for text in texts] == [["after"], ["before"]]


def test_a_redis_that_is_not_there_is_an_error_at_once(broken_publisher: Publisher) -> None:
    started = time.monotonic()
    with pytest.raises(OperationalError):
        broken_publisher.publish(Queue.LIVE, ["refused"], 1)
    assert time.monotonic() - started < 4, "Celery's own retries take 6 s"


def test_a_redis_that_does_not_answer_is_an_error_and_not_a_long_wait(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen()
        publisher = publisher_to(f"unix://{tmp_path}/silent.sock")
        started = time.monotonic()
        with pytest.raises(OperationalError):
            publisher.publish(Queue.LIVE, ["unheard"], 1)
        assert time.monotonic() - started < 25, "Celery's own patience"
        publisher.close()


# -- the backlog


async def test_the_backlog_counts_what_waits_and_what_is_being_worked_on(publisher: Publisher, redis: Redis) -> None:
    publisher.publish(Queue.LIVE, some_ids(2), 1)
    publisher.publish(Queue.BACKFILL, some_ids(30), 10)
    await redis.hset("docv:unacked", mapping={"a": "1", "b": "2", "c": "3", "d": "4"})
    assert await count_backlog(redis) == Backlog({Queue.LIVE: 2, Queue.BACKFILL: 3}, 4)


@pytest.mark.usefixtures("redis")
async def test_the_backlog_is_counted_where_the_queue_is_also_in_another_database(redis_url: str) -> None:
    """Else the dispatcher finds no messages, takes all of them for lost, and multiplies them."""
    publisher = publisher_to(f"{redis_url}?db=2")
    publisher.publish(Queue.LIVE, some_ids(3), 1)
    publisher.close()
    async with open_redis(f"{redis_url}?db=2") as ledger_s:
        assert (await count_backlog(ledger_s)).waiting[Queue.LIVE] == 3


async def test_the_backlog_of_an_unused_redis_is_empty(redis: Redis) -> None:
    assert await count_backlog(redis) == Backlog({Queue.LIVE: 0, Queue.BACKFILL: 0}, 0)
