"""Redis is examined: does it keep what it is told, and does anybody work?"""

import pytest
from redis.asyncio import Redis

from scripts.doctor.finding import State
from scripts.doctor.redis import (
    examine,
    judge_eviction,
    judge_fsync,
    judge_latency,
    judge_memory,
    judge_persistence,
    judge_queue,
    judge_replicas,
)
from tasks.model.job import Queue
from worker.config.settings import Settings


async def test_a_redis_of_ours_is_fine_and_one_that_others_use_is_a_warning(redis: Redis, redis_url: str) -> None:
    settings = Settings(redis_url=redis_url)
    found = {each.subject: each async for each in examine(settings, ["default"])}
    assert "version" in found["Redis"].message
    for what in ("append-only file", "eviction", "memory of Redis", "sharing"):
        assert found[what].state is State.FINE, found[what]
    assert found["queue live"].state is State.WARNING
    await redis.set("somebody's", 1)
    again = {each.subject: each async for each in examine(settings, ["default"])}
    assert again["sharing"].state is State.WARNING


async def test_a_redis_that_is_not_there_cannot_be_reached(unused_tcp_port: int) -> None:
    settings = Settings(redis_url=f"redis://127.0.0.1:{unused_tcp_port}")
    (finding,) = [each async for each in examine(settings, ["default"])]
    assert finding.unreachable


@pytest.mark.parametrize(
    ("setting", "value", "what", "state"),
    [
        ("appendonly", "no", "append-only file", State.WRONG),
        ("appendfsync", "everysec", "a crash of Redis", State.WARNING),
        ("appendfsync", "always", "a crash of Redis", State.FINE),
        ("maxmemory-policy", "allkeys-lru", "eviction", State.WRONG),
        ("maxmemory", "1100000", "memory of Redis", State.WARNING),
    ],
)
async def test_how_a_real_one_is_set_is_seen(
    redis: Redis, redis_url: str, setting: str, value: str, what: str, state: State
) -> None:
    before = await redis.config_get(setting)
    await redis.config_set(setting, value)
    try:
        found = {each.subject: each async for each in examine(Settings(redis_url=redis_url), ["default"])}
    finally:
        await redis.config_set(setting, before[setting])
    assert (found[what].state, bool(found[what].fix)) == (state, state is not State.FINE)


def test_one_that_takes_long_to_answer_is_a_warning() -> None:
    assert judge_latency("7.2.4", 0.001).state is State.FINE
    assert judge_latency("of no version", 0.001).state is State.FINE
    assert judge_latency("7.2.4", 0.5).state is State.WARNING


@pytest.mark.parametrize(
    ("found", "wanted", "state"),
    [(0, 1, State.WRONG), (1, 0, State.WARNING), (1, 1, State.WARNING), (2, 1, State.FINE)],
)
def test_replicas_are_there_and_waited_for(found: int, wanted: int, state: State) -> None:
    assert judge_replicas({"connected_slaves": found}, wanted).state is state


async def test_replicas_are_looked_at_where_they_are_wanted(redis_url: str) -> None:
    for wanted, expected in ((0, None), (1, State.WRONG)):
        settings = Settings(redis_url=redis_url, redis_replicas=wanted)
        found = {each.subject: each.state async for each in examine(settings, ["default"])}
        assert found.get("replicas of Redis") == expected


def test_one_that_is_too_old_is_wrong() -> None:
    assert judge_latency("6.0.16", 0.001).state is State.WRONG


def test_what_it_may_lose_is_wrong() -> None:
    assert judge_persistence({"aof_enabled": 1, "aof_last_write_status": "err"}).state is State.WRONG
    assert judge_eviction({}).state is State.FINE
    assert judge_fsync(None).state is State.WARNING
    assert judge_memory({"used_memory": 70, "maxmemory": 100}).state is State.FINE


def test_a_queue_that_nobody_serves_is_wrong_when_something_waits() -> None:
    assert judge_queue(Queue.LIVE, 0, 1, 5.0).state is State.WRONG
    assert judge_queue(Queue.LIVE, 0, 0, 0.0).state is State.WARNING
    assert judge_queue(Queue.LIVE, 1, 1, 5.0).state is State.FINE
    assert judge_queue(Queue.LIVE, 1, 1, 5000.0).state is State.WARNING
