"""The check of Redis: durability, settings, and the workers of each queue."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from scripts.doctor.finding import State
from scripts.doctor.redis import (
    examine,
    judge_damaged,
    judge_eviction,
    judge_fsync,
    judge_latency,
    judge_leftovers,
    judge_memory,
    judge_persistence,
    judge_queue,
    judge_replicas,
)
from tasks.model.job import Queue
from tests.faults.forwarder import running_failover
from worker.config.settings import Settings


async def test_redis_is_a_warning_when_another_application_uses_it(redis: Redis, redis_url: str) -> None:
    settings = Settings(redis_url=redis_url)
    found = {each.subject: each async for each in examine(settings, ["default"])}
    assert "version" in found["Redis"].message
    for what in ("append-only file", "eviction", "memory of Redis", "sharing"):
        assert found[what].state is State.FINE, found[what]
    assert found["queue live"].state is State.WARNING
    await redis.set("a-key-of-another-application", 1)
    again = {each.subject: each async for each in examine(settings, ["default"])}
    assert again["sharing"].state is State.WARNING


async def test_messages_are_wrong_when_no_worker_reads_their_list(redis: Redis, redis_url: str) -> None:
    await redis.rpush("docv:celery", '{"headers": {"task": "docv.archive"}}')
    found = {each.subject: each async for each in examine(Settings(redis_url=redis_url), ["default"])}
    finding = found["messages of producers"]
    assert (finding.state, finding.message) == (State.WRONG, "no worker reads these lists: 1 in docv:celery")
    assert 'queue="live" or queue="backfill" in the producer' in finding.fix


async def test_redis_is_unreachable_when_nothing_listens(unused_tcp_port: int) -> None:
    settings = Settings(redis_url=f"redis://127.0.0.1:{unused_tcp_port}")
    (finding,) = [each async for each in examine(settings, ["default"])]
    assert finding.unreachable


async def test_a_replica_is_unreachable_and_the_fix_is_to_name_its_primary(tmp_path: Path) -> None:
    async with running_failover(tmp_path / "redis") as redises:
        (finding,) = [each async for each in examine(Settings(redis_url=redises.replicas[0].url), ["default"])]
    assert finding.unreachable
    assert "takes no writes" in finding.message
    assert "name its primary in DOCV_REDIS_URL" in finding.fix


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
async def test_the_settings_of_a_real_redis_are_judged(
    redis: Redis, redis_url: str, setting: str, value: str, what: str, state: State
) -> None:
    before = await redis.config_get(setting)
    await redis.config_set(setting, value)
    try:
        found = {each.subject: each async for each in examine(Settings(redis_url=redis_url), ["default"])}
    finally:
        await redis.config_set(setting, before[setting])
    assert (found[what].state, bool(found[what].fix)) == (state, state is not State.FINE)


def test_a_slow_redis_is_a_warning() -> None:
    assert judge_latency("7.2.4", 0.001).state is State.FINE
    assert judge_latency("unknown", 0.001).state is State.FINE
    assert judge_latency("7.2.4", 0.5).state is State.WARNING


@pytest.mark.parametrize(
    ("found", "wanted", "state"),
    [(0, 1, State.WRONG), (1, 0, State.WARNING), (1, 1, State.WARNING), (2, 1, State.FINE)],
)
def test_replicas_are_judged_by_their_number_and_the_setting(found: int, wanted: int, state: State) -> None:
    assert judge_replicas({"connected_slaves": found}, wanted).state is state


async def test_replicas_are_checked_only_when_configured(redis_url: str) -> None:
    for wanted, expected in ((0, None), (1, State.WRONG)):
        settings = Settings(redis_url=redis_url, redis_replicas=wanted)
        found = {each.subject: each.state async for each in examine(settings, ["default"])}
        assert found.get("replicas of Redis") == expected


def test_an_old_redis_is_wrong() -> None:
    assert judge_latency("6.0.16", 0.001).state is State.WRONG


def test_a_failed_append_is_wrong_and_unknown_settings_are_not() -> None:
    assert judge_persistence({"aof_enabled": 1, "aof_last_write_status": "err"}).state is State.WRONG
    assert judge_eviction({}).state is State.FINE
    assert judge_fsync(None).state is State.WARNING
    assert judge_memory({"used_memory": 70, "maxmemory": 100}).state is State.FINE


def test_a_queue_is_wrong_when_evaluations_wait_and_no_worker_serves_it() -> None:
    assert judge_queue(Queue.LIVE, 0, 1, 5.0).state is State.WRONG
    assert judge_queue(Queue.LIVE, 0, 0, 0.0).state is State.WARNING
    assert judge_queue(Queue.LIVE, 1, 1, 5.0).state is State.FINE
    assert judge_queue(Queue.LIVE, 1, 1, 5000.0).state is State.WARNING


def test_damaged_entries_are_wrong_and_listed() -> None:
    assert judge_damaged(0, ()).state is State.FINE
    found = judge_damaged(5, ("a", "b"))
    assert (found.state, found.message) == (State.WRONG, "5 damaged entries, such as a, b")


def test_leftovers_of_erased_evaluations_are_wrong() -> None:
    assert judge_leftovers(0).state is State.FINE
    found = judge_leftovers(3)
    assert (found.state, "erase --pending" in found.fix) == (State.WRONG, True)
