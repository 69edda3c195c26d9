"""The daily limit in RiskOS's headers. The tests move times that Redis has stored into the past."""

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
CHECK_INTERVAL = 15 * 60.0


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

    async def get_hold(self, queue: Queue = Queue.LIVE) -> Held:
        """Return why no request may be sent."""
        found = await self._script.acquire(self._account, queue, "acquire")
        assert isinstance(found, Held)
        return found

    async def record_answer(self, remaining: int, limit: int | None = 1000, reset: float | None = None) -> float:
        """Record RiskOS's answer to a request that is sent now; return the seconds until the next one may be sent."""
        self._now += 1.0
        headers = RateLimitHeaders((RateLimitWindow(DAY, limit, remaining, reset),))
        return await self.pace.on_headers(headers, self._now, self._now)

    async def pass_time(self, seconds: float) -> None:
        """Let some seconds pass, and holds of that length end."""
        for name in ("low_at", "seen_at", "look_at"):
            await self._redis.hincrby(QUOTA, name, -round(seconds * 1000))
        await self._redis.delete(hold_key("default"), hold_key(backfill_of("default")))

    async def count_left(self) -> int:
        return int(await self._redis.hget(QUOTA, "left"))


async def test_the_daily_limit_is_the_quota_when_none_is_configured(redis: Redis) -> None:
    key = Key(redis)
    await key.record_answer(999, limit=3)
    assert [await key.send() for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(("configured", "limit", "sent"), [(2, 3, 2), (3, 2, 2)])
async def test_the_daily_limit_caps_the_configured_quota(redis: Redis, configured: int, limit: int, sent: int) -> None:
    key = Key(redis, daily_quota=configured)
    await key.record_answer(999, limit=limit)
    assert sum([await key.send() for _ in range(4)]) == sent


async def test_the_daily_reserve_is_left_to_others(redis: Redis) -> None:
    key = Key(redis, leave_daily=2)
    await key.record_answer(999, limit=5)
    assert sum([await key.send() for _ in range(6)]) == 3


async def test_the_daily_limit_is_forgotten_after_a_day(redis: Redis) -> None:
    key = Key(redis)
    await key.record_answer(0, limit=1)
    await key.pass_time(DAY)
    assert all([await key.send() for _ in range(4)])


@pytest.mark.parametrize(("leave", "remaining"), [(0, 0), (5, 5), (5, 3)])
async def test_one_request_every_15_minutes_checks_a_spent_day(redis: Redis, leave: int, remaining: int) -> None:
    key = Key(redis, leave_daily=leave)
    assert await key.record_answer(remaining) == CHECK_INTERVAL
    held = await key.get_hold()
    assert held.reason == "quota"
    assert CHECK_INTERVAL - 60 < held.seconds <= CHECK_INTERVAL
    for _ in range(3):
        await key.pass_time(CHECK_INTERVAL)
        assert [await key.send() for _ in range(3)] == [True, False, False]
        assert 0 < (await key.get_hold()).seconds <= 10, "until the check is answered"
        await key.pass_time(10)
        await key.record_answer(remaining)
        assert CHECK_INTERVAL - 60 < (await key.get_hold()).seconds <= CHECK_INTERVAL


async def test_requests_go_on_when_the_check_of_a_spent_day_finds_more_left(redis: Redis) -> None:
    key = Key(redis)
    await key.record_answer(0)
    await key.pass_time(CHECK_INTERVAL)
    assert await key.send()
    assert not await key.send()
    await key.record_answer(999)
    await key.pass_time(10)
    assert all([await key.send() for _ in range(5)])


async def test_a_429_on_a_spent_day_places_the_hold_of_the_quota(redis: Redis) -> None:
    key = Key(redis)
    headers = RateLimitHeaders((RateLimitWindow(1.0, 10, 9), RateLimitWindow(DAY, 1000, 0)))
    assert await key.pace.on_rate_limited(headers, 0.0, 0.0, probe=False) == CHECK_INTERVAL
    assert (await key.get_hold()).reason == "quota"


async def test_requests_wait_for_the_end_of_a_spent_day_when_it_is_known(redis: Redis) -> None:
    key = Key(redis)
    assert await key.record_answer(0, reset=7200.0) == 7200
    assert 7100 < (await key.get_hold()).seconds <= 7200


async def test_no_more_requests_are_sent_than_remain_for_the_day(redis: Redis) -> None:
    key = Key(redis)
    await key.record_answer(3)
    assert [await key.send() for _ in range(5)] == [True, True, True, False, False]


async def test_a_single_answer_with_more_remaining_changes_nothing(redis: Redis) -> None:
    key = Key(redis)
    for remaining in (999, 999, 998, 998, 999):  # as recorded
        await key.record_answer(remaining)
    assert await key.count_left() == 998
    await key.record_answer(0)
    await key.record_answer(1)
    assert not await key.send()


async def test_the_remaining_requests_rise_when_all_answers_of_a_minute_have_more(redis: Redis) -> None:
    key = Key(redis)
    await key.record_answer(500)
    await key.record_answer(550)
    assert await key.count_left() == 500
    await key.pass_time(61)
    await key.record_answer(549)
    assert await key.count_left() == 549


@pytest.mark.parametrize(("remaining", "used"), [(1000, 0), (550, 2)])
async def test_a_new_day_begins_when_much_more_remains(redis: Redis, remaining: int, used: int) -> None:
    key = Key(redis)
    await key.record_answer(500)
    for _ in range(2):
        await key.send()
    await key.pass_time(61)
    await key.record_answer(remaining)
    assert (await key.pace.get_status()).used_today == used


async def test_no_new_day_begins_when_an_answer_has_no_daily_limit(redis: Redis) -> None:
    key = Key(redis, daily_quota=1000)
    await key.record_answer(500, limit=None)
    await key.send()
    await key.pass_time(61)
    await key.record_answer(1000, limit=None)
    assert (await key.pace.get_status()).used_today == 1


async def test_a_backfill_leaves_a_part_of_the_daily_limit_to_live_requests(redis: Redis) -> None:
    key = Key(redis, live_reserve=0.1)
    await key.record_answer(101)
    assert [await key.send(Queue.BACKFILL) for _ in range(2)] == [True, False]
    held = await key.get_hold(Queue.BACKFILL)
    assert held.reason == "quota"
    assert await key.send(Queue.LIVE)
