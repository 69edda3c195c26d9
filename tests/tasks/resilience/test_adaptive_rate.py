"""Redis's clock runs on while a test calls it: a rate that recovers is held against how long the test has taken.

Nobody sleeps: what Redis has written down is moved into the past.
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
SILENT = RateLimitHeaders()


def window(seconds: float | None = None, **facts: float) -> RateLimitHeaders:
    """Return headers that speak of one window."""
    return RateLimitHeaders((RateLimitWindow(seconds, **facts),))  # type: ignore[arg-type]


A_MINUTE = RateLimitHeaders(retry_after=60.0)
"""Long enough for the hold to be there still when a slow machine looks."""
PACE, QUOTA = "docv:pace:default", "docv:quota:default"


async def clock(redis: Redis) -> float:
    seconds, micro = await redis.time()
    return float(seconds) + micro / 1e6


@dataclass
class Pupil:
    """A pace that learns, and the clock it learns by.

    Attributes:
        began: when the test began, by Redis's clock.
    """

    redis: Redis
    pace: AdaptiveRate
    began: float

    async def limited(self, word: RateLimitHeaders = SILENT, *, probe: bool = False) -> float:
        """Hear a 429 two seconds after the one before."""
        if await self.redis.hexists(PACE, "limited_at"):
            await self.redis.hset(PACE, "limited_at", round((await clock(self.redis) - 2) * 1000))
        return await self.pace.on_rate_limited(word, 0.0, 0.0, probe=probe)

    async def slowed(self, times: int) -> None:
        """Hear so many 429s that are not of a row."""
        for _ in range(times):
            await self.limited()
            self.pace.on_success()

    async def passes(self, key: str, field: str, seconds: float) -> None:
        """Let so much time pass for one fact."""
        await self.redis.hincrby(key, field, -round(seconds * 1000))

    async def is_kept(self, rate: float) -> None:
        """See that this rate is kept, or what has come back of it since the test began."""
        kept = (await self.pace.get_status()).effective
        recovered = (await clock(self.redis) - self.began) * RATE / 100
        assert rate - 0.01 <= kept <= min(RATE, rate + recovered + 0.01)


@pytest.fixture
def holds(redis: Redis) -> Holds:
    return Holds(redis)


@pytest.fixture
async def pupil(redis: Redis, holds: Holds) -> Pupil:
    return Pupil(redis, AdaptiveRate(redis, "default", ALLOWANCE, holds), await clock(redis))


async def the_hold(holds: Holds) -> Hold:
    (hold,) = await holds.list_all()
    assert hold.scope == "default"
    return hold


@dataclass
class Quota:
    """An account with a quota of so many requests a day."""

    redis: Redis
    requests: int

    async def spend(self) -> None:
        """Send one request."""
        allowance = Allowance(rate=10_000, burst=1_000, daily_quota=self.requests)
        account = Account("default", "sandbox", "https://riskos.example", SecretStr("key"), None, allowance)
        await RateLimiter(self.redis, self._no_sleep).acquire(account, Queue.LIVE)

    async def is_spent(self) -> float:
        """See that it is spent; return the seconds until the next day."""
        with pytest.raises(AccountHeld, match="quota") as held:
            await self.spend()
        await self.redis.delete(hold_key("default"))
        return held.value.wait

    async def _no_sleep(self, _seconds: float) -> None:
        pass


# Slower


@pytest.mark.parametrize(("times", "kept"), [(0, 100), (1, 100), (2, 100), (3, 80), (4, 64), (6, 40.96)])
async def test_several_429s_in_a_short_time_slow_the_rate_by_a_fifth_each_but_for_the_first_two(
    pupil: Pupil, times: int, kept: float
) -> None:
    await pupil.slowed(times)
    await pupil.is_kept(kept)


async def test_a_rate_is_never_slower_than_a_twentieth(pupil: Pupil) -> None:
    await pupil.slowed(25)
    await pupil.is_kept(RATE / 20)


async def test_429s_far_apart_slow_nothing(pupil: Pupil) -> None:
    for _ in range(6):
        await pupil.pace.on_rate_limited(SILENT, 0.0, 0.0, probe=False)
        await pupil.passes(PACE, "limited_at", 31)
    await pupil.is_kept(RATE)


async def test_requests_that_are_refused_together_count_once(pupil: Pupil, redis: Redis, holds: Holds) -> None:
    await pupil.slowed(2)
    together = round((await clock(redis) + HOUR) * 1000)  # however long the next lines take
    await redis.hset(PACE, "limited_at", together)
    for _ in range(20):
        assert 50 < await pupil.pace.on_rate_limited(A_MINUTE, 0.0, 0.0, probe=False) <= 60
    await pupil.is_kept(RATE)
    assert not (await the_hold(holds)).needs_probe
    await pupil.limited()
    await pupil.is_kept(80)


async def test_another_process_keeps_the_slower_rate_at_once(pupil: Pupil, redis: Redis, holds: Holds) -> None:
    await pupil.slowed(3)
    pupil.pace = AdaptiveRate(redis, "default", ALLOWANCE, holds)
    await pupil.is_kept(80)


# Faster


async def test_each_quiet_second_brings_back_a_hundredth(pupil: Pupil) -> None:
    await pupil.slowed(3)
    await pupil.passes(PACE, "slowed_at", 10)
    await pupil.is_kept(90)


async def test_the_rate_that_is_asked_for_comes_back_and_no_more_than_that(pupil: Pupil) -> None:
    await pupil.slowed(4)
    await pupil.passes(PACE, "slowed_at", HOUR)
    assert await pupil.pace.get_status() == RateStatus(configured=RATE, effective=RATE, manual=False, used_today=0)


async def test_who_is_slowed_down_again_on_the_way_back_slows_from_there(pupil: Pupil) -> None:
    await pupil.slowed(3)
    await pupil.passes(PACE, "slowed_at", 10)
    await pupil.slowed(1)
    await pupil.is_kept(72)


# The wait


async def test_where_no_wait_is_said_it_doubles_and_then_only_a_probe_tells(pupil: Pupil, holds: Holds) -> None:
    assert [await pupil.limited() for _ in range(5)] == [1, 2, 4, 8, 16]
    hold = await the_hold(holds)
    assert (hold.reason, hold.needs_probe, hold.note) == ("429", False, "RiskOS asks to slow down")

    assert await pupil.limited() == 30

    hold = await the_hold(holds)
    assert (hold.reason, hold.needs_probe) == ("429", True)
    assert "every request" in hold.note


async def test_a_probe_that_is_asked_to_slow_down_doubles_the_pause(pupil: Pupil) -> None:
    for _ in range(6):
        await pupil.limited()
    assert [await pupil.limited(probe=True) for _ in range(2)] == [60, 120]


@pytest.mark.parametrize(
    "word",
    [RateLimitHeaders(retry_after=75.5), window(reset=75.5), replace(window(reset=600), retry_after=75.5)],
)
async def test_the_wait_that_is_said_is_kept(pupil: Pupil, holds: Holds, word: RateLimitHeaders) -> None:
    assert await pupil.limited(word) == 75.5
    assert (await the_hold(holds)).reason == "429"


@pytest.mark.parametrize("wait", [0.0, 0.3])
async def test_a_wait_of_less_than_a_second_is_one(pupil: Pupil, wait: float) -> None:
    assert await pupil.limited(RateLimitHeaders(retry_after=wait)) == 1


async def test_a_wait_that_is_said_again_and_again_is_believed_five_times(pupil: Pupil, holds: Holds) -> None:
    for _ in range(5):
        await pupil.limited(A_MINUTE)
    assert not (await the_hold(holds)).needs_probe
    await pupil.limited(A_MINUTE)
    assert (await the_hold(holds)).needs_probe


async def test_an_answer_in_between_breaks_the_row(pupil: Pupil, holds: Holds) -> None:
    for number in range(12):
        await pupil.limited(A_MINUTE)
        if number % 5 == 4:
            pupil.pace.on_success()
    assert not (await the_hold(holds)).needs_probe


async def test_an_answer_to_another_process_breaks_the_row_once_it_tells(
    pupil: Pupil, redis: Redis, holds: Holds
) -> None:
    another = AdaptiveRate(redis, "default", ALLOWANCE, holds)
    for _ in range(5):
        await pupil.limited(A_MINUTE)
    another.on_success()
    await another.flush()
    for _ in range(5):
        await pupil.limited(A_MINUTE)
    assert not (await the_hold(holds)).needs_probe

    await another.flush()  # there is nothing new to tell
    await pupil.limited(A_MINUTE)
    assert (await the_hold(holds)).needs_probe


async def test_who_tells_of_an_answer_where_there_was_no_429_leaves_nothing_behind(pupil: Pupil, redis: Redis) -> None:
    pupil.pace.on_success()
    await pupil.pace.flush()
    assert await redis.keys("*") == []


# An account that is not activated


async def test_an_account_that_is_granted_nothing_is_not_activated(pupil: Pupil, holds: Holds) -> None:
    assert await pupil.limited(replace(window(1.0, limit=0), retry_after=1)) == 30
    hold = await the_hold(holds)
    assert (hold.reason, hold.needs_probe) == (Reason.NOT_ACTIVATED, True)
    assert "not activated" in hold.note
    assert await pupil.limited(window(1.0, limit=0), probe=True) == 60
    await pupil.is_kept(RATE)


# The quota


@pytest.mark.parametrize(("wait", "reason"), [(119.0, "429"), (120.0, "quota"), (HOUR, "quota"), (DAY, "quota")])
async def test_a_long_wait_is_the_quota(pupil: Pupil, holds: Holds, wait: float, reason: str) -> None:
    assert await pupil.limited(RateLimitHeaders(retry_after=wait)) == wait
    hold = await the_hold(holds)
    assert (hold.reason, hold.needs_probe) == (reason, False)
    assert wait - 60 < hold.remaining <= wait
    await pupil.is_kept(RATE)


async def test_a_day_of_the_quota_is_learnt_and_turns_count_anew_after_it(pupil: Pupil, redis: Redis) -> None:
    quota = Quota(redis, requests=2)
    for _ in range(2):
        await quota.spend()
    await pupil.limited(RateLimitHeaders(retry_after=HOUR))
    await redis.delete(hold_key("default"))
    assert HOUR - 60 < await quota.is_spent() <= HOUR

    await pupil.passes(QUOTA, "since", HOUR)

    assert (await pupil.pace.get_status()).used_today == 0
    for _ in range(2):
        await quota.spend()
    assert (await pupil.pace.get_status()).used_today == 2
    assert DAY - 60 < await quota.is_spent() <= DAY


async def test_a_day_that_was_learnt_begins_when_it_does_and_not_with_the_next_request(
    pupil: Pupil, redis: Redis
) -> None:
    quota = Quota(redis, requests=1)
    await pupil.limited(RateLimitHeaders(retry_after=HOUR))
    await redis.delete(hold_key("default"))
    await pupil.passes(QUOTA, "since", HOUR + 3 * DAY + 5 * HOUR)
    await quota.spend()
    assert 19 * HOUR - 60 < await quota.is_spent() <= 19 * HOUR


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
async def test_where_429s_had_lasted_long_a_new_day_of_the_quota_begins_with_the_probe(
    pupil: Pupil, redis: Redis, reason: Reason, lasting: float, *, new_day: bool
) -> None:
    quota = Quota(redis, requests=2)
    for _ in range(2):
        await quota.spend()
    await pupil.passes(QUOTA, "since", 5 * HOUR)

    await pupil.pace.on_hold_ended(Hold("default", reason, "", lasting, 0.0, needs_probe=True))

    if new_day:
        assert (await pupil.pace.get_status()).used_today == 1, "the probe itself"
        await quota.spend()
    left = DAY if new_day else DAY - 5 * HOUR
    assert left - 60 < await quota.is_spent() <= left


# What the headers say


@pytest.mark.parametrize(
    ("word", "wait"),
    [
        (window(remaining=0, reset=2.0), 2),
        (window(remaining=0, reset=119.0), 119),
        (window(60.0, limit=300, remaining=0), 60),
        (window(60.0, limit=300, remaining=0, reset=7.0), 7),
        (window(3600.0, limit=300, remaining=0), 3600),
    ],
)
async def test_when_none_is_left_nobody_sends_before_the_window_ends(
    pupil: Pupil, holds: Holds, word: RateLimitHeaders, wait: float
) -> None:
    assert await pupil.pace.on_headers(word, 0.0, 0.0) == wait
    hold = await the_hold(holds)
    assert (hold.reason, hold.needs_probe, hold.note) == ("429", False, "RiskOS says none is left")


@pytest.mark.parametrize("seconds", [None, DAY])
async def test_when_none_is_left_for_long_it_is_the_quota(pupil: Pupil, holds: Holds, seconds: float | None) -> None:
    assert await pupil.pace.on_headers(window(seconds, limit=5000, remaining=0, reset=HOUR), 0.0, 0.0) == HOUR
    assert (await the_hold(holds)).reason == "quota"


@pytest.mark.parametrize(
    "word",
    [
        window(remaining=0, reset=1.0),
        window(remaining=0),
        window(remaining=1, reset=60.0),
        window(reset=60.0),
        window(limit=5, reset=60.0),
        window(1.0, limit=0, remaining=0),
        window(1.0, remaining=0),
        SILENT,
    ],
)
async def test_what_says_nothing_of_the_next_seconds_changes_nothing(
    pupil: Pupil, redis: Redis, word: RateLimitHeaders
) -> None:
    assert await pupil.pace.on_headers(word, 0.0, 0.0) == 0
    assert await redis.keys("*") == []


@pytest.mark.parametrize(
    ("word", "effective"),
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
async def test_the_rate_is_what_is_granted_without_what_others_use_and_what_is_left_to_them(
    pupil: Pupil, word: RateLimitHeaders, effective: float
) -> None:
    await pupil.pace.on_headers(word, 0.0, 0.0)
    assert (await pupil.pace.get_status()).effective == pytest.approx(effective)


async def test_how_many_requests_are_left_to_others_is_a_setting(redis: Redis, holds: Holds) -> None:
    pace = AdaptiveRate(redis, "default", Allowance(rate=RATE, leave_rate=3), holds)
    await pace.on_headers(window(1.0, limit=10, remaining=9), 0.0, 0.0)
    assert (await pace.get_status()).effective == 7


async def test_what_is_granted_and_used_by_others_is_shown(pupil: Pupil) -> None:
    await pupil.pace.on_headers(window(60.0, limit=600, remaining=599 - 120), 0.0, 0.0)
    await pupil.pace.on_headers(window(DAY, limit=1000, remaining=999), 0.0, 0.2)
    status = await pupil.pace.get_status()
    assert (status.granted, status.neighbour, status.daily_limit) == (10, 2, 1000)


@pytest.mark.parametrize(("neighbour", "wait"), [(9, True), (3, False)])
async def test_a_full_window_of_others_requests_is_waited_for(pupil: Pupil, neighbour: int, *, wait: bool) -> None:
    left = 10 - 1 - neighbour
    assert (await pupil.pace.on_headers(window(1.0, limit=10, remaining=left), 0.0, 0.0) > 0) is wait


async def test_a_full_window_of_our_own_requests_is_not_waited_for(pupil: Pupil, redis: Redis) -> None:
    limited = Account("default", "sandbox", "https://riskos.example", SecretStr("key"), None, Allowance(rate=10_000.0))
    for _ in range(10):
        await RateLimitScript(redis).acquire(limited, Queue.LIVE, "acquire")
    assert await pupil.pace.on_headers(window(1.0, limit=10, remaining=0), 0.0, 0.0) == 0
    assert (await pupil.pace.get_status()).neighbour == 0


async def test_what_is_granted_is_believed_for_ten_minutes(pupil: Pupil, redis: Redis) -> None:
    before = await clock(redis)
    await pupil.pace.on_headers(window(1.0, limit=5), 0.0, 0.0)
    after = await clock(redis)
    assert before - 0.001 <= int(await redis.hget(PACE, "granted_until")) / 1000 - 600 <= after + 0.001

    await pupil.passes(PACE, "granted_until", 601)

    status = await pupil.pace.get_status()
    assert (status.effective, status.granted, status.neighbour) == (RATE, None, None)


async def test_what_answers_say_within_a_fifth_of_a_second_is_sent_together(pupil: Pupil, redis: Redis) -> None:
    sent = []
    for now in (0.0, 0.1, 0.199, 0.2, 0.3, 0.5):
        await redis.delete(PACE)
        await pupil.pace.on_headers(window(1.0, limit=50, remaining=40), now, now)
        sent.append(await redis.exists(PACE))
    assert sent == [1, 0, 0, 1, 0, 1]


async def test_what_answers_said_is_sent_with_the_next_flush(pupil: Pupil, redis: Redis) -> None:
    for now in (0.0, 0.1):
        await redis.delete(PACE)
        await pupil.pace.on_headers(window(1.0, limit=50, remaining=40), now, now)
    await pupil.pace.flush()
    assert await redis.exists(PACE)


async def test_a_window_that_is_full_is_told_at_once(pupil: Pupil) -> None:
    await pupil.pace.on_headers(window(1.0, limit=10, remaining=9), 0.0, 0.0)
    assert await pupil.pace.on_headers(window(1.0, limit=10, remaining=0), 0.0, 0.01) > 0


async def test_a_rate_that_is_slowed_down_comes_back_to_what_is_granted(pupil: Pupil) -> None:
    await pupil.slowed(3)
    await pupil.pace.on_headers(window(1.0, limit=51), 0.0, 0.0)
    assert (await pupil.pace.get_status()).effective == 50
    await pupil.slowed(1)
    await pupil.is_kept(40)


async def test_the_first_429_of_a_row_waits_for_its_window_and_places_no_hold(pupil: Pupil, holds: Holds) -> None:
    full = window(1.0, limit=10, remaining=0)
    assert 0 < await pupil.limited(full) <= 1
    assert await holds.list_all() == []
    assert await pupil.limited(full) == 2
    assert (await the_hold(holds)).reason == "429"


async def test_a_spent_minute_is_waited_for_after_a_429(pupil: Pupil, holds: Holds) -> None:
    assert await pupil.limited(window(60.0, limit=300, remaining=0)) == 60
    assert (await the_hold(holds)).reason == "429"


# What a person wants


async def test_the_rate_is_that_of_the_settings_unless_a_person_asks_for_another(
    pupil: Pupil, redis: Redis, holds: Holds
) -> None:
    another = AdaptiveRate(redis, "default", Allowance(rate=30.0), holds)
    assert await another.get_status() == RateStatus(configured=30, effective=30, manual=False, used_today=0)
    await pupil.pace.set_rate(2.5)
    for each in (pupil.pace, another):
        assert await each.get_status() == RateStatus(configured=2.5, effective=2.5, manual=True, used_today=0)
    await pupil.pace.set_rate(None)
    assert await another.get_status() == RateStatus(configured=30, effective=30, manual=False, used_today=0)


async def test_who_asks_for_a_rate_wants_it_now_and_not_what_was_slowed_down(pupil: Pupil) -> None:
    await pupil.slowed(10)
    await pupil.pace.set_rate(40.0)
    assert (await pupil.pace.get_status()).effective == 40


async def test_what_a_person_wants_is_not_more_than_is_granted(pupil: Pupil) -> None:
    await pupil.pace.on_headers(window(1.0, limit=5), 0.0, 0.0)
    await pupil.pace.set_rate(40.0)
    status = await pupil.pace.get_status()
    assert (status.configured, status.effective, status.manual) == (40, 4, True)


async def test_accounts_have_a_pace_each(pupil: Pupil, redis: Redis, holds: Holds) -> None:
    await pupil.slowed(3)
    await pupil.pace.set_rate(20.0)
    assert await AdaptiveRate(redis, "another", ALLOWANCE, holds).get_status() == RateStatus(
        configured=RATE, effective=RATE, manual=False, used_today=0
    )


async def test_what_was_reached_is_told_over_the_last_minute(pupil: Pupil, redis: Redis) -> None:
    assert (await pupil.pace.get_status()).observed == 0
    seconds, micro = await redis.time()
    minute, into = divmod(seconds + micro / 1e6, 60)
    await redis.hset(PACE, mapping={"minute": int(minute), "sent": 30, "sent_before": 120})
    assert (await pupil.pace.get_status()).observed == pytest.approx((30 + 120 * (1 - into / 60)) / 60, abs=0.3)
    await redis.hset(PACE, mapping={"minute": int(minute) - 1, "sent": 30, "sent_before": 120})
    assert (await pupil.pace.get_status()).observed == pytest.approx(30 * (1 - into / 60) / 60, abs=0.3)
    await redis.hset(PACE, mapping={"minute": int(minute) - 5})
    assert (await pupil.pace.get_status()).observed == 0
