"""Redis is examined: does it keep what it is told, and does anybody work?"""

from redis.asyncio import Redis

from scripts.doctor.finding import State
from scripts.doctor.redis import crash, eviction, examine, keeping, latency, memory, work
from tasks.entry import Queue
from worker.settings import Settings


async def test_a_redis_of_ours_is_fine_and_one_that_others_use_is_a_warning(redis: Redis, redis_url: str) -> None:
    settings = Settings(redis_url=redis_url)
    found = {each.what: each async for each in examine(settings)}
    assert "version " in found["Redis"].said
    for what in ("append-only file", "eviction", "memory of Redis", "sharing"):
        assert found[what].state is State.FINE, found[what]
    assert found["queue live"].state is State.WARNING
    await redis.set("somebody's", 1)
    again = {each.what: each async for each in examine(settings)}
    assert again["sharing"].state is State.WARNING


async def test_a_redis_that_is_not_there_cannot_be_reached(unused_tcp_port: int) -> None:
    settings = Settings(redis_url=f"redis://127.0.0.1:{unused_tcp_port}")
    (finding,) = [each async for each in examine(settings)]
    assert finding.unreachable


def test_one_that_takes_long_to_answer_is_a_warning() -> None:
    assert latency("7.2.4", 0.001).state is State.FINE
    assert latency("7.2.4", 0.1).state is State.WARNING


def test_what_it_may_lose_is_wrong() -> None:
    assert keeping({"aof_enabled": 0}).state is State.WRONG
    assert eviction({"maxmemory_policy": "allkeys-lru"}).state is State.WRONG
    assert crash("everysec").state is State.WARNING
    assert crash(None).state is State.WARNING
    assert crash("always").state is State.FINE
    assert memory({"used_memory": 90, "maxmemory": 100}).state is State.WARNING


def test_a_queue_that_nobody_serves_is_wrong_when_something_waits() -> None:
    assert work(Queue.LIVE, 0, 1, 5.0).state is State.WRONG
    assert work(Queue.LIVE, 0, 0, 0.0).state is State.WARNING
    assert work(Queue.LIVE, 1, 1, 5.0).state is State.FINE
    assert work(Queue.LIVE, 1, 1, 5000.0).state is State.WARNING
