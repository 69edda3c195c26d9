"""Store the speed that the workers of an account reached in Redis, for the plan of the next backfill."""

import math

from redis.asyncio import Redis

from tasks.ledger.counters import RunCounters
from tasks.model.outcome import Outcome
from worker.config.accounts_file import AccountSettings

_KEY = "docv:speeds"
"""HASH of account -> evaluations per second that its workers reached while the rate did not limit them."""
_LEAST_EVALUATIONS, _LEAST_SECONDS = 20, 2.0
_LIMITED, _SAVE_SECONDS = 0.85, 10.0
_WITHOUT_REQUEST = (Outcome.UNCHANGED, Outcome.CANCELLED)


class BusySpeed:
    """Measures how fast evaluations end while there is work that may be done."""

    def __init__(self) -> None:
        self._seconds, self._count = 0.0, 0
        self._last: tuple[float, int] | None = None

    @property
    def per_second(self) -> float | None:
        """The speed; None while too few evaluations have ended."""
        is_known = self._count >= _LEAST_EVALUATIONS and self._seconds >= _LEAST_SECONDS
        return self._count / self._seconds if is_known else None

    def observe(self, counters: RunCounters, now: float, *, is_busy: bool) -> None:
        """Add the time since the last call, and the evaluations that ended in it, if there was work all the time.

        Args:
            counters: of the run.
            now: seconds of a monotonic clock.
            is_busy: whether an evaluation waits only for a worker.
        """
        ended = counters.total - counters.pending - sum(counters.outcomes.get(each, 0) for each in _WITHOUT_REQUEST)
        if self._last and self._last[1]:  # the time before the first one is startup time
            self._seconds += now - self._last[0]
            self._count += ended - self._last[1]
        self._last = (now, ended) if is_busy else None


class SpeedRecorder:
    """Measures the speed of a run, and stores it every ten seconds and at the end.

    Args:
        redis: the client.
        account: account of the run.
    """

    def __init__(self, redis: "Redis", account: AccountSettings) -> None:
        self._redis, self._account = redis, account.name
        self._limit = account.settings.rate * account.settings.backfill_share
        self._speed, self._next = BusySpeed(), 0.0

    async def observe(self, counters: RunCounters, now: float, *, is_busy: bool) -> None:
        """Add the evaluations that ended since the last call; see ``BusySpeed.observe``."""
        self._speed.observe(counters, now, is_busy=is_busy)
        if self._speed.per_second and (now >= self._next or not counters.pending):
            self._next = now + _SAVE_SECONDS
            await save_speed(self._redis, self._account, self._speed.per_second, self._limit)


async def save_speed(redis: "Redis", account: str, per_second: float, limit: float) -> None:
    """Store the speed of an account, or delete it if the rate limited it, because it then says nothing about workers.

    Args:
        limit: requests per second that a backfill of the account may send.
    """
    if per_second < limit * _LIMITED:
        await redis.hset(_KEY, account, f"{per_second:.3f}")
    else:
        await redis.hdel(_KEY, account)


async def read_speed(redis: "Redis", account: str) -> float | None:
    """Return the stored speed of an account, or None."""
    text = await redis.hget(_KEY, account)
    try:
        speed = float(text or 0)
    except ValueError:
        return None
    return speed if math.isfinite(speed) and speed > 0 else None
