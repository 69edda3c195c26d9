import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from kombu.exceptions import OperationalError
from pydantic import SecretStr
from redis.asyncio import Redis
from structlog.testing import capture_logs

from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.queueing.dispatcher import dispatch
from tasks.queueing.publisher import Publisher, count_backlog
from tasks.resilience.holds import Hold, Reason
from worker.app import make_publishing_app
from worker.config.settings import Settings

PREFIX = "docv:ledger:"


@pytest.fixture
def ledger(redis: Redis) -> Ledger:
    return Ledger(redis)


@pytest.fixture
def publisher(redis_url: str) -> Iterator[Publisher]:
    publisher = Publisher(make_publishing_app(Settings(redis_url=SecretStr(redis_url))))
    yield publisher
    publisher.close()


@pytest.fixture
def broken_publisher(tmp_path: Path) -> Iterator[Publisher]:
    """A publisher whose Redis does not exist."""
    publisher = Publisher(make_publishing_app(Settings(redis_url=SecretStr(f"unix://{tmp_path}/missing.sock"))))
    yield publisher
    publisher.close()


async def accept(ledger: Ledger, count: int = 1, queue: Queue = Queue.BACKFILL, delay: float = 0.0) -> list[str]:
    eval_ids = [str(uuid4()) for _ in range(count)]
    await ledger.accept(eval_ids, EnqueueOptions(queue, "default", Trigger("enqueue"), delay=delay))
    return eval_ids


async def accept_due(ledger: Ledger, redis: Redis, count: int = 1, queue: Queue = Queue.BACKFILL) -> list[str]:
    """Accept evaluations, park them, and make them due."""
    eval_ids = await accept(ledger, count, queue, delay=60)
    await redis.zadd(PREFIX + "parked", dict.fromkeys(eval_ids, 1), xx=True)
    return eval_ids


async def accept_held(ledger: Ledger, count: int) -> list[str]:
    """Accept evaluations, and hold them."""
    eval_ids = await accept(ledger, count)
    for entry in await ledger.lease(eval_ids, token="ours"):
        await ledger.await_hold(entry, cause="account_held")
    return eval_ids


async def messages(redis: Redis, queue: Queue) -> list[list[str]]:
    """Return the IDs of each message in a queue, as Celery wrote them."""
    bodies = [base64.b64decode(json.loads(text)["body"]) for text in await redis.lrange(f"docv:{queue}", 0, -1)]
    return [json.loads(body)[1]["eval_ids"] for body in bodies]


def hold(left: float) -> Hold:
    return Hold("default", Reason.UNAUTHORIZED, "refused", age=100.0, remaining=left, needs_probe=True)


async def dispatch_once(ledger: Ledger, publisher: Publisher, redis: Redis, *holds: Hold | None) -> int:
    """Dispatch once with these holds on the account."""
    placed = [each for each in holds if each]
    published, refused = await dispatch(
        ledger, publisher, await count_backlog(redis), {"default": dict.fromkeys(Queue, placed)}
    )
    assert refused == {}
    return published


async def test_dispatch_publishes_nothing_if_nothing_is_due(ledger: Ledger, publisher: Publisher, redis: Redis) -> None:
    await accept(ledger, delay=60)
    await accept(ledger)
    assert await dispatch_once(ledger, publisher, redis) == 0
    assert await redis.exists("docv:live", "docv:backfill") == 0


@pytest.mark.parametrize("queue", Queue)
async def test_due_evaluations_are_published_to_their_queue(
    ledger: Ledger, publisher: Publisher, redis: Redis, queue: Queue
) -> None:
    eval_ids = await accept_due(ledger, redis, queue=queue)
    with capture_logs() as log:
        assert await dispatch_once(ledger, publisher, redis) == 1
        assert await messages(redis, queue) == [eval_ids]
        assert await dispatch_once(ledger, publisher, redis) == 0
    assert [(each["event"], each["queue"], each["evaluations"]) for each in log] == [("ledger.dispatched", queue, 1)]


async def test_the_evaluations_of_a_dead_worker_are_published_again(
    ledger: Ledger, publisher: Publisher, redis: Redis
) -> None:
    eval_ids = await accept(ledger)
    await ledger.lease(eval_ids, token="dead")
    await redis.zadd(PREFIX + "leased", {eval_ids[0]: 1})
    assert await dispatch_once(ledger, publisher, redis) == 1
    assert await messages(redis, Queue.BACKFILL) == [eval_ids]


async def test_a_backfill_is_published_in_batches_and_live_evaluations_one_by_one(
    ledger: Ledger, publisher: Publisher, redis: Redis
) -> None:
    live, backfill = await accept_due(ledger, redis, 3, Queue.LIVE), await accept_due(ledger, redis, 640)

    assert await dispatch_once(ledger, publisher, redis) == 643

    assert sorted(await messages(redis, Queue.LIVE)) == sorted([each] for each in live)
    batches = await messages(redis, Queue.BACKFILL)
    assert {len(batch) for batch in batches} == {10}
    assert sorted(sum(batches, [])) == sorted(backfill)  # noqa: RUF017  # a few hundred


