"""Grant permits to send a request, within the rate and the quota of an account.

Each account, or group of accounts that share a rate, has one bucket in Redis, so all processes together stay within the
rate. A backfill first takes a permit from a bucket with a lower rate, so live requests wait behind at most one of its
requests.
"""

import asyncio
import importlib.resources
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from tasks.errors import AccountHeld, RunHeld
from tasks.ledger.refused_runs import REFUSED_RUNS
from tasks.model.account import Account
from tasks.model.job import Queue
from tasks.resilience.holds import UNUSED_KEY, backfill_of, hold_key

QUOTA_PROBE_SECONDS = 15 * 60.0
"""If RiskOS says that no requests are left today, but not until when, one request finds out after this time."""
_PATIENCE_SECONDS = 5.0
_MAX_SLEEP_SECONDS = 5.0
# A process reserves the permits of the next 20 ms, at least one. If it reserved only one at a time at a high rate, its
# callers would wait for each other's round trips.
_AHEAD_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Granted:
    """A permit is reserved and due in some seconds; its request may be the probe of a hold."""

    seconds: float
    is_probe: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """No permit of the account is reserved yet: call this verb of the script in some seconds."""

    seconds: float
    verb: str


@dataclass(frozen=True, slots=True)
class Held:
    """The account, or its backfill, is on hold for some seconds."""

    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RunIsHeld:
    """The only run that wants the evaluation is on hold."""


class RateLimitScript:
    """The Lua script that keeps the rate, and its keys.

    Args:
        redis: the client, with ``decode_responses``.
    """

    def __init__(self, redis: "Redis") -> None:
        self._script = redis.register_script(
            importlib.resources.files("tasks.resilience").joinpath("rate_limiter.lua").read_text("utf-8")
        )

    async def acquire(
        self, account: Account, queue: Queue, verb: str, run: str = ""
    ) -> Granted | Wait | Held | RunIsHeld:
        """Reserve a permit of an account, or return when to call again.

        Args:
            verb: ``acquire``, or ``acquire_backfill`` if a permit of the backfill's bucket is needed first.
            run: the only run that wants the evaluation; empty if its hold does not matter.
        """
        allowance = account.allowance
        reserve = allowance.live_reserve if queue is Queue.BACKFILL else 0.0
        kind, *facts = await self.call(
            *(account.name, allowance.rate, verb),
            *(allowance.burst, allowance.daily_quota or 0, reserve, allowance.leave_daily),
            *(allowance.backfill_share, run),
            queue=queue,
            shared_with=allowance.shared_with,
        )
        match kind:
            case "granted":
                return Granted(int(facts[0]) / 1_000_000, is_probe=bool(int(facts[1])))
            case "wait":
                return Wait(int(facts[0]) / 1_000_000, facts[1])
            case "run_held":
                return RunIsHeld()
            case _:
                return Held(facts[1], int(facts[0]) / 1_000)

    async def release(self, account: Account, age: float) -> None:
        """Give back a permit that was due some seconds ago and is not used, so that it does not count as a request."""
        allowance = account.allowance
        args = (account.name, allowance.rate, "release", round(age * 1_000_000))
        await self.call(*args, shared_with=allowance.shared_with)

    async def call(
        self,
        name: str,
        rate: float,
        verb: str,
        *args: float | str,
        queue: Queue = Queue.LIVE,
        shared_with: str | None = None,
    ) -> Sequence[str]:
        """Call a verb of the script; ``rate_limiter.lua`` documents their arguments and answers.

        Args:
            name: name of the account.
            rate: requests per second in the settings.
            shared_with: name of the account whose rate and quota it uses; None if it has its own.
        """
        limited = shared_with or name
        keys = [
            hold_key(name),
            hold_key(backfill_of(name) if queue is Queue.BACKFILL else name),
            f"docv:quota:{limited}",
            f"docv:rate:{limited}",
            f"docv:pace:{limited}",
            UNUSED_KEY,
            f"docv:rate:{limited}:backfill",
            f"docv:window:{limited}",
            REFUSED_RUNS,
        ]
        answer: Sequence[str] = await self._script(keys=keys, args=[verb, rate, *args])
        return answer


class RateLimiter:
    """Grants permits to the requests of this process.

    Args:
        redis: the client, with ``decode_responses``.
        sleep: waits for some seconds; tests replace it.
    """

    def __init__(self, redis: "Redis", sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._script = RateLimitScript(redis)
        self._sleep = sleep
        self._holds: dict[str, tuple[float, float]] = {}
        self._semaphores: dict[tuple[str, Queue], asyncio.Semaphore] = {}

    def set_hold(self, account: str, held_for: float) -> None:
        """Record that an account is on hold for some seconds, or not on hold if 0.

        Callers in this process that have a permit and still wait for it give it up.
        """
        now = time.monotonic()
        self._holds[account] = (now, now + held_for)

    async def acquire(self, account: Account, queue: Queue, run: str = "") -> bool:
        """Wait until a request may be sent; return whether it is the probe that may end a hold.

        Args:
            run: the only run that wants the evaluation; empty if its hold does not matter.

        Raises:
            AccountHeld: the account is on hold, or its quota is spent, for longer than this method waits.
            RunHeld: the run is on hold.
        """
        async with self._concurrent_acquires(account, queue):
            return await self._acquire(account, queue, run)

    async def _acquire(self, account: Account, queue: Queue, run: str) -> bool:
        patience = _PATIENCE_SECONDS
        verb = "acquire_backfill" if queue is Queue.BACKFILL else "acquire"
        while True:
            match await self._script.acquire(account, queue, verb, run):
                case RunIsHeld():
                    raise RunHeld(run)
                case Held(reason, seconds):
                    if seconds > patience:
                        raise AccountHeld(reason, seconds)
                    patience -= seconds
                    await self._sleep(seconds)
                case Wait(seconds, next_verb):
                    # While nothing is reserved, sleep only briefly: Redis's clock may be set, or the rate raised.
                    await self._sleep(min(seconds, _MAX_SLEEP_SECONDS) if next_verb == verb else seconds)
                    verb = next_verb
                case Granted(seconds, is_probe):
                    granted_at = time.monotonic()
                    await self._sleep(seconds)
                    if is_probe or not self._is_held_since(granted_at, account.name):
                        return is_probe
                    await self._script.release(account, time.monotonic() - granted_at - seconds)

    def _is_held_since(self, granted_at: float, account: str) -> bool:
        recorded_at, until = self._holds.get(account, (0.0, 0.0))
        return recorded_at > granted_at and until > time.monotonic()

    def _concurrent_acquires(self, account: Account, queue: Queue) -> asyncio.Semaphore:
        """Return the semaphore that limits how many permits this process reserves ahead of time."""
        key = (account.name, queue)
        if key not in self._semaphores:
            share = account.allowance.backfill_share if queue is Queue.BACKFILL else 1.0
            self._semaphores[key] = asyncio.Semaphore(max(1, int(account.allowance.rate * share * _AHEAD_SECONDS)))
        return self._semaphores[key]
