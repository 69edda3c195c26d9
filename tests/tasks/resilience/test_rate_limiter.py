"""Redis's clock runs during a test, so each time is compared with the clock before and after.

The limiter gets its sleep as an argument: the tests record how long it would sleep, and if time has to pass, they move
times that Redis has stored into the past. No test really sleeps.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable
from dataclasses import dataclass, field

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from tasks.errors import AccountHeld, RunHeld
from tasks.ledger.refused_runs import REFUSED_RUNS
from tasks.model.account import Account, Allowance
from tasks.model.job import Queue
from tasks.resilience.adaptive_rate import AdaptiveRate
from tasks.resilience.holds import Holds, Reason, backfill_of, hold_key
from tasks.resilience.rate_headers import RateLimitHeaders, RateLimitWindow
from tasks.resilience.rate_limiter import RateLimiter
from tests.holds import refused
from worker.clients.redis import open_redis

pytestmark = pytest.mark.both_redises

DAY = 24 * 3600.0
SPACING = 1 / 0.97
"""Seconds between two permits at 1 per second."""
BUCKET, BACKFILL_BUCKET = "docv:rate:default", "docv:rate:default:backfill"
QUOTA, PACE = "docv:quota:default", "docv:pace:default"


def account(name: str = "default", shared_with: str | None = None, **allowance: float) -> Account:
    limits = Allowance(shared_with=shared_with, **({"rate": 1.0} | allowance))  # type: ignore[arg-type]
    return Account(name, "sandbox", "https://riskos.example", SecretStr("key"), None, limits)


class Waits(list[float]):
    """A sleep that records its duration, and does not sleep."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


class Block(Waits):
    """A sleep that takes until the test releases it."""

    def __init__(self) -> None:
        super().__init__()
        self.release = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)
        await self.release.wait()

    async def until_blocked(self, count: int) -> None:
        """Wait until this many callers sleep, and check that no other follows."""
        while len(self) < count:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        assert len(self) == count


async def clock(redis: Redis) -> float:
    seconds, micro = await redis.time()
    return float(seconds) + micro / 1e6


@dataclass(frozen=True)
class Permit:
    """A permit is due between these two moments of Redis's clock."""

    earliest: float
    latest: float


@dataclass
class Caller:
    """Acquires permits and records when each is due."""

    redis: Redis
    permits: list[Permit] = field(default_factory=list)

    async def acquire(self, account: Account, queue: Queue = Queue.LIVE) -> Permit:
        waits = Waits()
        before = await clock(self.redis)
        await RateLimiter(self.redis, waits).acquire(account, queue)
        after = await clock(self.redis)
        self.permits.append(Permit(before + sum(waits), after + sum(waits)))
        return self.permits[-1]


@pytest.fixture
def caller(redis: Redis) -> Caller:
    return Caller(redis)


@pytest.fixture
def holds(redis: Redis) -> Holds:
    return Holds(redis)


async def place_hold_that_awaits_its_probe(redis: Redis, holds: Holds) -> None:
    await refused(holds, "default", 401, probe=False)
    await redis.hset(hold_key("default"), "until", 1)


async def result_of(acquire: Awaitable[bool]) -> bool | str:
    """Return whether the permit is the probe, or the reason of the hold."""
    try:
        return await acquire
    except AccountHeld as held:
        return held.reason


# -- the rate


async def test_the_first_request_is_sent_at_once(redis: Redis) -> None:
    waits = Waits()
    assert await RateLimiter(redis, waits).acquire(account(), Queue.LIVE) is False
    assert waits == [0]


async def test_permits_in_a_row_are_never_closer_than_the_spacing(caller: Caller) -> None:
    for _ in range(10):
        await caller.acquire(account(rate=1.0))

    for number, permit in enumerate(caller.permits):
        assert permit.latest >= caller.permits[0].earliest + number * SPACING - 0.001


async def test_permits_in_a_row_are_no_further_apart_than_the_spacing(caller: Caller, redis: Redis) -> None:
    before = await clock(redis)
    for _ in range(10):
        await caller.acquire(account(rate=1.0))
    after = await clock(redis)

    free_again = int(await redis.get(BUCKET)) / 1e6

    assert before + 10 * SPACING - 0.001 <= free_again <= after + 10 * SPACING + 0.001


