"""How an account's rate adapts.

Redis's clock runs during a test, so a rate that recovers is compared with the time that the test has taken. No test
sleeps: times that Redis has stored are moved into the past.
"""

from dataclasses import dataclass, replace

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from tasks.errors import AccountHeld
from tasks.model.account import Account, Allowance
from tasks.model.job import Queue
from tasks.resilience.adaptive_rate import AdaptiveRate, RateStatus
from tasks.resilience.holds import Hold, Holds, Reason, hold_key
from tasks.resilience.rate_headers import DAY, RateLimitHeaders, RateLimitWindow
from tasks.resilience.rate_limiter import RateLimiter, RateLimitScript

pytestmark = pytest.mark.both_redises

RATE = 100.0
ALLOWANCE = Allowance(rate=RATE)
HOUR = 3600.0
NO_HEADERS = RateLimitHeaders()


def window(seconds: float | None = None, **facts: float) -> RateLimitHeaders:
    """Return headers with one window."""
    return RateLimitHeaders((RateLimitWindow(seconds, **facts),))  # type: ignore[arg-type]


A_MINUTE = RateLimitHeaders(retry_after=60.0)
"""Long enough for the hold to last until a slow machine reads it."""
PACE, QUOTA = "docv:pace:default", "docv:quota:default"


async def clock(redis: Redis) -> float:
    seconds, micro = await redis.time()
    return float(seconds) + micro / 1e6


@dataclass
class Subject:
    """An adaptive rate, and the clock it uses.

    Attributes:
        began: when the test began, on Redis's clock.
    """

    redis: Redis
    rate: AdaptiveRate
    began: float

    async def record_429(self, headers: RateLimitHeaders = NO_HEADERS, *, probe: bool = False) -> float:
        """Record a 429 two seconds after the previous one."""
        if await self.redis.hexists(PACE, "limited_at"):
            await self.redis.hset(PACE, "limited_at", round((await clock(self.redis) - 2) * 1000))
        return await self.rate.on_rate_limited(headers, 0.0, 0.0, probe=probe)

    async def record_separate_429s(self, times: int) -> None:
        """Record several 429s that are not in a row."""
        for _ in range(times):
            await self.record_429()
            self.rate.on_success()

    async def backdate(self, key: str, field: str, seconds: float) -> None:
        """Move a stored time into the past."""
        await self.redis.hincrby(key, field, -round(seconds * 1000))

    async def assert_rate(self, rate: float) -> None:
        """Assert that this rate is in effect, plus at most its recovery since the test began."""
        effective = (await self.rate.get_status()).effective
        recovered = (await clock(self.redis) - self.began) * RATE / 100
        assert rate - 0.01 <= effective <= min(RATE, rate + recovered + 0.01)


@pytest.fixture
def holds(redis: Redis) -> Holds:
    return Holds(redis)


@pytest.fixture
async def subject(redis: Redis, holds: Holds) -> Subject:
    return Subject(redis, AdaptiveRate(redis, "default", ALLOWANCE, holds), await clock(redis))


async def only_hold(holds: Holds) -> Hold:
    (hold,) = await holds.list_all()
    assert hold.scope == "default"
    return hold


@dataclass
class Quota:
    """An account with a daily quota."""

    redis: Redis
    requests: int

    async def spend(self) -> None:
        """Send one request."""
        allowance = Allowance(rate=10_000, burst=1_000, daily_quota=self.requests)
        account = Account("default", "sandbox", "https://riskos.example", SecretStr("key"), None, allowance)
        await RateLimiter(self.redis, self._no_sleep).acquire(account, Queue.LIVE)

    async def assert_spent(self) -> float:
        """Assert that the quota is spent; return the seconds until the next day."""
        with pytest.raises(AccountHeld, match="quota") as held:
            await self.spend()
        await self.redis.delete(hold_key("default"))
        return held.value.wait

    async def _no_sleep(self, _seconds: float) -> None:
        pass


# The rate falls


@pytest.mark.parametrize(("times", "kept"), [(0, 100), (1, 100), (2, 100), (3, 80), (4, 64), (6, 40.96)])
async def test_the_rate_falls_by_a_fifth_with_each_429_after_the_first_two_in_a_short_time(
    subject: Subject, times: int, kept: float
) -> None:
    await subject.record_separate_429s(times)
    await subject.assert_rate(kept)


async def test_the_rate_never_falls_below_a_twentieth(subject: Subject) -> None:
    await subject.record_separate_429s(25)
    await subject.assert_rate(RATE / 20)


