import pytest
from redis.asyncio import Redis

from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.job import Queue

pytestmark = pytest.mark.both_redises


@pytest.fixture
def presence(redis: Redis) -> WorkerRegistry:
    return WorkerRegistry(redis)


async def test_workers_are_counted_for_each_queue_that_they_serve(presence: WorkerRegistry) -> None:
    await presence.heartbeat("one", [Queue.LIVE])
    await presence.heartbeat("two", list(Queue))
    await presence.heartbeat("two", list(Queue))
    assert await presence.count() == {Queue.LIVE: 2, Queue.BACKFILL: 1}


async def test_who_leaves_is_not_counted(presence: WorkerRegistry) -> None:
    await presence.heartbeat("one", list(Queue))
    await presence.deregister("one")
    assert await presence.count() == {Queue.LIVE: 0, Queue.BACKFILL: 0}


async def test_who_has_said_nothing_for_a_while_is_gone(presence: WorkerRegistry, redis: Redis) -> None:
    await presence.heartbeat("one", [Queue.LIVE])
    await redis.zincrby("docv:workers:live", -60, "one")
    assert (await presence.count())[Queue.LIVE] == 0
    await presence.heartbeat("two", [Queue.LIVE])
    assert await redis.zcard("docv:workers:live") == 1


@pytest.mark.real_redis_only("fakeredis ignores maxmemory")
async def test_a_full_redis_is_no_reason_to_stop(presence: WorkerRegistry, redis: Redis) -> None:
    await redis.config_set("maxmemory", 1)
    try:
        await presence.heartbeat("one", list(Queue))
    finally:
        await redis.config_set("maxmemory", 0)
    await presence.heartbeat("one", list(Queue))
    assert await presence.count() == {Queue.LIVE: 1, Queue.BACKFILL: 1}
