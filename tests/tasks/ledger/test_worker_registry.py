import pytest
from redis.asyncio import Redis

from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.job import Queue

pytestmark = pytest.mark.both_redises


@pytest.fixture
def registry(redis: Redis) -> WorkerRegistry:
    return WorkerRegistry(redis)


async def test_workers_are_counted_for_each_queue_that_they_serve(registry: WorkerRegistry) -> None:
    await registry.heartbeat("one", [Queue.LIVE])
    await registry.heartbeat("two", list(Queue))
    await registry.heartbeat("two", list(Queue))
    assert await registry.count() == {Queue.LIVE: 2, Queue.BACKFILL: 1}


async def test_a_deregistered_worker_is_not_counted(registry: WorkerRegistry) -> None:
    await registry.heartbeat("one", list(Queue))
    await registry.deregister("one")
    assert await registry.count() == {Queue.LIVE: 0, Queue.BACKFILL: 0}


async def test_a_worker_without_heartbeats_is_not_counted(registry: WorkerRegistry, redis: Redis) -> None:
    await registry.heartbeat("one", [Queue.LIVE])
    await redis.zincrby("docv:workers:live", -60, "one")
    assert (await registry.count())[Queue.LIVE] == 0
    await registry.heartbeat("two", [Queue.LIVE])
    assert await redis.zcard("docv:workers:live") == 1


async def test_a_pause_is_listed_while_its_worker_extends_it(registry: WorkerRegistry, redis: Redis) -> None:
    for name in ("one", "two"):
        await registry.heartbeat(name, [Queue.LIVE])
    await registry.pause("one", "@archive", "cannot_write", "No space left on device")
    (paused,) = await registry.list_paused()
    assert (paused.name, paused.scope, paused.reason) == ("one", "@archive", "cannot_write")
    assert (paused.note, round(paused.age) <= 1) == ("No space left on device", True)
    assert await registry.extend_pause("one")
    assert not await registry.extend_pause("two")
    await registry.resume("one")
    assert await registry.list_paused() == []


async def test_a_damaged_pause_is_listed_without_its_facts(registry: WorkerRegistry, redis: Redis) -> None:
    await registry.heartbeat("one", [Queue.LIVE])
    await redis.hset("docv:paused:one", mapping={"since": "no number", "scope": "@archive"})
    (paused,) = await registry.list_paused()
    assert (paused.scope, paused.note, paused.age) == ("@archive", "", 0)


@pytest.mark.real_redis_only("fakeredis ignores maxmemory")
async def test_a_heartbeat_survives_a_full_redis(registry: WorkerRegistry, redis: Redis) -> None:
    await redis.config_set("maxmemory", 1)
    try:
        await registry.heartbeat("one", list(Queue))
    finally:
        await redis.config_set("maxmemory", 0)
    await registry.heartbeat("one", list(Queue))
    assert await registry.count() == {Queue.LIVE: 1, Queue.BACKFILL: 1}
