"""Redis's clock runs on while a test calls it; each figure is held against what the clock said before and after.

Waiting is a callable that is handed in: it notes how long, and where a test says so, moves what Redis has written
down into the past by as much. Nobody sleeps.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from tasks.errors import AccountHeld
from tasks.model.account import Account, Allowance
from tasks.model.job import Queue
from tasks.resilience.adaptive_rate import AdaptiveRate
from tasks.resilience.holds import Holds, Reason, backfill_of, hold_key
from tasks.resilience.rate_headers import RateLimitHeaders
from tasks.resilience.rate_limiter import RateLimiter, RateLimitScript
from tests.holds import refused
from worker.clients.redis import open_redis

DAY = 24 * 3600.0
GUARD = 1.06
"""Turns are so much further apart than the rate says, for a process that has just started."""
LIVE_BUCKET, BACKFILL_BUCKET = "docv:rate:default", "docv:rate:default:backfill"
QUOTA, PACE = "docv:quota:default", "docv:pace:default"


def account(name: str = "default", **allowance: float) -> Account:
    allowed = Allowance(**({"rate": 1.0} | allowance))  # type: ignore[arg-type]
    return Account(name, "sandbox", "https://riskos.example", SecretStr("key"), None, allowed)


class Waits(list[float]):
    """A sleep that notes how long and does not sleep."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


async def clock(redis: Redis) -> float:
    seconds, micro = await redis.time()
    return float(seconds) + micro / 1e6


@dataclass(frozen=True)
class Turn:
    """A turn leaves between these two moments of Redis's clock; which is as exact as it can be seen from here."""

    earliest: float
    latest: float


@dataclass
class Asker:
    """Asks for turns and notes when each of them leaves."""

    redis: Redis
    turns: list[Turn] = field(default_factory=list)

    async def ask(self, who: Account, queue: Queue = Queue.LIVE) -> Turn:
        waits = Waits()
        before = await clock(self.redis)
        await RateLimiter(self.redis, waits).acquire(who, queue)
        after = await clock(self.redis)
        self.turns.append(Turn(before + sum(waits), after + sum(waits)))
        return self.turns[-1]


@pytest.fixture
def asker(redis: Redis) -> Asker:
    return Asker(redis)


@pytest.fixture
def holds(redis: Redis) -> Holds:
    return Holds(redis)


async def hold_with_pause_over(redis: Redis, holds: Holds) -> None:
    await refused(holds, "default", 401, probe=False)
    await redis.hset(hold_key("default"), "until", 1)


async def one_of(waiting: Awaitable[bool]) -> bool | str:
    try:
        return await waiting
    except AccountHeld as held:
        return held.reason


# -- the rate


async def test_the_first_request_leaves_at_once(redis: Redis) -> None:
    waits = Waits()
    assert await RateLimiter(redis, waits).acquire(account(), Queue.LIVE) is False
    assert waits == [0]


async def test_requests_in_a_row_are_never_closer_than_an_interval(asker: Asker) -> None:
    for _ in range(10):
        await asker.ask(account(rate=1.0))

    for number, turn in enumerate(asker.turns):
        assert turn.latest >= asker.turns[0].earliest + number * GUARD - 0.001


async def test_no_time_is_given_away_between_requests(asker: Asker, redis: Redis) -> None:
    before = await clock(redis)
    for _ in range(10):
        await asker.ask(account(rate=1.0))
    after = await clock(redis)

    free_again = int(await redis.get(LIVE_BUCKET)) / 1e6

    assert before + 10 * GUARD - 0.001 <= free_again <= after + 10 * GUARD + 0.001


@pytest.mark.parametrize("rate", [0.5, 10.0, 50.0, 1000.0])
async def test_a_turn_takes_somewhat_more_than_its_share_of_a_second(asker: Asker, redis: Redis, rate: float) -> None:
    before = await clock(redis)
    await asker.ask(account(rate=rate))
    after = await clock(redis)
    free_again = int(await redis.get(LIVE_BUCKET)) / 1e6
    assert before - 0.001 <= free_again - GUARD / rate <= after + 0.001


async def test_a_process_that_has_run_for_a_while_comes_closer_to_the_rate_and_never_quite_there(
    redis: Redis,
) -> None:
    turns, allowed = RateLimiter(redis, Waits()), account(rate=100)
    for _ in range(300):
        await turns.acquire(allowed, Queue.LIVE)
    last = int(await redis.get(LIVE_BUCKET))
    await turns.acquire(allowed, Queue.LIVE)
    assert 10_100 <= int(await redis.get(LIVE_BUCKET)) - last <= 10_200