async def test_the_rate_does_not_fall_when_429s_are_far_apart(subject: Subject) -> None:
    for _ in range(6):
        await subject.rate.on_rate_limited(NO_HEADERS, 0.0, 0.0, probe=False)
        await subject.backdate(PACE, "limited_at", 31)
    await subject.assert_rate(RATE)


async def test_429s_of_simultaneous_requests_count_once(subject: Subject, redis: Redis, holds: Holds) -> None:
    await subject.record_separate_429s(2)
    together = round(await clock(redis) * 1000) + 900  # leaves almost two seconds for the next lines
    await redis.hset(PACE, "limited_at", together)
    for _ in range(20):
        assert 50 < await subject.rate.on_rate_limited(A_MINUTE, 0.0, 0.0, probe=False) <= 60
    await subject.assert_rate(RATE)
    assert not (await only_hold(holds)).needs_probe
    await subject.record_429()
    await subject.assert_rate(80)


async def test_a_reduced_rate_applies_to_another_process_at_once(subject: Subject, redis: Redis, holds: Holds) -> None:
    await subject.record_separate_429s(3)
    subject.rate = AdaptiveRate(redis, "default", ALLOWANCE, holds)
    await subject.assert_rate(80)


# The rate recovers


async def test_the_rate_recovers_by_a_hundredth_per_quiet_second(subject: Subject) -> None:
    await subject.record_separate_429s(3)
    await subject.backdate(PACE, "slowed_at", 10)
    await subject.assert_rate(90)


async def test_the_rate_does_not_recover_beyond_the_configured_rate(subject: Subject) -> None:
    await subject.record_separate_429s(4)
    await subject.backdate(PACE, "slowed_at", HOUR)
    assert await subject.rate.get_status() == RateStatus(configured=RATE, effective=RATE, manual=False, used_today=0)


async def test_the_recovered_rate_falls_when_429s_come_again(subject: Subject) -> None:
    await subject.record_separate_429s(3)
    await subject.backdate(PACE, "slowed_at", 10)
    await subject.record_separate_429s(1)
    await subject.assert_rate(72)


# The wait after a 429


async def test_the_wait_doubles_with_each_429_that_has_none_until_the_hold_needs_a_probe(
    subject: Subject, holds: Holds
) -> None:
    assert [await subject.record_429() for _ in range(5)] == [1, 2, 4, 8, 16]
    hold = await only_hold(holds)
    assert (hold.reason, hold.needs_probe, hold.note) == ("429", False, "RiskOS asks to slow down")

    assert await subject.record_429() == 30

    hold = await only_hold(holds)
    assert (hold.reason, hold.needs_probe) == ("429", True)
    assert "every request" in hold.note


async def test_a_429_to_a_probe_doubles_the_pause(subject: Subject) -> None:
    for _ in range(6):
        await subject.record_429()
    assert [await subject.record_429(probe=True) for _ in range(2)] == [60, 120]


@pytest.mark.parametrize(
    "headers",
    [RateLimitHeaders(retry_after=75.5), window(reset=75.5), replace(window(reset=600), retry_after=75.5)],
)
async def test_the_hold_lasts_as_long_as_a_429_requires(
    subject: Subject, holds: Holds, headers: RateLimitHeaders
) -> None:
    assert await subject.record_429(headers) == 75.5
    assert (await only_hold(holds)).reason == "429"


@pytest.mark.parametrize("wait", [0.0, 0.3])
async def test_the_hold_lasts_at_least_a_second(subject: Subject, wait: float) -> None:
    assert await subject.record_429(RateLimitHeaders(retry_after=wait)) == 1


async def test_the_sixth_429_in_a_row_places_a_hold_that_only_a_probe_ends(subject: Subject, holds: Holds) -> None:
    for _ in range(5):
        await subject.record_429(A_MINUTE)
    assert not (await only_hold(holds)).needs_probe
    await subject.record_429(A_MINUTE)
    assert (await only_hold(holds)).needs_probe


async def test_a_success_ends_a_row_of_429s(subject: Subject, holds: Holds) -> None:
    for number in range(12):
        await subject.record_429(A_MINUTE)
        if number % 5 == 4:
            subject.rate.on_success()
    assert not (await only_hold(holds)).needs_probe


