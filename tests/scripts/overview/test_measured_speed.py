import pytest
from redis.asyncio import Redis

from scripts.overview.measured_speed import BusySpeed, SpeedRecorder, read_speed, save_speed
from tasks.ledger.counters import RunCounters
from tasks.model.outcome import Outcome
from worker.config.accounts import load_accounts
from worker.config.settings import Settings


def counters(archived: int, unchanged: int = 0) -> RunCounters:
    return RunCounters(1_000, {Outcome.ARCHIVED: archived, Outcome.UNCHANGED: unchanged})


def test_the_speed_excludes_startup_holds_and_unchanged_evaluations() -> None:
    speed = BusySpeed()
    speed.observe(counters(0), 0.0, is_busy=True)
    speed.observe(counters(10), 20.0, is_busy=True)  # the worker started
    assert speed.per_second is None
    speed.observe(counters(30, unchanged=500), 24.0, is_busy=True)
    assert speed.per_second == pytest.approx(5)
    speed.observe(counters(30, unchanged=500), 28.0, is_busy=False)
    speed.observe(counters(31, unchanged=500), 90.0, is_busy=True)  # it was on hold
    speed.observe(counters(41, unchanged=500), 92.0, is_busy=True)
    assert speed.per_second == pytest.approx(30 / 10)


async def test_the_speed_is_saved_during_the_run_and_at_its_end(redis: Redis) -> None:
    account = load_accounts(Settings(_env_file=None, rate=1_000)).select(None)
    recorder, saved = SpeedRecorder(redis, account), []
    for archived, now in ((10, 0.0), (50, 10.0), (60, 11.0), (110, 20.0), (1_000, 25.0)):
        await recorder.observe(counters(archived), now, is_busy=True)
        saved.append(await read_speed(redis, "default"))
    assert saved == [None, 4.0, 4.0, 5.0, 39.6]


async def test_a_speed_is_saved_unless_the_rate_limited_it(redis: Redis) -> None:
    assert await read_speed(redis, "default") is None
    await save_speed(redis, "default", 29.4, limit=360)
    assert await read_speed(redis, "default") == 29.4
    await save_speed(redis, "default", 8.9, limit=9)
    assert await read_speed(redis, "default") is None


async def test_read_speed_returns_none_when_the_saved_speed_is_damaged(redis: Redis) -> None:
    for text in ("fast", "nan", "-1", "inf"):
        await redis.hset("docv:speeds", "default", text)
        assert await read_speed(redis, "default") is None