@pytest.mark.parametrize("rate", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("queue", Queue)
async def test_who_is_late_for_a_turn_is_followed_by_no_more_than_the_rate_in_the_second_that_begins_then(
    redis: Redis, asker: Asker, queue: Queue, rate: float
) -> None:
    woke: list[float] = []

    async def oversleep(_seconds: float) -> None:
        await asyncio.sleep(0.1)
        woke.append(await clock(redis))

    allowed = account(rate=rate)
    await RateLimiter(redis, oversleep).acquire(allowed, queue)
    in_a_window = max(1, int(rate))
    for _ in range(in_a_window):
        await asker.ask(allowed)

    assert len(woke) == 1, "a turn is not lost because one is late for it"
    assert asker.turns[-1].latest >= woke[0] + in_a_window / rate


class Late:
    """Takes turns of an account of five a second, and says by how much somebody was late for one."""

    def __init__(self, redis: Redis) -> None:
        self._redis, self._limiter = redis, RateLimitScript(redis)

    async def turn(self) -> list[int]:
        _, _, at, shift, _ = await self._limiter.call("default", 5.0, "turn", 1.0, 0.06, 1, 10_000_000, 0, 0, 1)
        return [int(at), int(shift)]

    async def for_(self, turn: list[int], seconds: float) -> float:
        """Return by how many seconds those behind come later."""
        before = int(await self._redis.get(LIVE_BUCKET))
        at = (await clock(self._redis) - seconds) * 1e6
        assert await self._limiter.call("default", 5.0, "late", 0.06, 1, 0, round(at), turn[1]) == ["sent"]
        return (int(await self._redis.get(LIVE_BUCKET)) - before) / 1e6


async def test_two_who_are_late_in_the_same_second_make_those_behind_come_later_once(redis: Redis) -> None:
    late = Late(redis)
    one, other = await late.turn(), await late.turn()
    assert await late.for_(one, 0.3) >= 0.3 - 0.03, "but for half of what there is to spare"
    assert await late.for_(other, 0.2) == 0


async def test_who_is_late_in_a_second_in_which_nobody_asked_makes_nobody_come_later(redis: Redis) -> None:
    late = Late(redis)
    one = await late.turn()
    await redis.decrby(LIVE_BUCKET, 3_000_000)
    await late.turn()
    assert await late.for_(one, 0.3) == 0


async def test_who_is_hardly_late_makes_nobody_come_later(redis: Redis) -> None:
    late = Late(redis)
    assert await late.for_(await late.turn(), -0.1) == 0


async def test_whose_place_in_the_second_is_taken_by_turns_that_were_given_asks_again(redis: Redis) -> None:
    allowed, waits = account(rate=1.0, daily_quota=100), []

    async def oversleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            for _ in range(3):
                await RateLimiter(redis, Waits()).acquire(allowed, Queue.LIVE)
            await asyncio.sleep(0.1)

    await RateLimiter(redis, oversleep).acquire(allowed, Queue.LIVE)

    assert len(waits) == 2
    assert waits[1] > 3.5, "behind those who have their turns"
    assert await redis.hget(QUOTA, "used") == "4", "a turn that was lost costs nothing"
    assert await redis.hget(PACE, "sent") == "4"


async def test_who_is_late_takes_no_turn_from_those_who_have_one(redis: Redis) -> None:
    allowed = account(rate=5.0)

    async def oversleep(_seconds: float) -> None:
        for _ in range(3):
            await RateLimiter(redis, Waits()).acquire(allowed, Queue.LIVE)
        reserved.append(int(await redis.get(LIVE_BUCKET)))
        await asyncio.sleep(0.1)

    reserved: list[int] = []
    await RateLimiter(redis, oversleep).acquire(allowed, Queue.LIVE)

    late = int(await redis.get(LIVE_BUCKET)) - reserved[0]
    assert 50_000 <= late <= 1_000_000, "those who have none come as much later"


async def test_only_one_of_a_process_has_a_turn_ahead_of_its_time(redis: Redis) -> None:
    over, has_turn, waits = asyncio.Event(), asyncio.Event(), Waits()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        has_turn.set()
        await over.wait()

    turns, allowed = RateLimiter(redis, sleep), account(daily_quota=100)
    crowd = [asyncio.create_task(turns.acquire(allowed, Queue.LIVE)) for _ in range(5)]
    await has_turn.wait()
    await RateLimiter(redis, Waits()).acquire(allowed, Queue.LIVE)
    assert (waits, await redis.hget(QUOTA, "used")) == ([0], "2"), "theirs and another process's"

    over.set()
    await asyncio.gather(*crowd)
    assert await redis.hget(QUOTA, "used") == "6"


@pytest.mark.parametrize(("rate", "at_once"), [(99.0, 1), (200.0, 4), (10_000.0, 5)])
async def test_with_a_high_rate_several_of_a_process_have_turns_of_the_next_20_ms(
    redis: Redis, rate: float, at_once: int
) -> None:
    over, waits = asyncio.Event(), Waits()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await over.wait()

    turns, allowed = RateLimiter(redis, sleep), account(rate=rate)
    crowd = [asyncio.create_task(turns.acquire(allowed, Queue.LIVE)) for _ in range(5)]
    while len(waits) < at_once:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    assert len(waits) == at_once

    over.set()
    await asyncio.gather(*crowd)


async def test_workers_with_connections_of_their_own_share_the_rate(redis: Redis, redis_url: str) -> None:
    async with open_redis(redis_url) as other:
        askers = [Asker(redis), Asker(other)]
        for number in range(8):
            await askers[number % 2].ask(account(rate=1.0))
    turns = sorted(askers[0].turns + askers[1].turns, key=lambda turn: turn.latest)
    assert all(turn.latest >= turns[0].earliest + n * GUARD - 0.001 for n, turn in enumerate(turns))
    assert turns[-1].earliest < turns[0].latest + 10 * GUARD


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


async def test_processes_share_the_rate(asker: Asker, redis_url: str) -> None:
    ours = await asker.ask(account(rate=0.2))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OTHER_PROCESS, redis_url, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    waits, after = json.loads(out)
    assert after + sum(waits) >= ours.earliest + 5 * GUARD - 0.001


async def test_accounts_do_not_wait_for_each_other(asker: Asker, redis: Redis) -> None:
    await asker.ask(account("berlin"))
    waits = Waits()
    await RateLimiter(redis, waits).acquire(account("paris"), Queue.LIVE)
    assert waits == [0]


async def test_after_a_quiet_time_a_burst_leaves_at_once_and_no_request_more(redis: Redis) -> None:
    waits = Waits()
    turns = RateLimiter(redis, waits)
    before = await clock(redis)
    for _ in range(5):
        await turns.acquire(account(rate=1 / 4, burst=4), Queue.LIVE)
    elapsed = await clock(redis) - before

    assert waits[:4] == [0, 0, 0, 0]
    assert 4 * GUARD - elapsed - 0.001 <= waits[4] <= 4 * GUARD + 0.001


async def test_a_quiet_time_saves_up_no_more_than_the_burst(redis: Redis) -> None:
    await redis.set(LIVE_BUCKET, 1)
    waits = Waits()
    turns = RateLimiter(redis, waits)
    for _ in range(2):
        await turns.acquire(account(rate=1 / 4), Queue.LIVE)
    assert waits[0] == 0
    assert waits[1] > 0


async def test_a_turn_beyond_the_horizon_is_not_reserved(redis: Redis) -> None:
    class FirstWait(Exception):
        pass

    async def sleep(seconds: float) -> None:
        raise FirstWait(seconds)

    before = await clock(redis)
    free_again = round((before + 25) * 1e6)
    await redis.set(LIVE_BUCKET, free_again)

    with pytest.raises(FirstWait) as asked_to_wait:
        await RateLimiter(redis, sleep).acquire(account(), Queue.LIVE)

    elapsed = await clock(redis) - before
    assert 15 - elapsed - 0.001 <= asked_to_wait.value.args[0] <= 15.001
    assert int(await redis.get(LIVE_BUCKET)) == free_again


async def test_who_was_beyond_the_horizon_asks_again_and_gets_a_turn(redis: Redis) -> None:
    waits: list[float] = []

    async def time_passes(seconds: float) -> None:
        waits.append(seconds)
        await redis.decrby(LIVE_BUCKET, round(seconds * 1e6))

    await redis.set(LIVE_BUCKET, round((await clock(redis) + 25) * 1e6))

    assert await RateLimiter(redis, time_passes).acquire(account(), Queue.LIVE) is False

    assert len(waits) == 2
    assert sum(waits) <= 25.001


async def test_the_limiter_leaves_nothing_in_redis_for_ever(asker: Asker, redis: Redis) -> None:
    await asker.ask(account(rate=0.5), Queue.BACKFILL)
    for bucket in (LIVE_BUCKET, BACKFILL_BUCKET):
        assert 0 < await redis.pttl(bucket) <= 70_000


async def test_the_limiter_goes_on_when_redis_has_forgotten_its_script(redis: Redis) -> None:
    turns = RateLimiter(redis, Waits())
    await turns.acquire(account(), Queue.LIVE)
    await redis.script_flush()
    assert await turns.acquire(account(), Queue.LIVE) is False


# -- backfills leave room


async def test_a_backfill_uses_its_share_of_the_rate(asker: Asker, redis: Redis) -> None:
    before = await clock(redis)
    await asker.ask(account(rate=1.0, backfill_share=0.5), Queue.BACKFILL)
    after = await clock(redis)
    for bucket, interval in ((LIVE_BUCKET, GUARD), (BACKFILL_BUCKET, 2 * GUARD)):
        assert before - 0.001 <= int(await redis.get(bucket)) / 1e6 - interval <= after + 0.001


async def test_what_is_live_queues_behind_one_request_of_a_backfill_at_most(redis: Redis) -> None:
    over, stuck, waits = asyncio.Event(), asyncio.Event(), Waits()

    async def sleep(seconds: float) -> None:
        if seconds > 1.5:
            stuck.set()
            await over.wait()
        waits.append(seconds)

    turns, allowed = RateLimiter(redis, sleep), account(rate=1.0, backfill_share=0.5)
    crowd = [asyncio.create_task(turns.acquire(allowed, Queue.BACKFILL)) for _ in range(8)]
    await stuck.wait()

    await turns.acquire(allowed, Queue.LIVE)

    assert waits[-1] <= GUARD
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    assert sum(task.cancelled() for task in crowd) == 7, "only one of the backfill had its turn"


async def test_a_live_request_takes_nothing_from_the_share_of_a_backfill(asker: Asker, redis: Redis) -> None:
    await asker.ask(account(), Queue.LIVE)
    assert await redis.get(BACKFILL_BUCKET) is None


# -- the quota


async def test_who_has_spent_the_quota_is_told_when_the_next_day_begins(redis: Redis) -> None:
    turns = RateLimiter(redis, Waits())
    before = await clock(redis)
    for _ in range(3):
        assert await turns.acquire(account(rate=1000, daily_quota=3), Queue.LIVE) is False

    with pytest.raises(AccountHeld) as held:
        await turns.acquire(account(rate=1000, daily_quota=3), Queue.LIVE)

    elapsed = await clock(redis) - before
    assert held.value.reason == "quota"
    assert DAY - elapsed - 0.001 <= held.value.wait <= DAY


async def test_a_spent_quota_comes_back_whole_after_a_day(redis: Redis) -> None:
    turns = RateLimiter(redis, Waits())
    allowed = account(rate=1000, daily_quota=2)
    for _ in range(2):
        await turns.acquire(allowed, Queue.LIVE)
    await redis.hincrby(QUOTA, "since", -round(DAY * 1000))

    for _ in range(2):
        await turns.acquire(allowed, Queue.LIVE)

    with pytest.raises(AccountHeld, match="quota"):
        await turns.acquire(allowed, Queue.LIVE)


async def test_a_day_of_the_quota_is_not_over_a_minute_early(redis: Redis) -> None:
    turns = RateLimiter(redis, Waits())
    allowed = account(rate=1000, daily_quota=1)
    await turns.acquire(allowed, Queue.LIVE)
    await redis.hincrby(QUOTA, "since", -round(DAY * 1000) + 60_000)
    with pytest.raises(AccountHeld) as held:
        await turns.acquire(allowed, Queue.LIVE)
    assert held.value.wait <= 60


async def test_a_request_of_a_backfill_counts_once_for_the_quota(redis: Redis) -> None:
    turns = RateLimiter(redis, Waits())
    for queue in (Queue.BACKFILL, Queue.LIVE, Queue.BACKFILL):
        await turns.acquire(account(rate=1000, daily_quota=10), queue)
    assert await redis.hget(QUOTA, "used") == "3"


async def test_a_turn_that_is_not_given_costs_no_quota(redis: Redis, holds: Holds) -> None:
    await refused(holds, "default", 401, probe=False)
    await refused(holds, "default", 401, probe=True)
    with pytest.raises(AccountHeld, match="401"):
        await RateLimiter(redis, Waits()).acquire(account(daily_quota=10), Queue.LIVE)
    assert await redis.exists(QUOTA, LIVE_BUCKET) == 0


# -- holds


@pytest.mark.parametrize("queue", Queue)
async def test_nobody_sends_while_the_account_is_on_hold(redis: Redis, holds: Holds, queue: Queue) -> None:
    await holds.place_for("default", Reason.SLOW_DOWN, "", 600)
    waits = Waits()

    with pytest.raises(AccountHeld) as held:
        await RateLimiter(redis, waits).acquire(account(), queue)

    assert held.value.reason == "429"
    assert 500 < held.value.wait <= 600
    assert waits == []


async def test_another_account_s_hold_is_none_of_ours(redis: Redis, holds: Holds) -> None:
    await holds.place_for("another", Reason.SLOW_DOWN, "", 600)
    assert await RateLimiter(redis, Waits()).acquire(account(), Queue.LIVE) is False


async def test_a_short_hold_is_waited_out(redis: Redis, holds: Holds) -> None:
    waits: list[float] = []

    async def time_passes(seconds: float) -> None:
        waits.append(seconds)
        await holds.end("default")

    await holds.place_for("default", Reason.SLOW_DOWN, "", 4)

    assert await RateLimiter(redis, time_passes).acquire(account(), Queue.LIVE) is False
    assert 0 < waits[0] <= 4


async def test_patience_with_holds_that_follow_each_other_ends(redis: Redis, holds: Holds) -> None:
    waits: list[float] = []

    async def the_next_hold_begins(seconds: float) -> None:
        waits.append(seconds)
        await holds.end("default")
        await holds.place_for("default", Reason.SLOW_DOWN, "", 3)

    await holds.place_for("default", Reason.SLOW_DOWN, "", 3)

    with pytest.raises(AccountHeld):
        await RateLimiter(redis, the_next_hold_begins).acquire(account(), Queue.LIVE)
    assert len(waits) < 5


@pytest.mark.parametrize("queue", Queue)
async def test_the_probe_that_may_end_a_hold_is_given_to_exactly_one(
    redis: Redis, redis_url: str, holds: Holds, queue: Queue
) -> None:
    await hold_with_pause_over(redis, holds)
    async with open_redis(redis_url) as other:
        turns = [RateLimiter(client, Waits()) for client in (redis, other)]
        asked = [one_of(turns[number % 2].acquire(account(rate=1000), queue)) for number in range(20)]
        answers = await asyncio.gather(*asked)
    assert sorted(map(str, answers)) == ["401"] * 19 + ["True"]


async def test_the_others_wait_until_the_probe_has_an_answer(redis: Redis, holds: Holds) -> None:
    await hold_with_pause_over(redis, holds)
    turns = RateLimiter(redis, Waits())
    assert await turns.acquire(account(), Queue.LIVE) is True

    with pytest.raises(AccountHeld) as held:
        await turns.acquire(account(), Queue.LIVE)

    assert 30 < held.value.wait <= 60


async def test_when_who_had_the_probe_died_another_gets_it(redis: Redis, holds: Holds) -> None:
    turns = RateLimiter(redis, Waits())
    await hold_with_pause_over(redis, holds)
    assert await turns.acquire(account(), Queue.LIVE) is True
    await redis.hset(hold_key("default"), "until", 1)
    assert await turns.acquire(account(), Queue.LIVE) is True


async def test_after_the_hold_is_lifted_turns_are_ordinary_again(redis: Redis, holds: Holds) -> None:
    turns = RateLimiter(redis, Waits())
    await hold_with_pause_over(redis, holds)
    await turns.acquire(account(), Queue.LIVE)
    await holds.end("default")
    assert await turns.acquire(account(), Queue.LIVE) is False


async def test_a_probe_costs_quota_like_any_request(redis: Redis, holds: Holds) -> None:
    await hold_with_pause_over(redis, holds)
    await RateLimiter(redis, Waits()).acquire(account(daily_quota=10), Queue.LIVE)
    assert await redis.hget(QUOTA, "used") == "1"


async def test_a_spent_quota_is_a_hold_that_every_process_sees_and_that_ends_with_the_day(
    redis: Redis, holds: Holds
) -> None:
    turns = RateLimiter(redis, Waits())
    for expected in (False, "quota", "quota"):
        assert await one_of(turns.acquire(account(rate=1000, daily_quota=1), Queue.LIVE)) == expected

    hold = await holds.get("default")

    assert hold
    assert (hold.reason, hold.needs_probe) == ("quota", False)
    assert DAY - 60 < hold.remaining <= DAY
    assert abs(await redis.pexpiretime(hold_key("default")) - int(await redis.hget(hold_key("default"), "until"))) <= 5


async def test_with_the_quota_spent_a_hold_that_only_a_probe_ends_waits_for_the_next_day_and_stays_one(
    redis: Redis, holds: Holds
) -> None:
    allowed = account(rate=1000, daily_quota=1)
    turns = RateLimiter(redis, Waits())
    await turns.acquire(allowed, Queue.LIVE)
    await hold_with_pause_over(redis, holds)

    with pytest.raises(AccountHeld) as held:
        await turns.acquire(allowed, Queue.LIVE)

    assert held.value.wait > DAY - 60
    assert await redis.pttl(hold_key("default")) == -1


# -- what a process has noticed


class Noticing(Waits):
    """A sleep in whose course the process hears of holds: before which sleep, and for how long each lasts."""

    def __init__(self, news: dict[int, float], name: str = "default") -> None:
        super().__init__()
        self._news, self._name = news, name
        self.turns: RateLimiter | None = None

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)
        if self.turns and len(self) in self._news:
            self.turns.set_hold(self._name, self._news[len(self)])