async def test_a_success_in_another_process_ends_a_row_of_429s_when_it_is_flushed(
    subject: Subject, redis: Redis, holds: Holds
) -> None:
    another = AdaptiveRate(redis, "default", ALLOWANCE, holds)
    for _ in range(5):
        await subject.record_429(A_MINUTE)
    another.on_success()
    await another.flush()
    for _ in range(5):
        await subject.record_429(A_MINUTE)
    assert not (await only_hold(holds)).needs_probe

    await another.flush()  # it has nothing new to report
    await subject.record_429(A_MINUTE)
    assert (await only_hold(holds)).needs_probe


async def test_flush_writes_nothing_when_there_was_no_429(subject: Subject, redis: Redis) -> None:
    subject.rate.on_success()
    await subject.rate.flush()
    assert await redis.keys("*") == []


# An account that is not activated


async def test_a_limit_of_0_places_the_hold_not_activated(subject: Subject, holds: Holds) -> None:
    assert await subject.record_429(replace(window(1.0, limit=0), retry_after=1)) == 30
    hold = await only_hold(holds)
    assert (hold.reason, hold.needs_probe) == (Reason.NOT_ACTIVATED, True)
    assert "not activated" in hold.note
    assert await subject.record_429(window(1.0, limit=0), probe=True) == 60
    await subject.assert_rate(RATE)


# The quota


@pytest.mark.parametrize(("wait", "reason"), [(119.0, "429"), (120.0, "quota"), (HOUR, "quota"), (DAY, "quota")])
async def test_a_long_wait_places_the_hold_of_the_quota(
    subject: Subject, holds: Holds, wait: float, reason: str
) -> None:
    assert await subject.record_429(RateLimitHeaders(retry_after=wait)) == wait
    hold = await only_hold(holds)
    assert (hold.reason, hold.needs_probe) == (reason, False)
    assert wait - 60 < hold.remaining <= wait
    await subject.assert_rate(RATE)


async def test_the_quota_counts_from_0_when_the_day_that_a_429_announced_begins(subject: Subject, redis: Redis) -> None:
    quota = Quota(redis, requests=2)
    for _ in range(2):
        await quota.spend()
    await subject.record_429(RateLimitHeaders(retry_after=HOUR))
    await redis.delete(hold_key("default"))
    assert HOUR - 60 < await quota.assert_spent() <= HOUR

    await subject.backdate(QUOTA, "since", HOUR)

    assert (await subject.rate.get_status()).used_today == 0
    for _ in range(2):
        await quota.spend()
    assert (await subject.rate.get_status()).used_today == 2
    assert DAY - 60 < await quota.assert_spent() <= DAY


async def test_a_learnt_day_of_the_quota_begins_on_time_when_no_request_is_sent(subject: Subject, redis: Redis) -> None:
    quota = Quota(redis, requests=1)
    await subject.record_429(RateLimitHeaders(retry_after=HOUR))
    await redis.delete(hold_key("default"))
    await subject.backdate(QUOTA, "since", HOUR + 3 * DAY + 5 * HOUR)
    await quota.spend()
    assert 19 * HOUR - 60 < await quota.assert_spent() <= 19 * HOUR


@pytest.mark.parametrize(
    ("reason", "lasting", "new_day"),
    [
        (Reason.SLOW_DOWN, 600.0, True),
        (Reason.SLOW_DOWN, 9 * HOUR, True),
        (Reason.SLOW_DOWN, 599.0, False),
        (Reason.UNAUTHORIZED, 9 * HOUR, False),
        (Reason.OUTAGE, 9 * HOUR, False),
    ],
)
async def test_a_successful_probe_begins_a_new_day_of_the_quota_when_429s_had_lasted_long(
    subject: Subject, redis: Redis, reason: Reason, lasting: float, *, new_day: bool
) -> None:
    quota = Quota(redis, requests=2)
    for _ in range(2):
        await quota.spend()
    await subject.backdate(QUOTA, "since", 5 * HOUR)

    await subject.rate.on_hold_ended(Hold("default", reason, "", lasting, 0.0, needs_probe=True))

    if new_day:
        assert (await subject.rate.get_status()).used_today == 1, "the probe itself"
        await quota.spend()
    left = DAY if new_day else DAY - 5 * HOUR
    assert left - 60 < await quota.assert_spent() <= left


# The headers


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        (window(remaining=0, reset=2.0), 2),
        (window(remaining=0, reset=119.0), 119),
        (window(60.0, limit=300, remaining=0), 60),
        (window(60.0, limit=300, remaining=0, reset=7.0), 7),
        (window(3600.0, limit=300, remaining=0), 3600),
    ],
)
async def test_no_request_is_sent_until_a_spent_window_ends(
    subject: Subject, holds: Holds, headers: RateLimitHeaders, wait: float
) -> None:
    assert await subject.rate.on_headers(headers, 0.0, 0.0) == wait
    hold = await only_hold(holds)
    assert (hold.reason, hold.needs_probe, hold.note) == ("429", False, "RiskOS reports that no requests are left")


