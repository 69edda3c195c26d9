import asyncio
import base64
import json
import socket
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
    """A publisher whose Redis does not exist."""
    publisher = publisher_to(f"unix://{tmp_path}/missing.sock")
    yield publisher
    publisher.close()


def some_ids(count: int) -> list[str]:
    return [str(uuid4()) for _ in range(count)]


async def raw_messages(redis: Redis, queue: Queue) -> list[dict[str, Any]]:
    """Return the messages of a queue as they are in Redis, the newest first."""
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
async def test_a_published_message_is_read_back_unchanged(publisher: Publisher, redis: Redis, queue: Queue) -> None:
    eval_ids = some_ids(3)
    publisher.publish(queue, eval_ids, 3)

    (raw,) = await raw_messages(redis, queue)
    read = read_message(raw["properties"]["delivery_info"]["routing_key"], *arguments(raw))

    assert (read.eval_ids, read.bad, read.queue, read.accepted) == (tuple(eval_ids), (), queue, True)


async def test_a_message_has_no_retry_no_delay_and_no_reply(publisher: Publisher, redis: Redis, eval_id: str) -> None:
    publisher.publish(Queue.LIVE, [eval_id], 1)
    (message,) = await raw_messages(redis, Queue.LIVE)
    headers = message["headers"]
    assert (headers["eta"], headers["expires"], headers["retries"]) == (None, None, 0)
    assert headers["timelimit"] == [None, None]


async def test_a_message_has_no_secret_and_no_host_name(
    publisher: Publisher, redis: Redis, redis_url: str, eval_id: str
) -> None:
    publisher.publish(Queue.LIVE, [eval_id], 1)
    (text,) = await redis.lrange("docv:live", 0, -1)
    shown = text + base64.b64decode(json.loads(text)["body"]).decode()
    assert API_KEY not in shown
    assert redis_url.removeprefix("unix://") not in shown


async def test_celery_s_keys_have_our_prefix(publisher: Publisher, redis: Redis, eval_id: str) -> None:
    publisher.publish(Queue.BACKFILL, [eval_id], 1)
    assert [key for key in await redis.keys() if not key.startswith("docv:")] == []


async def test_several_threads_publish_through_one_publisher(publisher: Publisher, redis: Redis) -> None:
    eval_ids = some_ids(40)
    await asyncio.gather(*(asyncio.to_thread(publisher.publish, Queue.LIVE, [each], 1) for each in eval_ids))
    assert sorted(await batches(redis, Queue.LIVE)) == sorted([each] for each in eval_ids)


# -- the number of IDs in a message


@pytest.mark.parametrize(
    ("evaluations", "size"), [(0, 1), (1, 1), (64, 1), (127, 1), (128, 2), (6399, 99), (6400, 100), (1_000_000, 100)]
)
def test_a_backfill_is_spread_over_many_messages_before_they_grow(evaluations: int, size: int) -> None:
    assert batch_size(Queue.BACKFILL, evaluations) == size


@pytest.mark.parametrize("evaluations", [0, 1, 1_000_000])
def test_a_live_message_has_one_id(evaluations: int) -> None:
    assert batch_size(Queue.LIVE, evaluations) == 1


def test_a_message_has_at_most_the_ids_that_the_contract_allows() -> None:
    assert batch_size(Queue.BACKFILL, 10**9) == MAX_BATCH


async def test_the_last_message_has_the_remaining_ids(publisher: Publisher, redis: Redis) -> None:
    eval_ids = some_ids(7)
    publisher.publish(Queue.BACKFILL, eval_ids, 3)
    assert (await batches(redis, Queue.BACKFILL))[::-1] == [eval_ids[:3], eval_ids[3:6], eval_ids[6:]]


# -- IDs → ledger → queue


async def test_thousands_of_ids_are_accepted_and_each_is_in_one_message(
    ledger: Ledger, publisher: Publisher, redis: Redis
) -> None:
    eval_ids = some_ids(2500)

    assert await put(ledger, publisher, eval_ids) == 2500

    found = await batches(redis, Queue.BACKFILL)
    assert sorted(sum(found, [])) == sorted(eval_ids)  # noqa: RUF017  # some thousand
    assert max(map(len, found)) == 2500 // 64
    assert (await ledger.get_stats()).queued == {Queue.LIVE: 0, Queue.BACKFILL: 2500}