def noticing(redis: Redis, sleep: Noticing) -> RateLimiter:
    sleep.turns = RateLimiter(redis, sleep)
    return sleep.turns


async def test_who_has_a_turn_already_gives_it_up_once_the_account_is_on_hold(redis: Redis, holds: Holds) -> None:
    class HoldBegins(Waits):
        async def __call__(self, seconds: float) -> None:
            self.append(seconds)
            turns.set_hold("default", await refused(holds, "default", 401, probe=False))

    turns = RateLimiter(redis, HoldBegins())
    with pytest.raises(AccountHeld) as held:
        await turns.acquire(account(), Queue.LIVE)
    assert held.value.reason == "401"
    assert 5 < held.value.wait <= 30


async def test_a_noticed_hold_concerns_one_account_only(redis: Redis) -> None:
    turns = noticing(redis, Noticing({1: 30}, "another"))
    assert await turns.acquire(account(), Queue.LIVE) is False


@pytest.mark.parametrize("news", [{1: 0}, {1: 30, 2: 0}], ids=["its time is over", "it was lifted"])
async def test_a_noticed_hold_ends(redis: Redis, news: dict[int, float]) -> None:
    turns = noticing(redis, Noticing(news))
    assert await turns.acquire(account(), Queue.LIVE) is False