@pytest.mark.parametrize("seconds", [None, DAY])
async def test_a_long_spent_window_places_the_hold_of_the_quota(
    subject: Subject, holds: Holds, seconds: float | None
) -> None:
    assert await subject.rate.on_headers(window(seconds, limit=5000, remaining=0, reset=HOUR), 0.0, 0.0) == HOUR
    assert (await only_hold(holds)).reason == "quota"


@pytest.mark.parametrize(
    "headers",
    [
        window(remaining=0, reset=1.0),
        window(remaining=0),
        window(remaining=1, reset=60.0),
        window(reset=60.0),
        window(limit=5, reset=60.0),
        window(1.0, limit=0, remaining=0),
        window(1.0, remaining=0),
        NO_HEADERS,
    ],
)
async def test_headers_place_no_hold_when_they_do_not_concern_the_next_seconds(
    subject: Subject, redis: Redis, headers: RateLimitHeaders
) -> None:
    assert await subject.rate.on_headers(headers, 0.0, 0.0) == 0
    assert await redis.keys("*") == []


@pytest.mark.parametrize(
    ("headers", "effective"),
    [
        (window(1.0, limit=5), 4),
        (window(1.0, limit=1000), RATE),
        (window(1.0, limit=1), 0.2),
        (window(60.0, limit=301), 5),
        (window(1.0, limit=10, remaining=9), 9),
        (window(1.0, limit=10, remaining=3), 3),
        (window(1.0, limit=10, remaining=0), 0.2),
    ],
)
async def test_the_rate_is_the_granted_one_less_the_use_and_the_reserve_of_others(
    subject: Subject, headers: RateLimitHeaders, effective: float
) -> None:
    await subject.rate.on_headers(headers, 0.0, 0.0)
    assert (await subject.rate.get_status()).effective == pytest.approx(effective)


async def test_the_reserve_of_others_follows_the_settings(redis: Redis, holds: Holds) -> None:
    pace = AdaptiveRate(redis, "default", Allowance(rate=RATE, leave_rate=3), holds)
    await pace.on_headers(window(1.0, limit=10, remaining=9), 0.0, 0.0)
    assert (await pace.get_status()).effective == 7


async def test_the_status_shows_the_granted_rate_and_that_of_others(subject: Subject) -> None:
    await subject.rate.on_headers(window(60.0, limit=600, remaining=599 - 120), 0.0, 0.0)
    await subject.rate.on_headers(window(DAY, limit=1000, remaining=999), 0.0, 0.2)
    status = await subject.rate.get_status()
    assert (status.granted, status.neighbour, status.daily_limit) == (10, 2, 1000)


@pytest.mark.parametrize(("neighbour", "wait"), [(9, True), (3, False)])
async def test_requests_wait_for_the_end_of_a_window_that_others_filled(
    subject: Subject, neighbour: int, *, wait: bool
) -> None:
    left = 10 - 1 - neighbour
    assert (await subject.rate.on_headers(window(1.0, limit=10, remaining=left), 0.0, 0.0) > 0) is wait


async def test_requests_do_not_wait_when_our_own_requests_filled_the_window(subject: Subject, redis: Redis) -> None:
    limited = Account("default", "sandbox", "https://riskos.example", SecretStr("key"), None, Allowance(rate=10_000.0))
    for _ in range(10):
        await RateLimitScript(redis).acquire(limited, Queue.LIVE, "acquire")
    assert await subject.rate.on_headers(window(1.0, limit=10, remaining=0), 0.0, 0.0) == 0
    assert (await subject.rate.get_status()).neighbour == 0


async def test_the_granted_rate_is_used_for_ten_minutes(subject: Subject, redis: Redis) -> None:
    before = await clock(redis)
    await subject.rate.on_headers(window(1.0, limit=5), 0.0, 0.0)
    after = await clock(redis)
    assert before - 0.001 <= int(await redis.hget(PACE, "granted_until")) / 1000 - 600 <= after + 0.001

    await subject.backdate(PACE, "granted_until", 601)

    status = await subject.rate.get_status()
    assert (status.effective, status.granted, status.neighbour) == (RATE, None, None)


