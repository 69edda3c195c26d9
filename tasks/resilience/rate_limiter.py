"""Wait for our turn at an account.

One bucket for each account, or for those that share a rate, in Redis, so that all processes together keep the rate.
A backfill first waits in a narrower bucket of its own: what is live never queues behind more than one request of it.
"""

import asyncio
import importlib.resources
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from tasks.errors import AccountHeld
from tasks.model.account import Account
from tasks.model.job import Queue
from tasks.resilience.clock_offset import ClockOffset
from tasks.resilience.holds import UNUSED_KEY, backfill_of, hold_key

_PREFIX = "docv:rate:"
_NARROW = ":backfill"
_PATIENCE = 5.0
_HORIZON = 10.0
# Seconds whose turns one process may have reserved, one turn at least. With a low rate one waiter at a time asks for
# his; with a high one they would wait for each other's round trips, and for all that the loop does between them.
_AHEAD = 0.02
_PROBE_LEASE = 60_000
# Requests leave at their turn but arrive with a jitter, so turns are further apart than the rate says, as if a second
# lasted longer by this much (seconds). A process that has just started has connections to open and code to load: it
# begins with the most, which is forgotten with each turn.
_TO_SPARE = 0.010
_MOST_TO_SPARE = 0.060
_FORGETTING = 0.98
_TELLINGS = 2
_SECOND = 1.0
_MICRO = 1_000_000


class RateLimitScript:
    """The script that keeps the rate, and the keys it works on.

    Args:
        redis: the client, with ``decode_responses``.
    """

    def __init__(self, redis: "Redis") -> None:
        self._script = redis.register_script(
            importlib.resources.files("tasks.resilience").joinpath("rate_limiter.lua").read_text("utf-8")
        )

    async def call(
        self,
        name: str,
        rate: float,
        verb: str,
        *args: float,
        queue: Queue = Queue.LIVE,
        bucket: str = "",
        shared_with: str | None = None,
    ) -> Sequence[str]:
        """Call one of the script's verbs; ``tasks/resilience/rate_limiter.lua`` tells what each takes and answers.

        Args:
            name: of the account.
            rate: requests a second, as in the settings.
            shared_with: name of the account whose turns, pace and quota these are; None for its own.
        """
        limited = shared_with or name
        keys = [
            hold_key(name),
            hold_key(backfill_of(name) if queue is Queue.BACKFILL else name),
            f"docv:quota:{limited}",
            f"{_PREFIX}{limited}{bucket}",
            f"docv:pace:{limited}",
            UNUSED_KEY,
            _PREFIX + limited,
            f"{_PREFIX}{limited}:shift",
        ]
        answer: Sequence[str] = await self._script(keys=keys, args=[verb, rate, *args])
        return answer


@dataclass(frozen=True, slots=True)
class _Bucket:
    """What to ask a bucket for."""

    verb: str
    name: str
    share: float
    quota: int
    own_quota: int


@dataclass(frozen=True, slots=True)
class _Shift:
    """By how many microseconds the turns of an account have come later so far, as known at a moment; see the script."""

    by: float
    at: float


def _shared(account: Account) -> str:
    """Return the name of the account whose turns it takes."""
    return account.allowance.shared_with or account.name