async def test_a_hold_that_this_process_remembers_longer_than_redis_costs_one_turn_not_many(redis: Redis) -> None:
    turns = noticing(redis, Noticing({1: 30, 10: 0}))
    await one_of(turns.acquire(account(rate=1000, daily_quota=100), Queue.LIVE))
    assert int(await redis.hget(QUOTA, "used")) <= 2


async def test_the_probe_leaves_although_this_process_still_remembers_the_hold(redis: Redis, holds: Holds) -> None:
    await hold_with_pause_over(redis, holds)
    turns = RateLimiter(redis, Waits())
    turns.set_hold("default", 30)
    assert await turns.acquire(account(), Queue.LIVE) is True


async def test_the_probe_leaves_although_this_process_hears_that_the_others_wait_for_it(
    redis: Redis, holds: Holds
) -> None:
    await hold_with_pause_over(redis, holds)
    turns = noticing(redis, Noticing({1: 60}))
    assert await turns.acquire(account(), Queue.LIVE) is True


# -- a backfill leaves a part of the quota to what is live


async def spent(turns: RateLimiter, who: Account, queue: Queue) -> float:
    """See that the quota is spent for a queue; return the seconds until it is not."""
    with pytest.raises(AccountHeld, match="quota") as held:
        await turns.acquire(who, queue)
    return held.value.wait


