"""The daily limit in RiskOS's headers; times that Redis has stored are moved into the past."""

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from tasks.model.account import Account, Allowance
from tasks.model.job import Queue
from tasks.resilience.adaptive_rate import AdaptiveRate
from tasks.resilience.holds import Holds, backfill_of, hold_key
from tasks.resilience.rate_headers import DAY, RateLimitHeaders, RateLimitWindow
from tasks.resilience.rate_limiter import Granted, Held, RateLimitScript

pytestmark = pytest.mark.both_redises

QUOTA = "docv:quota:default"
LOOK = 15 * 60.0


class Key:
    """A key with a daily limit, as a worker uses it."""

    def __init__(self, redis: Redis, **allowance: float) -> None:
        settings = Allowance(**({"rate": 10_000.0, "burst": 1_000, "backfill_share": 1.0} | allowance))  # type: ignore[arg-type]
        self._redis, self._script = redis, RateLimitScript(redis)
        self._account = Account("default", "sandbox", "https://riskos.example", SecretStr("key"), None, settings)
        self.pace = AdaptiveRate(redis, "default", settings, Holds(redis))
        self._now = 0.0

    async def send(self, queue: Queue = Queue.LIVE) -> bool:
        """Return whether a request may be sent."""
        verb = "acquire_backfill" if queue is Queue.BACKFILL else "acquire"
        return isinstance(await self._script.acquire(self._account, queue, verb), Granted)

    async def held(self, queue: Queue = Queue.LIVE) -> Held:
        """Return why no request may be sent."""
        found = await self._script.acquire(self._account, queue, "acquire")
        assert isinstance(found, Held)
        return found

    async def answered(self, remaining: int, limit: int | None = 1000, reset: float | None = None) -> float:
        """Let RiskOS answer a request that is sent now; return how long nothing should be sent."""
        self._now += 1.0
        headers = RateLimitHeaders((RateLimitWindow(DAY, limit, remaining, reset),))
        return await self.pace.on_headers(headers, self._now, self._now)

    async def passes(self, seconds: float) -> None:
        """Let some seconds pass, and holds of that length end."""
        for name in ("low_at", "seen_at", "look_at"):
            await self._redis.hincrby(QUOTA, name, -round(seconds * 1000))
        await self._redis.delete(hold_key("default"), hold_key(backfill_of("default")))

    async def left(self) -> int:
        return int(await self._redis.hget(QUOTA, "left"))


async def test_the_daily_limit_is_the_quota_when_none_is_configured(redis: Redis) -> None:
    key = Key(redis)
    await key.answered(999, limit=3)
    assert [await key.send() for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(("configured", "limit", "sent"), [(2, 3, 2), (3, 2, 2)])
async def test_the_daily_limit_caps_the_configured_quota(redis: Redis, configured: int, limit: int, sent: int) -> None:
    key = Key(redis, daily_quota=configured)
    await key.answered(999, limit=limit)
    assert sum([await key.send() for _ in range(4)]) == sent


async def test_the_daily_reserve_is_left_to_others(redis: Redis) -> None:
    key = Key(redis, leave_daily=2)
    await key.answered(999, limit=5)
    assert sum([await key.send() for _ in range(6)]) == 3


async def test_the_daily_limit_is_forgotten_after_a_day(redis: Redis) -> None:
    key = Key(redis)
    await key.answered(0, limit=1)
    await key.passes(DAY)
    assert all([await key.send() for _ in range(4)])


@pytest.mark.parametrize(("leave", "remaining"), [(0, 0), (5, 5), (5, 3)])
async def test_one_request_every_15_minutes_checks_a_spent_day(redis: Redis, leave: int, remaining: int) -> None:
    key = Key(redis, leave_daily=leave)
    assert await key.answered(remaining) == LOOK
    held = await key.held()
    assert held.reason == "quota"
    assert LOOK - 60 < held.seconds <= LOOK
    for _ in range(3):
        await key.passes(LOOK)
        assert [await key.send() for _ in range(3)] == [True, False, False]
        assert 0 < (await key.held()).seconds <= 10, "until the check is answered"
        await key.passes(10)
        await key.answered(remaining)
        assert LOOK - 60 < (await key.held()).seconds <= LOOK


async def test_requests_go_on_when_the_check_of_a_spent_day_finds_more_left(redis: Redis) -> None:
    key = Key(redis)
    await key.answered(0)
    await key.passes(LOOK)
    assert await key.send()
    assert not await key.send()
    await key.answered(999)
    await key.passes(10)
    assert all([await key.send() for _ in range(5)])


async def test_a_429_of_a_spent_day_holds_for_the_quota(redis: Redis) -> None:
    key = Key(redis)
    words = RateLimitHeaders((RateLimitWindow(1.0, 10, 9), RateLimitWindow(DAY, 1000, 0)))
    assert await key.pace.on_rate_limited(words, 0.0, 0.0, probe=False) == LOOK
    assert (await key.held()).reason == "quota"


async def test_requests_wait_for_the_end_of_a_spent_day_when_it_is_known(redis: Redis) -> None:
    key = Key(redis)
    assert await key.answered(0, reset=7200.0) == 7200
    assert 7100 < (await key.held()).seconds <= 7200


async def test_no_more_requests_are_sent_than_remain_of_the_day(redis: Redis) -> None:
    key = Key(redis)
    await key.answered(3)
    assert [await key.send() for _ in range(5)] == [True, True, True, False, False]


async def test_a_single_answer_with_more_remaining_changes_nothing(redis: Redis) -> None:
    key = Key(redis)
    for remaining in (999, 999, 998, 998, 999):  # as recorded
        await key.answered(remaining)
    assert await key.left() == 998
    await key.answered(0)
    await key.answered(1)
    assert not await key.send()


async def test_the_remaining_requests_rise_when_every_answer_of_a_minute_says_so(redis: Redis) -> None:
    key = Key(redis)
    await key.answered(500)
    await key.answered(550)
    assert await key.left() == 500
    await key.passes(61)
    await key.answered(549)
    assert await key.left() == 549


@pytest.mark.parametrize(("remaining", "used"), [(1000, 0), (550, 2)])
async def test_a_new_day_begins_when_much_more_remains(redis: Redis, remaining: int, used: int) -> None:
    key = Key(redis)
    await key.answered(500)
    for _ in range(2):
        await key.send()
    await key.passes(61)
    await key.answered(remaining)
    assert (await key.pace.get_status()).used_today == used


async def test_no_new_day_begins_when_an_answer_has_no_daily_limit(redis: Redis) -> None:
    key = Key(redis, daily_quota=1000)
    await key.answered(500, limit=None)
    await key.send()
    await key.passes(61)
    await key.answered(1000, limit=None)
    assert (await key.pace.get_status()).used_today == 1


async def test_a_backfill_leaves_a_part_of_the_daily_limit_to_live_requests(redis: Redis) -> None:
    key = Key(redis, live_reserve=0.1)
    await key.answered(101)
    assert [await key.send(Queue.BACKFILL) for _ in range(2)] == [True, False]
    held = await key.held(Queue.BACKFILL)
    assert held.reason == "quota"
    assert await key.send(Queue.LIVE)