class RateLimiter:
    """Gives out turns.

    Args:
        redis: the client, with ``decode_responses``.
        sleep: how to wait; a test hands in its own.
    """

    def __init__(self, redis: "Redis", sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._limiter = RateLimitScript(redis)
        self._sleep = sleep
        self._newness = _MOST_TO_SPARE
        self._clock = ClockOffset()
        self._shifts: dict[str, _Shift] = {}
        self._waiting = 0
        self._hold_ends: dict[str, tuple[float, float]] = {}
        self._acquire_locks: dict[str, asyncio.Semaphore] = {}

    async def acquire(self, account: Account, queue: Queue) -> bool:
        """Wait until a request may leave now; return whether it is the probe that may end a hold.

        Raises:
            AccountHeld: the account stands still, or the quota is spent, for longer than we wait here.
        """
        allowance = account.allowance
        quota = own = allowance.daily_quota or 0
        if queue is Queue.BACKFILL:
            own -= round(quota * allowance.live_reserve)
            both = _Bucket("both", _NARROW, allowance.backfill_share, quota, own)
            kind = await self._acquire(account, queue, both)
            if kind != "narrow":
                return kind == "probe"
        return await self._acquire(account, queue, _Bucket("turn", "", 1.0, quota, own)) == "probe"

    @property
    def has_waiters(self) -> bool:
        """Whether somebody here waits for a turn, and wants to leave in time."""
        return self._waiting > 0

    def set_hold(self, account: str, held_for: float) -> None:
        """Learn that an account is on hold for so many seconds, or not at all.

        Whoever has a turn already, and waits for it in this process, gives it up and asks again.
        """
        now = time.monotonic()
        self._hold_ends[account] = (now, now + held_for)

    async def _acquire(self, account: Account, queue: Queue, bucket: _Bucket) -> str:
        """Reserve a turn and wait for it; return what kind it is."""
        patience = _PATIENCE
        burst, horizon = account.allowance.burst, round(_HORIZON * _MICRO)
        async with self._acquire_lock(account, bucket):
            while True:
                asked = time.monotonic()
                answer, value, *more = await self._limiter.call(
                    *(account.name, account.allowance.rate, bucket.verb),
                    *(bucket.share, self._to_spare, burst, horizon),
                    *(bucket.quota, bucket.own_quota, _PROBE_LEASE),
                    queue=queue,
                    bucket=bucket.name,
                    shared_with=account.allowance.shared_with,
                )
                if answer == "held":
                    wait = int(value) / 1000
                    if wait > patience:
                        raise AccountHeld(more[0], wait)
                    patience -= wait
                    await self._sleep(wait)
                elif answer == "later":
                    await self._sleep(int(value) / _MICRO)
                else:
                    given, wait = time.monotonic(), int(value) / _MICRO
                    due = given + wait
                    if more:
                        self._heard_of_shift(_shared(account), int(more[1]), given)
                    if wait and more:
                        due = self._due(asked, given, wait, int(more[0]) / _MICRO)
                    await self._until(given, due)
                    self._newness *= _FORGETTING
                    if answer != "probe" and self._held_since(given, account.name):
                        continue
                    if answer == "turn" and await self._has_lost(account, queue, bucket, due, more):
                        continue
                    return answer

    def _acquire_lock(self, account: Account, bucket: _Bucket) -> asyncio.Semaphore:
        """Return what lets only few of this process ask for a turn at a time, so that few are given out ahead."""
        name = account.name + bucket.name
        if name not in self._acquire_locks:
            ahead = account.allowance.rate * bucket.share * _AHEAD
            self._acquire_locks[name] = asyncio.Semaphore(max(1, int(ahead)))
        return self._acquire_locks[name]

    async def _until(self, now: float, due: float) -> None:
        self._waiting += due > now
        try:
            await self._sleep(max(0.0, due - now))
        finally:
            self._waiting -= due > now

    def _due(self, asked: float, given: float, wait: float, at: float) -> float:
        """Return when a turn is, by our clock.

        The answer may have lain here for milliseconds while we did other things: the wait in it is shorter by that.
        """
        self._clock.heard(asked, at - wait, given)
        return self._clock.here(at)

    async def _has_lost(self, account: Account, queue: Queue, bucket: _Bucket, due: float, turn: Sequence[str]) -> bool:
        """Return whether our turn is lost, since we are late for it and others cannot come later.

        If they can, they are told to, unless they do already as far as we know: somebody else was as late, or nobody
        has asked for a while. Telling takes time as well, and it is told again where it took as long.
        """
        at, shift, spared = map(int, turn)
        name = _shared(account)
        for _ in range(_TELLINGS):
            now = time.monotonic()
            late = (now - due) * _MICRO
            if late - spared <= self._shifts[name].by - shift:
                break
            self._shifts[name] = _Shift(shift + late, now)
            (answer,) = await self._limiter.call(
                *(account.name, account.allowance.rate, "late"),
                *(self._to_spare, account.allowance.burst, bucket.quota, at, shift),
                bucket=_NARROW if queue is Queue.BACKFILL else "",
                shared_with=account.allowance.shared_with,
            )
            if answer == "again":
                return True
        return False

    def _heard_of_shift(self, name: str, by: float, now: float) -> None:
        """Learn from an answer, unless it may have been given before we told Redis of more."""
        known = self._shifts.get(name)
        if known is None or by >= known.by or now - known.at > _SECOND:
            self._shifts[name] = _Shift(by, now)

    def _held_since(self, given: float, account: str) -> bool:
        """Return whether the account was put on hold after a turn was given, and still is."""
        noticed, until = self._hold_ends.get(account, (0.0, 0.0))
        return noticed > given and until > time.monotonic()

    @property
    def _to_spare(self) -> float:
        """The part of a turn that is added to each."""
        return min(_TO_SPARE + self._newness, _MOST_TO_SPARE)