async def test_observations_within_200_ms_are_sent_to_redis_together(subject: Subject, redis: Redis) -> None:
    sent = []
    for now in (0.0, 0.1, 0.199, 0.2, 0.3, 0.5):
        await redis.delete(PACE)
        await subject.rate.on_headers(window(1.0, limit=50, remaining=40), now, now)
        sent.append(await redis.exists(PACE))
    assert sent == [1, 0, 0, 1, 0, 1]


async def test_flush_sends_the_remaining_observations_to_redis(subject: Subject, redis: Redis) -> None:
    for now in (0.0, 0.1):
        await redis.delete(PACE)
        await subject.rate.on_headers(window(1.0, limit=50, remaining=40), now, now)
    await subject.rate.flush()
    assert await redis.exists(PACE)


async def test_a_full_window_is_sent_to_redis_at_once(subject: Subject) -> None:
    await subject.rate.on_headers(window(1.0, limit=10, remaining=9), 0.0, 0.0)
    assert await subject.rate.on_headers(window(1.0, limit=10, remaining=0), 0.0, 0.01) > 0


async def test_a_reduced_rate_recovers_to_the_granted_rate(subject: Subject) -> None:
    await subject.record_separate_429s(3)
    await subject.rate.on_headers(window(1.0, limit=51), 0.0, 0.0)
    assert (await subject.rate.get_status()).effective == 50
    await subject.record_separate_429s(1)
    await subject.assert_rate(40)


async def test_the_first_429_waits_for_its_window_and_places_no_hold(subject: Subject, holds: Holds) -> None:
    full = window(1.0, limit=10, remaining=0)
    assert 0 < await subject.record_429(full) <= 1
    assert await holds.list_all() == []
    assert await subject.record_429(full) == 2
    assert (await only_hold(holds)).reason == "429"


async def test_a_429_with_a_spent_minute_waits_for_the_end_of_the_minute(subject: Subject, holds: Holds) -> None:
    assert await subject.record_429(window(60.0, limit=300, remaining=0)) == 60
    assert (await only_hold(holds)).reason == "429"


# The manual rate


async def test_the_rate_is_that_of_the_settings_unless_it_is_set_manually(
    subject: Subject, redis: Redis, holds: Holds
) -> None:
    another = AdaptiveRate(redis, "default", Allowance(rate=30.0), holds)
    assert await another.get_status() == RateStatus(configured=30, effective=30, manual=False, used_today=0)
    await subject.rate.set_rate(2.5)
    for each in (subject.rate, another):
        assert await each.get_status() == RateStatus(configured=2.5, effective=2.5, manual=True, used_today=0)
    await subject.rate.set_rate(None)
    assert await another.get_status() == RateStatus(configured=30, effective=30, manual=False, used_today=0)


async def test_a_manual_rate_ends_a_reduction(subject: Subject) -> None:
    await subject.record_separate_429s(10)
    await subject.rate.set_rate(40.0)
    assert (await subject.rate.get_status()).effective == 40


async def test_a_manual_rate_is_capped_by_the_granted_rate(subject: Subject) -> None:
    await subject.rate.on_headers(window(1.0, limit=5), 0.0, 0.0)
    await subject.rate.set_rate(40.0)
    status = await subject.rate.get_status()
    assert (status.configured, status.effective, status.manual) == (40, 4, True)


async def test_accounts_have_separate_rates(subject: Subject, redis: Redis, holds: Holds) -> None:
    await subject.record_separate_429s(3)
    await subject.rate.set_rate(20.0)
    assert await AdaptiveRate(redis, "another", ALLOWANCE, holds).get_status() == RateStatus(
        configured=RATE, effective=RATE, manual=False, used_today=0
    )


async def test_the_observed_rate_is_that_of_the_last_minute(subject: Subject, redis: Redis) -> None:
    assert (await subject.rate.get_status()).observed == 0
    seconds, micro = await redis.time()
    minute, into = divmod(seconds + micro / 1e6, 60)
    await redis.hset(PACE, mapping={"minute": int(minute), "sent": 30, "sent_before": 120})
    assert (await subject.rate.get_status()).observed == pytest.approx((30 + 120 * (1 - into / 60)) / 60, abs=0.3)
    await redis.hset(PACE, mapping={"minute": int(minute) - 1, "sent": 30, "sent_before": 120})
    assert (await subject.rate.get_status()).observed == pytest.approx(30 * (1 - into / 60) / 60, abs=0.3)
    await redis.hset(PACE, mapping={"minute": int(minute) - 5})
    assert (await subject.rate.get_status()).observed == 0