async def test_evaluations_in_the_ledger_are_not_published_again(
    ledger: Ledger, publisher: Publisher, redis: Redis
) -> None:
    old, new = some_ids(2), some_ids(3)
    await put(ledger, publisher, old, Queue.LIVE)
    assert await put(ledger, publisher, old + new, Queue.LIVE) == 3
    assert await count_backlog(redis) == Backlog({Queue.LIVE: 5, Queue.BACKFILL: 0}, 0)


async def test_no_message_is_published_without_ids(ledger: Ledger, publisher: Publisher, redis: Redis) -> None:
    assert await put(ledger, publisher, []) == 0
    assert await redis.keys() == []


async def test_a_delayed_evaluation_waits_in_the_ledger_and_not_in_celery(
    ledger: Ledger, publisher: Publisher, redis: Redis, eval_id: str
) -> None:
    assert await put(ledger, publisher, [eval_id], Queue.LIVE, delay=15) == 0
    assert await batches(redis, Queue.LIVE) == []
    assert (await ledger.get_stats()).parked == 1


async def test_an_accepted_evaluation_is_kept_if_it_cannot_be_published(
    ledger: Ledger, broken_publisher: Publisher, eval_id: str
) -> None:
    with pytest.raises(OperationalError):
        await put(ledger, broken_publisher, [eval_id])
    assert (await ledger.get_stats()).queued[Queue.BACKFILL] == 1


async def test_every_id_is_accepted_if_only_publishing_fails(ledger: Ledger, broken_publisher: Publisher) -> None:
    with pytest.raises(OperationalError):
        await put(ledger, broken_publisher, some_ids(2500))
    assert (await ledger.get_stats()).queued[Queue.BACKFILL] == 2500


# -- without Redis


def test_a_publisher_works_again_when_redis_is_back(tmp_path: Path) -> None:
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


@pytest.fixture
def retries(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the pauses of kombu and redis-py before they try again, without waiting."""
    pauses: list[float] = []
    for module in ("kombu.utils.functional", "redis.retry"):
        monkeypatch.setattr(f"{module}.sleep", pauses.append)
    return pauses


def test_publishing_fails_without_a_retry_when_redis_is_gone(broken_publisher: Publisher, retries: list[float]) -> None:
    with pytest.raises(OperationalError):
        broken_publisher.publish(Queue.LIVE, ["refused"], 1)
    assert retries == []


def test_publishing_fails_without_a_retry_when_redis_does_not_answer(tmp_path: Path, retries: list[float]) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen()
        silent.settimeout(0)
        publisher = publisher_to(f"unix://{tmp_path}/silent.sock")
        with pytest.raises(OperationalError):
            publisher.publish(Queue.LIVE, ["unheard"], 1)
        publisher.close()
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()
    assert retries == []


# -- the backlog


async def test_the_backlog_counts_waiting_and_unacknowledged_messages(publisher: Publisher, redis: Redis) -> None:
    publisher.publish(Queue.LIVE, some_ids(2), 1)
    publisher.publish(Queue.BACKFILL, some_ids(30), 10)
    await redis.hset("docv:unacked", mapping={"a": "1", "b": "2", "c": "3", "d": "4"})
    assert await count_backlog(redis) == Backlog({Queue.LIVE: 2, Queue.BACKFILL: 3}, 4)


@pytest.mark.usefixtures("redis")
async def test_the_backlog_is_counted_in_the_database_of_the_queue(redis_url: str) -> None:
    """In another one, the dispatcher finds no messages, counts all of them as lost, and publishes them repeatedly."""
    publisher = publisher_to(f"{redis_url}?db=2")
    publisher.publish(Queue.LIVE, some_ids(3), 1)
    publisher.close()
    async with open_redis(f"{redis_url}?db=2") as queue_redis:
        assert (await count_backlog(queue_redis)).waiting[Queue.LIVE] == 3


async def test_the_backlog_of_an_unused_redis_is_empty(redis: Redis) -> None:
    assert await count_backlog(redis) == Backlog({Queue.LIVE: 0, Queue.BACKFILL: 0}, 0)


def test_a_publisher_counts_no_messages_when_redis_is_the_broker(publisher: Publisher) -> None:
    assert publisher.count_waiting() is None


async def test_close_closes_the_connection_of_a_publisher(ledger: Ledger, publisher: Publisher) -> None:
    await put(ledger, publisher, some_ids(1))
    assert publisher._connection.connected
    publisher.close()
    assert not publisher._connection.connected
