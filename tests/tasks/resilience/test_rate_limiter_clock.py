"""Permits, holds and due evaluations are not delayed when Redis's clock is set by up to two hours."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from pydantic import SecretStr
from redis.asyncio import Redis

from tasks.errors import AccountHeld
from tasks.ledger.ledger import Ledger
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.account import Account, Allowance
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.resilience.adaptive_rate import AdaptiveRate
from tasks.resilience.holds import ARCHIVE, KEY_BACKOFF, Holds, Reason
from tasks.resilience.rate_headers import RateLimitHeaders, RateLimitWindow
from tasks.resilience.rate_limiter import RateLimiter
from tests.holds import refused

HOUR = 3600.0
STEPS = [(-2 * HOUR,), (-HOUR,), (-30.0,), (HOUR,), (2 * HOUR, -2 * HOUR), (HOUR, -2 * HOUR, 2 * HOUR, -HOUR)]
SOON = 10.0
PATIENCE = {Queue.LIVE: HOUR, Queue.BACKFILL: HOUR}


@dataclass
class Clock:
    """The clock of a Redis; a test sets it, and a sleep advances it."""

    offset: float = 0.0
    slept: float = 0.0

    async def sleep(self, seconds: float) -> None:
        self.offset += seconds
        self.slept += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made, now = Clock(), time.time
    monkeypatch.setattr(time, "time", lambda: now() + made.offset)
    return made


@pytest.fixture
async def redis(clock: Clock) -> AsyncIterator[Redis]:
    async with FakeAsyncRedis(server=FakeServer(), decode_responses=True) as client:
        yield client


def account(rate: float) -> Account:
    return Account("default", "sandbox", "https://riskos.example", SecretStr("key"), None, Allowance(rate=rate))


async def acquire(limiter: RateLimiter, clock: Clock, limited: Account, queue: Queue, count: int) -> float:
    """Acquire some permits, and return the seconds that it took."""
    before = clock.slept
    for _ in range(count):
        try:
            await limiter.acquire(limited, queue)
        except AccountHeld as held:
            await clock.sleep(held.wait)
    return clock.slept - before


@pytest.mark.parametrize("steps", STEPS, ids=str)
@pytest.mark.parametrize("queue", list(Queue))
@pytest.mark.parametrize("rate", [0.5, 50.0])
async def test_permits_are_granted_when_the_clock_is_set(
    redis: Redis, clock: Clock, steps: tuple[float, ...], queue: Queue, rate: float
) -> None:
    limiter, limited = RateLimiter(redis, clock.sleep), account(rate)
    usual = await acquire(limiter, clock, limited, queue, 40)
    for step in steps:
        clock.offset += step
        assert await acquire(limiter, clock, limited, queue, 40) <= usual + SOON
    assert await acquire(limiter, clock, limited, queue, 40) == pytest.approx(usual, rel=0.2, abs=1)


@pytest.mark.parametrize("steps", STEPS, ids=str)
async def test_permits_are_granted_when_the_clock_is_set_during_a_full_window(
    redis: Redis, clock: Clock, steps: tuple[float, ...]
) -> None:
    limiter, limited = RateLimiter(redis, clock.sleep), account(10.0)
    rate = AdaptiveRate(redis, "default", limited.allowance, Holds(redis))
    usual = await acquire(limiter, clock, limited, Queue.LIVE, 40)
    for step in steps:
        await rate.on_headers(RateLimitHeaders((RateLimitWindow(60, limit=600, remaining=0),)), 0.0, 0.2)
        clock.offset += step
        assert await acquire(limiter, clock, limited, Queue.LIVE, 40) <= usual + 60 + SOON


@pytest.mark.parametrize("steps", STEPS, ids=str)
async def test_a_hold_ends_or_is_probed_on_time_when_the_clock_is_set(
    redis: Redis, clock: Clock, steps: tuple[float, ...]
) -> None:
    limiter, limited, holds = RateLimiter(redis, clock.sleep), account(50.0), Holds(redis)
    for step in steps:
        await holds.place_for("default", Reason.SLOW_DOWN, "slow down", 5)
        clock.offset += step
        assert await acquire(limiter, clock, limited, Queue.LIVE, 2) <= SOON
        assert all(hold.remaining == 0 for hold in await holds.list_all())
    for step in steps:
        await refused(holds, "default", 401, probe=False)
        clock.offset += step
        hold = await holds.get("default")
        assert hold
        assert hold.remaining <= KEY_BACKOFF.initial
        await clock.sleep(hold.remaining)
        assert await limiter.acquire(limited, Queue.LIVE) is True, "it is the probe"
        await holds.end_after_probe("default")


async def test_a_hold_of_the_archive_is_probed_when_the_clock_is_set_back(redis: Redis, clock: Clock) -> None:
    holds = Holds(redis)
    await holds.place_until_probe(ARCHIVE, Reason.CANNOT_WRITE, "full", KEY_BACKOFF, probe=False)
    clock.offset -= HOUR
    assert await holds.enter(ARCHIVE) is Reason.CANNOT_WRITE


@pytest.mark.parametrize("steps", STEPS, ids=str)
async def test_parked_and_leased_evaluations_are_due_on_time_when_the_clock_is_set(
    redis: Redis, clock: Clock, steps: tuple[float, ...]
) -> None:
    ledger = Ledger(redis, lease_seconds=60)
    parked, leased, later = (f"0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a{number:02x}" for number in range(3))
    await ledger.accept([parked, leased, later], EnqueueOptions(Queue.LIVE, "default", Trigger("enqueue")))
    first, _ = await ledger.lease([parked, leased], token="gone")
    await ledger.retry_later(first, wait=30, attempts=1, failure=Failure("service_failed"))
    assert await ledger.claim(patience=PATIENCE, of_held={}) == {}
    for step in steps:
        clock.offset += step
        (new,) = await ledger.lease([later], token="new") or [None]
        claimed = await ledger.claim(patience=PATIENCE, of_held={})
        assert later not in claimed.get(Queue.LIVE, []) or step > 0, "it has just been leased"
        if new:
            await ledger.release(new)
    await clock.sleep(61)
    claimed = await ledger.claim(patience=PATIENCE, of_held={})
    states = dict(zip((parked, leased), await ledger.locate([parked, leased]), strict=True))
    assert {state for state, _ in states.values()} == {"queued"}, claimed


async def test_queued_evaluations_are_published_once_when_the_clock_is_set(redis: Redis, clock: Clock) -> None:
    ledger = Ledger(redis)
    ids = [f"0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a{number:02x}" for number in range(9)]
    await ledger.accept(ids, EnqueueOptions(Queue.LIVE, "default", Trigger("enqueue")))
    await ledger.lease(ids[-1:], token="ours")
    await ledger.claim(patience=PATIENCE, of_held={})
    clock.offset -= HOUR
    for _ in range(5):
        claimed = await ledger.claim(patience=PATIENCE, of_held={})
        await clock.sleep(1)
    assert claimed == {}


async def test_former_workers_are_not_counted_when_the_clock_is_set_back(redis: Redis, clock: Clock) -> None:
    registry = WorkerRegistry(redis)
    await registry.heartbeat("gone", list(Queue))
    clock.offset -= HOUR
    await registry.heartbeat("here", list(Queue))
    assert set((await registry.count()).values()) == {1}