@pytest.mark.parametrize("rate", [0.5, 10.0, 50.0, 1000.0])
async def test_a_permit_takes_3_percent_more_time_than_the_rate_requires(
    caller: Caller, redis: Redis, rate: float
) -> None:
    before = await clock(redis)
    await caller.acquire(account(rate=rate))
    after = await clock(redis)
    free_again = int(await redis.get(BUCKET)) / 1e6
    assert before - 0.001 <= free_again - SPACING / rate <= after + 0.001


async def test_the_rate_is_kept_in_every_second_when_requests_are_up_to_30_ms_late(redis: Redis) -> None:
    limiter, rate = RateLimiter(redis, Waits()), 50
    await redis.set(BUCKET, round((await clock(redis) + 5) * 1e6))
    due = []
    for _ in range(2 * rate):
        due.append(int(await redis.get(BUCKET)))
        await limiter.acquire(account(rate=rate), Queue.LIVE)
    assert all(due[number + rate] - due[number] >= 1_030_000 for number in range(rate))


async def test_a_process_reserves_one_permit_ahead_of_its_time(redis: Redis) -> None:
    block, limited = Block(), account(daily_quota=100)
    limiter = RateLimiter(redis, block)
    callers = [asyncio.create_task(limiter.acquire(limited, Queue.LIVE)) for _ in range(5)]
    await block.until_blocked(1)
    await RateLimiter(redis, Waits()).acquire(limited, Queue.LIVE)
    assert (block, await redis.hget(QUOTA, "used")) == ([0], "2"), "one of this process, one of the other"

    block.release.set()
    await asyncio.gather(*callers)
    assert await redis.hget(QUOTA, "used") == "6"


@pytest.mark.parametrize(("rate", "at_once"), [(99.0, 1), (200.0, 4), (10_000.0, 5)])
async def test_a_process_reserves_the_permits_of_20_ms_at_a_high_rate(redis: Redis, rate: float, at_once: int) -> None:
    block = Block()
    limiter = RateLimiter(redis, block)
    callers = [asyncio.create_task(limiter.acquire(account(rate=rate), Queue.LIVE)) for _ in range(5)]
    await block.until_blocked(at_once)

    block.release.set()
    await asyncio.gather(*callers)


async def test_workers_with_their_own_connections_share_the_rate(redis: Redis, redis_url: str) -> None:
    async with open_redis(redis_url) as other:
        callers = [Caller(redis), Caller(other)]
        for number in range(8):
            await callers[number % 2].acquire(account(rate=1.0))
    permits = sorted(callers[0].permits + callers[1].permits, key=lambda permit: permit.latest)
    assert all(permit.latest >= permits[0].earliest + n * SPACING - 0.001 for n, permit in enumerate(permits))
    assert permits[-1].earliest < permits[0].latest + 8 * SPACING


_OTHER_PROCESS = """
import asyncio, json, sys
from pydantic import SecretStr
from tasks.model.account import Account, Allowance
from tasks.model.job import Queue
from tasks.resilience.rate_limiter import RateLimiter
from worker.clients.redis import open_redis

async def main():
    waits = []
    async def sleep(seconds):
        waits.append(seconds)
    async with open_redis(sys.argv[1]) as redis:
        account = Account("default", "sandbox", "https://riskos.example", SecretStr("key"), None, Allowance(rate=0.2))
        await RateLimiter(redis, sleep).acquire(account, Queue.LIVE)
        seconds, micro = await redis.time()
        print(json.dumps([waits, seconds + micro / 1e6]))

asyncio.run(main())
"""


async def test_processes_share_the_rate(caller: Caller, redis_url: str) -> None:
    first = await caller.acquire(account(rate=0.2))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OTHER_PROCESS, redis_url, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    waits, after = json.loads(out)
    assert after + sum(waits) >= first.earliest + 5 * SPACING - 0.001


async def test_accounts_do_not_wait_for_each_other(caller: Caller, redis: Redis) -> None:
    await caller.acquire(account("berlin"))
    waits = Waits()
    await RateLimiter(redis, waits).acquire(account("paris"), Queue.LIVE)
    assert waits == [0]