async def test_several_dispatchers_publish_each_due_evaluation_once(
    ledger: Ledger, publisher: Publisher, redis: Redis
) -> None:
    eval_ids = await accept_due(ledger, redis, 50)
    counts = await asyncio.gather(*(dispatch_once(ledger, publisher, redis) for _ in range(5)))
    assert sum(counts) == 50
    assert sorted(sum(await messages(redis, Queue.BACKFILL), [])) == sorted(eval_ids)  # noqa: RUF017  # fifty


async def test_evaluations_that_could_not_be_published_are_not_lost(
    ledger: Ledger, broken_publisher: Publisher, publisher: Publisher, redis: Redis
) -> None:
    eval_ids = await accept_due(ledger, redis)
    with pytest.raises(OperationalError):
        await dispatch_once(ledger, broken_publisher, redis)
    assert (await ledger.get_stats()).queued[Queue.BACKFILL] == 1

    await redis.zadd(PREFIX + "queued:backfill", {eval_ids[0]: 1})
    await dispatch_once(ledger, publisher, redis)

    assert await messages(redis, Queue.BACKFILL) == [eval_ids]


@pytest.mark.parametrize(
    ("waiting", "unacknowledged", "age", "published"),
    [
        (0, 0, 0, False),
        (0, 0, 10, True),
        (0, 1, 30, False),
        (0, 1, 90, True),
        (1, 0, 1800, False),
        (1, 1, 1800, False),
        (1, 0, 5400, True),
    ],
)
async def test_a_message_counts_as_lost_sooner_if_its_queue_is_empty(
    ledger: Ledger,
    publisher: Publisher,
    redis: Redis,
    *,
    waiting: int,
    unacknowledged: int,
    age: float,
    published: bool,
) -> None:
    eval_ids = await accept(ledger)
    await redis.zincrby(PREFIX + "queued:backfill", -age * 1000, eval_ids[0])
    if waiting:
        await redis.rpush("docv:backfill", "a message of another evaluation")
    if unacknowledged:
        await redis.hset("docv:unacked", "tag", "a message of another evaluation")

    assert await dispatch_once(ledger, publisher, redis) == published


async def test_a_backlog_of_the_backfill_does_not_delay_lost_live_messages(
    ledger: Ledger, publisher: Publisher, redis: Redis
) -> None:
    eval_ids = await accept(ledger, queue=Queue.LIVE)
    await redis.zincrby(PREFIX + "queued:live", -60_000, eval_ids[0])
    await redis.rpush("docv:backfill", "a message")
    assert await dispatch_once(ledger, publisher, redis) == 1
    assert await messages(redis, Queue.LIVE) == [eval_ids]


async def test_no_held_evaluation_is_published_during_a_hold(
    ledger: Ledger, publisher: Publisher, redis: Redis
) -> None:
    await accept_held(ledger, 3)
    parked = await accept_due(ledger, redis)
    assert await dispatch_once(ledger, publisher, redis, hold(left=0.5)) == 1
    assert await messages(redis, Queue.BACKFILL) == [parked]


async def test_one_held_evaluation_is_published_when_a_probe_is_due(
    ledger: Ledger, publisher: Publisher, redis: Redis
) -> None:
    await accept_held(ledger, 3)
    assert await dispatch_once(ledger, publisher, redis, hold(left=0)) == 1


async def test_all_held_evaluations_are_published_when_the_hold_has_ended(
    ledger: Ledger, publisher: Publisher, redis: Redis
) -> None:
    eval_ids = await accept_held(ledger, 3)
    assert await dispatch_once(ledger, publisher, redis) == 3
    assert sorted(sum(await messages(redis, Queue.BACKFILL), [])) == sorted(eval_ids)  # noqa: RUF017  # three


async def test_evaluations_whose_message_a_full_redis_refuses_are_returned(
    ledger: Ledger, publisher: Publisher, redis: Redis
) -> None:
    eval_ids = await accept_due(ledger, redis, 3)
    await redis.config_set("maxmemory", 1)
    try:
        no_holds = {"default": {queue: [] for queue in Queue}}
        counted, refused = await dispatch(ledger, publisher, await count_backlog(redis), no_holds)
    finally:
        await redis.config_set("maxmemory", 0)
    assert counted == 3
    assert sorted(refused[Queue.BACKFILL]) == sorted(eval_ids)
    assert await redis.llen("docv:backfill") == 0
    assert [entry.eval_id for entry in await ledger.lease(eval_ids, token="ours")] == eval_ids