async def test_a_backfill_leaves_its_reserve_of_the_quota_to_what_is_live(redis: Redis, holds: Holds) -> None:
    turns, allowed = RateLimiter(redis, Waits()), account(rate=1000, daily_quota=20, live_reserve=0.25)
    for _ in range(15):
        await turns.acquire(allowed, Queue.BACKFILL)

    assert DAY - 60 < await spent(turns, allowed, Queue.BACKFILL) <= DAY

    (hold,) = await holds.list_all()
    assert (hold.scope, hold.reason, hold.needs_probe) == (backfill_of("default"), "quota", False)
    assert hold.note == "15 of 20 requests are spent"
    assert DAY - 60 < hold.remaining <= DAY
    assert (
        abs(await redis.pexpiretime(hold_key(hold.scope)) - int(await redis.hget(hold_key(hold.scope), "until"))) <= 5
    )
    for _ in range(5):
        assert await turns.acquire(allowed, Queue.LIVE) is False
    await spent(turns, allowed, Queue.LIVE)
    assert {hold.scope for hold in await holds.list_all()} == {"default", backfill_of("default")}


async def test_what_is_live_counts_for_what_a_backfill_may_find_used(redis: Redis) -> None:
    turns, allowed = RateLimiter(redis, Waits()), account(rate=1000, daily_quota=20, live_reserve=0.25)
    for number in range(15):
        await turns.acquire(allowed, Queue.LIVE if number < 14 else Queue.BACKFILL)
    await spent(turns, allowed, Queue.BACKFILL)
    assert await redis.hget(QUOTA, "used") == "15"