async def test_accounts_that_share_a_rate_share_permits_and_quota(redis: Redis) -> None:
    waits = Waits()
    limiter = RateLimiter(redis, waits)
    await limiter.acquire(account(daily_quota=2), Queue.LIVE)
    await limiter.acquire(account("paris", shared_with="default", daily_quota=2), Queue.LIVE)
    assert waits[1] > 0
    assert await result_of(limiter.acquire(account(daily_quota=2), Queue.LIVE)) == "quota"


async def test_a_burst_is_sent_at_once_after_a_quiet_time(redis: Redis) -> None:
    waits = Waits()
    limiter = RateLimiter(redis, waits)
    before = await clock(redis)
    for _ in range(5):
        await limiter.acquire(account(rate=1 / 4, burst=4), Queue.LIVE)
    elapsed = await clock(redis) - before

    assert waits[:4] == [0, 0, 0, 0]
    assert 4 * SPACING - elapsed - 0.001 <= waits[4] <= 4 * SPACING + 0.001


async def test_a_quiet_time_saves_up_no_more_than_the_burst(redis: Redis) -> None:
    await redis.set(BUCKET, 1)
    waits = Waits()
    limiter = RateLimiter(redis, waits)
    for _ in range(2):
        await limiter.acquire(account(rate=1 / 4), Queue.LIVE)
    assert waits[0] == 0
    assert waits[1] > 0


@pytest.mark.parametrize(
    ("queue", "bucket"), [(Queue.LIVE, BUCKET), (Queue.BACKFILL, BUCKET), (Queue.BACKFILL, BACKFILL_BUCKET)]
)
async def test_a_permit_beyond_the_horizon_is_not_reserved(redis: Redis, queue: Queue, bucket: str) -> None:
    class FirstWait(Exception):
        pass

    async def sleep(seconds: float) -> None:
        raise FirstWait(seconds)

    before = await clock(redis)
    free_again = round((before + 14) * 1e6)
    await redis.set(bucket, free_again)

    with pytest.raises(FirstWait) as first_wait:
        await RateLimiter(redis, sleep).acquire(account(), queue)

    elapsed = await clock(redis) - before
    assert 4 - elapsed - 0.001 <= first_wait.value.args[0] <= 4.001
    assert int(await redis.get(bucket)) == free_again


@pytest.mark.parametrize(
    ("queue", "bucket"), [(Queue.LIVE, BUCKET), (Queue.BACKFILL, BUCKET), (Queue.BACKFILL, BACKFILL_BUCKET)]
)
async def test_a_caller_gets_its_permit_when_the_horizon_has_come_closer(
    redis: Redis, queue: Queue, bucket: str
) -> None:
    waits: list[float] = []

    async def pass_time(seconds: float) -> None:
        waits.append(seconds)
        await redis.decrby(bucket, round(seconds * 1e6))

    before = await clock(redis)
    await redis.set(bucket, round((before + 30) * 1e6))

    assert await RateLimiter(redis, pass_time).acquire(account(rate=0.05), queue) is False

    elapsed = await clock(redis) - before
    assert 30 - elapsed - 0.001 <= sum(waits) <= 30.001
    is_reserved = queue is Queue.BACKFILL and bucket == BUCKET
    assert (waits[0] == 5) is not is_reserved, "it sleeps for short times until a permit is reserved"


async def test_a_bucket_further_ahead_than_permits_are_reserved_restarts_at_the_current_time(redis: Redis) -> None:
    await redis.set(BUCKET, round((await clock(redis) + 3_600) * 1e6))
    waits = Waits()
    await RateLimiter(redis, waits).acquire(account(), Queue.LIVE)
    assert sum(waits) == 0


async def test_the_buckets_expire(caller: Caller, redis: Redis) -> None:
    await caller.acquire(account(rate=0.5), Queue.BACKFILL)
    for bucket in (BUCKET, BACKFILL_BUCKET):
        assert 0 < await redis.pttl(bucket) <= 70_000


async def test_the_limiter_goes_on_when_redis_no_longer_has_its_script(redis: Redis) -> None:
    limiter = RateLimiter(redis, Waits())
    await limiter.acquire(account(), Queue.LIVE)
    await redis.script_flush()
    assert await limiter.acquire(account(), Queue.LIVE) is False


@pytest.mark.real_redis_only("fakeredis has no INFO")
@pytest.mark.parametrize("queue", list(Queue))
async def test_a_permit_that_is_due_at_once_costs_one_round_trip(redis: Redis, queue: Queue) -> None:
    limiter, costs = RateLimiter(redis, Waits()), []
    for _ in range(20):
        await asyncio.sleep(0.002)
        before = await round_trips(redis)
        await limiter.acquire(account(rate=10_000.0), queue)
        costs.append(await round_trips(redis) - before - 1)  # without the request that counts them
    assert set(costs[1:]) == {1}, "after the first, which may have to load the script"


async def round_trips(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_reads_processed"])


# -- backfills leave permits to live evaluations


async def test_a_backfill_uses_its_share_of_the_rate(caller: Caller, redis: Redis) -> None:
    before = await clock(redis)
    await caller.acquire(account(rate=1.0, backfill_share=0.5), Queue.BACKFILL)
    after = await clock(redis)
    for bucket, spacing in ((BUCKET, SPACING), (BACKFILL_BUCKET, 2 * SPACING)):
        assert before - 0.001 <= int(await redis.get(bucket)) / 1e6 - spacing <= after + 0.001


async def test_a_live_request_waits_behind_at_most_one_request_of_a_backfill(redis: Redis) -> None:
    over, stuck, waits = asyncio.Event(), asyncio.Event(), Waits()

    async def sleep(seconds: float) -> None:
        if seconds and not live:
            stuck.set()
            await over.wait()
        waits.append(seconds)

    live, limiter, limited = False, RateLimiter(redis, sleep), account(rate=1.0, backfill_share=0.5)
    backfill = [asyncio.create_task(limiter.acquire(limited, Queue.BACKFILL)) for _ in range(8)]
    await stuck.wait()

    live = True
    await limiter.acquire(limited, Queue.LIVE)

    assert waits[-1] <= SPACING
    for task in backfill:
        task.cancel()
    await asyncio.gather(*backfill, return_exceptions=True)
    assert sum(task.cancelled() for task in backfill) == 7, "only one of the backfill had its permit"


async def test_a_live_request_does_not_wait_for_backfills_that_wait_for_the_account(redis: Redis) -> None:
    block, waits, limited = Block(), Waits(), account(rate=1.0, backfill_share=0.5)

    async def sleep(seconds: float) -> None:
        await (waits if live else block)(seconds)

    live, limiter, before = False, RateLimiter(redis, sleep), await clock(redis)
    await redis.set(BUCKET, round((before + 5) * 1e6))
    backfill = [asyncio.create_task(limiter.acquire(limited, Queue.BACKFILL)) for _ in range(8)]
    await block.until_blocked(1)

    live = True
    await limiter.acquire(limited, Queue.LIVE)

    elapsed = await clock(redis) - before
    assert 5 + SPACING - elapsed - 0.001 <= waits[0] <= 5 + SPACING, "behind one request of the backfill"
    block.release.set()
    await asyncio.gather(*backfill)


async def test_a_backfill_that_waits_for_its_share_reserves_no_permit_of_the_account(redis: Redis) -> None:
    reserved: list[float] = []

    async def observe(seconds: float) -> None:
        reserved.append(float(await redis.get(BUCKET)) if seconds else 0.0)

    limited, limiter = account(rate=1.0, backfill_share=0.5), RateLimiter(redis, observe)
    await limiter.acquire(limited, Queue.BACKFILL)
    after_the_first = float(await redis.get(BUCKET))
    await limiter.acquire(limited, Queue.BACKFILL)
    assert reserved[1] == after_the_first


async def test_a_live_request_uses_nothing_of_the_share_of_a_backfill(caller: Caller, redis: Redis) -> None:
    await caller.acquire(account(), Queue.LIVE)
    assert await redis.get(BACKFILL_BUCKET) is None


# -- the quota


async def test_a_spent_quota_holds_the_account_until_the_next_day(redis: Redis) -> None:
    limiter = RateLimiter(redis, Waits())
    before = await clock(redis)
    for _ in range(3):
        assert await limiter.acquire(account(rate=1000, daily_quota=3), Queue.LIVE) is False

    with pytest.raises(AccountHeld) as held:
        await limiter.acquire(account(rate=1000, daily_quota=3), Queue.LIVE)

    elapsed = await clock(redis) - before
    assert held.value.reason == "quota"
    assert DAY - elapsed - 0.001 <= held.value.wait <= DAY


async def test_a_spent_quota_is_full_again_after_a_day(redis: Redis) -> None:
    limiter = RateLimiter(redis, Waits())
    limited = account(rate=1000, daily_quota=2)
    for _ in range(2):
        await limiter.acquire(limited, Queue.LIVE)
    await redis.hincrby(QUOTA, "since", -round(DAY * 1000))

    for _ in range(2):
        await limiter.acquire(limited, Queue.LIVE)

    with pytest.raises(AccountHeld, match="quota"):
        await limiter.acquire(limited, Queue.LIVE)


async def test_a_day_of_the_quota_is_not_over_a_minute_early(redis: Redis) -> None:
    limiter = RateLimiter(redis, Waits())
    limited = account(rate=1000, daily_quota=1)
    await limiter.acquire(limited, Queue.LIVE)
    await redis.hincrby(QUOTA, "since", -round(DAY * 1000) + 60_000)
    with pytest.raises(AccountHeld) as held:
        await limiter.acquire(limited, Queue.LIVE)
    assert held.value.wait <= 60


async def test_a_request_of_a_backfill_counts_once_for_the_quota(redis: Redis) -> None:
    limiter = RateLimiter(redis, Waits())
    for queue in (Queue.BACKFILL, Queue.LIVE, Queue.BACKFILL):
        await limiter.acquire(account(rate=1000, daily_quota=10), queue)
    assert await redis.hget(QUOTA, "used") == "3"


async def test_a_permit_that_is_not_granted_costs_no_quota(redis: Redis, holds: Holds) -> None:
    await refused(holds, "default", 401, probe=False)
    await refused(holds, "default", 401, probe=True)
    with pytest.raises(AccountHeld, match="401"):
        await RateLimiter(redis, Waits()).acquire(account(daily_quota=10), Queue.LIVE)
    assert await redis.exists(QUOTA, BUCKET) == 0


# -- holds


@pytest.mark.parametrize("queue", Queue)
async def test_no_request_is_sent_while_the_account_is_on_hold(redis: Redis, holds: Holds, queue: Queue) -> None:
    await holds.place_for("default", Reason.SLOW_DOWN, "", 600)
    waits = Waits()

    with pytest.raises(AccountHeld) as held:
        await RateLimiter(redis, waits).acquire(account(), queue)

    assert held.value.reason == "429"
    assert 500 < held.value.wait <= 600
    assert waits == []


async def test_a_hold_does_not_concern_another_account(redis: Redis, holds: Holds) -> None:
    await holds.place_for("another", Reason.SLOW_DOWN, "", 600)
    assert await RateLimiter(redis, Waits()).acquire(account(), Queue.LIVE) is False


async def test_a_short_hold_is_waited_out(redis: Redis, holds: Holds) -> None:
    waits: list[float] = []

    async def end_hold(seconds: float) -> None:
        waits.append(seconds)
        await holds.end("default")

    await holds.place_for("default", Reason.SLOW_DOWN, "", 4)

    assert await RateLimiter(redis, end_hold).acquire(account(), Queue.LIVE) is False
    assert 0 < waits[0] <= 4


async def test_the_limiter_waits_at_most_5_seconds_for_holds_that_follow_each_other(redis: Redis, holds: Holds) -> None:
    waits: list[float] = []

    async def place_next_hold(seconds: float) -> None:
        waits.append(seconds)
        await holds.end("default")
        await holds.place_for("default", Reason.SLOW_DOWN, "", 3)

    await holds.place_for("default", Reason.SLOW_DOWN, "", 3)

    with pytest.raises(AccountHeld):
        await RateLimiter(redis, place_next_hold).acquire(account(), Queue.LIVE)
    assert 2 < sum(waits) <= 5


@pytest.mark.parametrize("queue", Queue)
async def test_exactly_one_caller_gets_the_probe_that_may_end_a_hold(
    redis: Redis, redis_url: str, holds: Holds, queue: Queue
) -> None:
    await place_hold_that_awaits_its_probe(redis, holds)
    async with open_redis(redis_url) as other:
        limiters = [RateLimiter(client, Waits()) for client in (redis, other)]
        calls = [result_of(limiters[number % 2].acquire(account(rate=1000), queue)) for number in range(20)]
        results = await asyncio.gather(*calls)
    assert sorted(map(str, results)) == ["401"] * 19 + ["True"]


async def test_other_callers_are_held_until_the_probe_has_an_answer(redis: Redis, holds: Holds) -> None:
    await place_hold_that_awaits_its_probe(redis, holds)
    limiter = RateLimiter(redis, Waits())
    assert await limiter.acquire(account(), Queue.LIVE) is True

    with pytest.raises(AccountHeld) as held:
        await limiter.acquire(account(), Queue.LIVE)

    assert 30 < held.value.wait <= 60


async def test_another_caller_gets_the_probe_when_its_lease_has_expired(redis: Redis, holds: Holds) -> None:
    limiter = RateLimiter(redis, Waits())
    await place_hold_that_awaits_its_probe(redis, holds)
    assert await limiter.acquire(account(), Queue.LIVE) is True
    await redis.hset(hold_key("default"), "until", 1)
    assert await limiter.acquire(account(), Queue.LIVE) is True


async def test_a_permit_is_not_the_probe_after_the_hold_has_ended(redis: Redis, holds: Holds) -> None:
    limiter = RateLimiter(redis, Waits())
    await place_hold_that_awaits_its_probe(redis, holds)
    await limiter.acquire(account(), Queue.LIVE)
    await holds.end("default")
    assert await limiter.acquire(account(), Queue.LIVE) is False


async def test_a_probe_costs_quota_like_any_request(redis: Redis, holds: Holds) -> None:
    await place_hold_that_awaits_its_probe(redis, holds)
    await RateLimiter(redis, Waits()).acquire(account(daily_quota=10), Queue.LIVE)
    assert await redis.hget(QUOTA, "used") == "1"


@pytest.mark.real_redis_only("fakeredis lets time go on during a script")
async def test_a_spent_quota_places_a_hold_that_expires_with_the_day(redis: Redis, holds: Holds) -> None:
    limiter = RateLimiter(redis, Waits())
    for expected in (False, "quota", "quota"):
        assert await result_of(limiter.acquire(account(rate=1000, daily_quota=1), Queue.LIVE)) == expected

    hold = await holds.get("default")

    assert hold
    assert (hold.reason, hold.needs_probe) == ("quota", False)
    assert DAY - 60 < hold.remaining <= DAY
    assert abs(await redis.pexpiretime(hold_key("default")) - int(await redis.hget(hold_key("default"), "until"))) <= 5


async def test_a_hold_that_awaits_its_probe_is_prolonged_to_the_next_day_when_the_quota_is_spent(
    redis: Redis, holds: Holds
) -> None:
    limited = account(rate=1000, daily_quota=1)
    limiter = RateLimiter(redis, Waits())
    await limiter.acquire(limited, Queue.LIVE)
    await place_hold_that_awaits_its_probe(redis, holds)

    with pytest.raises(AccountHeld) as held:
        await limiter.acquire(limited, Queue.LIVE)

    assert held.value.wait > DAY - 60
    assert await redis.pttl(hold_key("default")) == -1


# -- holds that are recorded while a caller waits


class HoldsDuringSleep(Waits):
    """A sleep during which holds are recorded. `holds` has the seconds of a hold for the number of its sleep."""

    def __init__(self, redis: Redis, holds: dict[int, float], account: str = "default") -> None:
        super().__init__()
        self._holds, self._account = holds, account
        self.limiter = RateLimiter(redis, self)

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)
        if len(self) in self._holds:
            self.limiter.set_hold(self._account, self._holds[len(self)])