async def test_with_the_next_day_the_backfill_goes_on(redis: Redis) -> None:
    turns, allowed = RateLimiter(redis, Waits()), account(rate=1000, daily_quota=2, live_reserve=0.5)
    await turns.acquire(allowed, Queue.BACKFILL)
    await spent(turns, allowed, Queue.BACKFILL)
    await redis.delete(hold_key(backfill_of("default")))
    await redis.hincrby(QUOTA, "since", -round(DAY * 1000))
    assert await turns.acquire(allowed, Queue.BACKFILL) is False


async def test_a_backfill_whose_quota_is_spent_is_not_the_probe_of_the_account(redis: Redis, holds: Holds) -> None:
    turns, allowed = RateLimiter(redis, Waits()), account(rate=1000, daily_quota=2, live_reserve=0.5)
    await turns.acquire(allowed, Queue.BACKFILL)
    await hold_with_pause_over(redis, holds)
    await spent(turns, allowed, Queue.BACKFILL)
    assert await turns.acquire(allowed, Queue.LIVE) is True


async def test_a_hold_of_the_backfill_leaves_alone_what_is_live(redis: Redis, holds: Holds) -> None:
    await holds.place_manual(backfill_of("default"), "")
    assert await one_of(RateLimiter(redis, Waits()).acquire(account(), Queue.BACKFILL)) == "by_hand"
    assert await RateLimiter(redis, Waits()).acquire(account(), Queue.LIVE) is False