async def test_a_caller_gives_up_its_permit_when_the_account_is_put_on_hold(redis: Redis, holds: Holds) -> None:
    async def place_hold(_seconds: float) -> None:
        limiter.set_hold("default", await refused(holds, "default", 401, probe=False))

    limiter = RateLimiter(redis, place_hold)
    with pytest.raises(AccountHeld) as held:
        await limiter.acquire(account(), Queue.LIVE)
    assert held.value.reason == "401"
    assert 5 < held.value.wait <= 30


async def test_a_caller_keeps_its_permit_when_another_account_is_put_on_hold(redis: Redis) -> None:
    sleep = HoldsDuringSleep(redis, {1: 30}, "another")
    assert await sleep.limiter.acquire(account(), Queue.LIVE) is False
    assert len(sleep) == 1


@pytest.mark.parametrize("during", [{1: 0}, {1: 30, 2: 0}], ids=["it has expired", "it was ended"])
async def test_a_caller_gets_a_permit_when_the_hold_is_over(redis: Redis, during: dict[int, float]) -> None:
    sleep = HoldsDuringSleep(redis, during)
    assert await sleep.limiter.acquire(account(), Queue.LIVE) is False


async def test_a_permit_that_is_given_up_counts_neither_for_the_quota_nor_for_the_window(redis: Redis) -> None:
    window, sleep = "docv:window:default", HoldsDuringSleep(redis, {1: 30, 10: 0})
    await redis.hset(window, "length", "3600000")  # so that a slow machine finds the bin of the permit as well
    assert await sleep.limiter.acquire(account(rate=1000, daily_quota=100), Queue.LIVE) is False
    assert await redis.hget(QUOTA, "used") == "1"
    await redis.hdel(window, "length")
    assert sum(int(bin_.split(":")[1]) for bin_ in await redis.hvals(window)) == 1


async def test_a_permit_is_used_when_a_person_has_ended_the_hold_that_this_process_records(redis: Redis) -> None:
    sleep = HoldsDuringSleep(redis, {})
    sleep.limiter.set_hold("default", 60)
    assert await sleep.limiter.acquire(account(), Queue.LIVE) is False
    assert len(sleep) == 1


async def test_only_evaluations_of_a_run_on_hold_get_no_permit(redis: Redis) -> None:
    limiter = RateLimiter(redis, Waits())
    await redis.zadd(REFUSED_RUNS, {"q3": 1})
    with pytest.raises(RunHeld, match="q3"):
        await limiter.acquire(account(), Queue.BACKFILL, "q3")
    assert await redis.exists(QUOTA, BUCKET, BACKFILL_BUCKET) == 0
    assert await limiter.acquire(account(), Queue.BACKFILL, "q4") is False
    assert await limiter.acquire(account(), Queue.BACKFILL) is False


async def test_the_probe_is_sent_even_if_this_process_still_records_the_hold(redis: Redis, holds: Holds) -> None:
    await place_hold_that_awaits_its_probe(redis, holds)
    limiter = RateLimiter(redis, Waits())
    limiter.set_hold("default", 30)
    assert await limiter.acquire(account(), Queue.LIVE) is True