# -- how fast an account is just now


async def apart(redis: Redis, turns: RateLimiter, who: Account, queue: Queue = Queue.LIVE) -> float:
    """Take a turn behind others that are ahead of their time; return the seconds that it takes up."""
    bucket = BACKFILL_BUCKET if queue is Queue.BACKFILL else LIVE_BUCKET
    before = round((await clock(redis) + 8) * 1e6)
    await redis.set(bucket, before)
    await turns.acquire(who, queue)
    return (int(await redis.get(bucket)) - before) / 1e6


async def test_a_rate_that_a_person_sets_is_kept_at_once_by_who_is_under_way(redis: Redis, holds: Holds) -> None:
    turns, pace = RateLimiter(redis, Waits()), AdaptiveRate(redis, "default", 1.0, holds)
    assert await apart(redis, turns, account()) == pytest.approx(1, rel=0.07)
    await pace.set_rate(50.0)
    assert await apart(redis, turns, account()) == pytest.approx(1 / 50, rel=0.07)
    assert await apart(redis, turns, account(backfill_share=0.5), Queue.BACKFILL) == pytest.approx(1 / 25, rel=0.07)
    await pace.set_rate(None)
    assert await apart(redis, turns, account()) == pytest.approx(1, rel=0.07)


async def test_no_more_is_sent_than_riskos_grants(redis: Redis, holds: Holds) -> None:
    turns, pace = RateLimiter(redis, Waits()), AdaptiveRate(redis, "default", 100.0, holds)
    await pace.on_headers(RateLimitHeaders(limit=5, reset=1.0), 0.0)
    assert await apart(redis, turns, account(rate=100.0)) == pytest.approx(1 / 5, rel=0.07)


async def test_a_rate_that_was_slowed_down_is_kept_and_what_has_come_back_of_it(redis: Redis) -> None:
    before = await clock(redis)
    await redis.hset(PACE, mapping={"slowed": 50, "slowed_at": round(before * 1000)})
    taken = await apart(redis, RateLimiter(redis, Waits()), account(rate=100.0))
    recovered = await clock(redis) - before
    assert 1 / (50 + recovered + 0.01) <= taken <= 1.07 / 50


# -- what it costs


@pytest.fixture
async def known(redis: Redis) -> None:
    """Have the script at Redis already: whoever brings it there makes two round trips more."""
    await RateLimitScript(redis).call("default", 1.0, "see")


@pytest.mark.parametrize("queue", list(Queue))
async def test_a_turn_that_nobody_has_to_wait_for_costs_one_round_trip(redis: Redis, queue: Queue) -> None:
    turns, costs = RateLimiter(redis, Waits()), set()
    for _ in range(20):
        await asyncio.sleep(0.002)
        before = await round_trips(redis)
        await turns.acquire(account(rate=10_000.0), queue)
        costs.add(await round_trips(redis) - before - 1)  # without the one that counts
    # Whoever was held up by the machine on his way says so to the others, which costs another.
    assert min(costs) == 1


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("queue", list(Queue))
async def test_who_is_late_for_a_turn_pays_one_round_trip_to_say_so(redis: Redis, queue: Queue) -> None:
    async def oversleep(_seconds: float) -> None:
        await asyncio.sleep(0.1)

    before = await round_trips(redis)
    await RateLimiter(redis, oversleep).acquire(account(rate=1.0), queue)
    assert await round_trips(redis) - before - 1 == 2


class Tellings(RateLimitScript):
    """Counts who says that he is late; each time that takes a while."""

    def __init__(self, redis: Redis, seconds: float) -> None:
        super().__init__(redis)
        self._seconds = seconds
        self.count = 0

    async def call(self, name: str, rate: float, verb: str, *args: float, **options: Any) -> Sequence[str]:
        answer = await super().call(name, rate, verb, *args, **options)
        if verb == "late":
            self.count += 1
            await asyncio.sleep(self._seconds)
        return answer


async def late_ones(redis: Redis, turns: RateLimiter, monkeypatch: pytest.MonkeyPatch, *, seconds: float) -> Tellings:
    """Have ten wait for turns of the same 20 ms, and be late for them."""
    tellings = Tellings(redis, seconds)
    monkeypatch.setattr(turns, "_limiter", tellings)
    await asyncio.gather(*(turns.acquire(account(rate=1000.0), Queue.LIVE) for _ in range(10)))
    return tellings


async def oversleep(seconds: float) -> None:
    await asyncio.sleep(seconds + 0.1)


async def test_what_one_has_said_of_being_late_holds_for_those_who_had_their_turns_then(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await late_ones(redis, RateLimiter(redis, oversleep), monkeypatch, seconds=0.0)).count <= 3


async def test_saying_so_may_take_long_again_and_again_and_does_not_go_on_for_ever(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 1 <= (await late_ones(redis, RateLimiter(redis, oversleep), monkeypatch, seconds=0.1)).count <= 20


async def test_a_backfill_that_waits_for_its_share_reserves_no_turn_of_the_account_ahead(redis: Redis) -> None:
    reserved: list[float] = []

    async def look(seconds: float) -> None:
        reserved.append(float(await redis.get(LIVE_BUCKET)) if seconds else 0.0)

    allowed, turns = account(rate=1.0, backfill_share=0.5), RateLimiter(redis, look)
    await turns.acquire(allowed, Queue.BACKFILL)
    after_the_first = float(await redis.get(LIVE_BUCKET))
    await turns.acquire(allowed, Queue.BACKFILL)
    assert reserved[1] == after_the_first


async def round_trips(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_reads_processed"])