async def test_the_probe_is_sent_even_if_this_process_records_a_hold_while_it_waits(redis: Redis, holds: Holds) -> None:
    await place_hold_that_awaits_its_probe(redis, holds)
    assert await HoldsDuringSleep(redis, {1: 60}).limiter.acquire(account(), Queue.LIVE) is True


# -- a backfill leaves a part of the quota to live evaluations


async def assert_spent(limiter: RateLimiter, limited: Account, queue: Queue) -> float:
    """Assert that the quota is spent for a queue; return the seconds until it is not."""
    with pytest.raises(AccountHeld, match="quota") as held:
        await limiter.acquire(limited, queue)
    return held.value.wait


@pytest.mark.real_redis_only("fakeredis lets time go on during a script")
async def test_a_backfill_leaves_the_reserve_of_the_quota_to_live_requests(redis: Redis, holds: Holds) -> None:
    limiter, limited = RateLimiter(redis, Waits()), account(rate=1000, daily_quota=20, live_reserve=0.25)
    for _ in range(15):
        await limiter.acquire(limited, Queue.BACKFILL)

    assert DAY - 60 < await assert_spent(limiter, limited, Queue.BACKFILL) <= DAY

    (hold,) = await holds.list_all()
    assert (hold.scope, hold.reason, hold.needs_probe) == (backfill_of("default"), "quota", False)
    assert hold.note == "15 of 20 requests are spent"
    assert DAY - 60 < hold.remaining <= DAY
    assert (
        abs(await redis.pexpiretime(hold_key(hold.scope)) - int(await redis.hget(hold_key(hold.scope), "until"))) <= 5
    )
    for _ in range(5):
        assert await limiter.acquire(limited, Queue.LIVE) is False
    await assert_spent(limiter, limited, Queue.LIVE)
    assert {hold.scope for hold in await holds.list_all()} == {"default", backfill_of("default")}


async def test_live_requests_count_towards_the_part_of_the_quota_that_a_backfill_may_use(redis: Redis) -> None:
    limiter, limited = RateLimiter(redis, Waits()), account(rate=1000, daily_quota=20, live_reserve=0.25)
    for number in range(15):
        await limiter.acquire(limited, Queue.LIVE if number < 14 else Queue.BACKFILL)
    await assert_spent(limiter, limited, Queue.BACKFILL)
    assert await redis.hget(QUOTA, "used") == "15"


async def test_a_backfill_goes_on_with_the_next_day(redis: Redis) -> None:
    limiter, limited = RateLimiter(redis, Waits()), account(rate=1000, daily_quota=2, live_reserve=0.5)
    await limiter.acquire(limited, Queue.BACKFILL)
    await assert_spent(limiter, limited, Queue.BACKFILL)
    await redis.delete(hold_key(backfill_of("default")))
    await redis.hincrby(QUOTA, "since", -round(DAY * 1000))
    assert await limiter.acquire(limited, Queue.BACKFILL) is False


async def test_a_backfill_whose_quota_is_spent_is_not_the_probe_of_the_account(redis: Redis, holds: Holds) -> None:
    limiter, limited = RateLimiter(redis, Waits()), account(rate=1000, daily_quota=2, live_reserve=0.5)
    await limiter.acquire(limited, Queue.BACKFILL)
    await place_hold_that_awaits_its_probe(redis, holds)
    await assert_spent(limiter, limited, Queue.BACKFILL)
    assert await limiter.acquire(limited, Queue.LIVE) is True


async def test_a_hold_of_the_backfill_does_not_concern_live_requests(redis: Redis, holds: Holds) -> None:
    await holds.place_manual(backfill_of("default"), "")
    assert await result_of(RateLimiter(redis, Waits()).acquire(account(), Queue.BACKFILL)) == "by_hand"
    assert await RateLimiter(redis, Waits()).acquire(account(), Queue.LIVE) is False


# -- the effective rate


async def spacing(redis: Redis, limiter: RateLimiter, limited: Account, queue: Queue = Queue.LIVE) -> float:
    """Acquire a permit behind others that are reserved; return the seconds that it takes up."""
    bucket = BACKFILL_BUCKET if queue is Queue.BACKFILL else BUCKET
    before = round((await clock(redis) + 8) * 1e6)
    await redis.set(bucket, before)
    await limiter.acquire(limited, queue)
    return (int(await redis.get(bucket)) - before) / 1e6


async def test_a_manual_rate_is_in_effect_at_once_in_running_limiters(redis: Redis, holds: Holds) -> None:
    limiter, rate = RateLimiter(redis, Waits()), AdaptiveRate(redis, "default", Allowance(rate=1.0), holds)
    assert await spacing(redis, limiter, account()) == pytest.approx(SPACING, rel=0.001)
    await rate.set_rate(50.0)
    assert await spacing(redis, limiter, account()) == pytest.approx(SPACING / 50, rel=0.001)
    half = account(backfill_share=0.5)
    assert await spacing(redis, limiter, half, Queue.BACKFILL) == pytest.approx(SPACING / 25, rel=0.001)
    await rate.set_rate(None)
    assert await spacing(redis, limiter, account()) == pytest.approx(SPACING, rel=0.001)


async def test_the_rate_is_no_higher_than_riskos_grants(redis: Redis, holds: Holds) -> None:
    limiter, rate = RateLimiter(redis, Waits()), AdaptiveRate(redis, "default", Allowance(rate=100.0), holds)
    await rate.on_headers(RateLimitHeaders((RateLimitWindow(1.0, limit=6),)), 0.0, 0.0)
    assert await spacing(redis, limiter, account(rate=100.0)) == pytest.approx(SPACING / 5, rel=0.001)


async def test_a_reduced_rate_is_in_effect_and_recovers(redis: Redis) -> None:
    before = await clock(redis)
    await redis.hset(PACE, mapping={"slowed": 50, "slowed_at": round(before * 1000)})
    reduced = await spacing(redis, RateLimiter(redis, Waits()), account(rate=100.0))
    recovered = await clock(redis) - before
    assert SPACING / (50 + recovered + 0.01) <= reduced <= SPACING / 50 + 0.000_001
