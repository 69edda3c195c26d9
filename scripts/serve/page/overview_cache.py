"""Read the data of the overview from Redis at most once per second, regardless of the number of viewers."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from redis.asyncio import Redis

from scripts.overview.overview import Overview, read_overview
from tasks.ledger.ledger import Ledger
from worker.config.accounts import Accounts

_FRESH_SECONDS = 1.0
_RUNS = 8
_CAUSES = 8


@dataclass(frozen=True, slots=True)
class OverviewSnapshot:
    """The data of the overview at one moment.

    Attributes:
        overview: everything that is under way, with the newest runs.
        causes: the most frequent causes of dead letters, each with its number of dead letters.
        runs: number of runs.
    """

    overview: Overview
    causes: Mapping[str, int]
    runs: int


class OverviewCache:
    """Shares one snapshot among all callers."""

    def __init__(self, redis: "Redis", accounts: Accounts, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis, self._accounts, self._clock = redis, accounts, clock
        self._lock = asyncio.Lock()
        self._seen: tuple[float, OverviewSnapshot] | None = None

    async def get(self) -> OverviewSnapshot:
        """Return a snapshot that is at most a second old."""
        async with self._lock:
            if self._seen is None or self._clock() - self._seen[0] >= _FRESH_SECONDS:
                now, ledger = self._clock(), Ledger(self._redis)
                overview = await read_overview(self._redis, self._accounts, _RUNS)
                causes, runs = await ledger.dead_letters.count_causes(_CAUSES), await ledger.runs.count()
                self._seen = (now, OverviewSnapshot(overview, causes, runs))
            return self._seen[1]

    def clear(self) -> None:
        """Read a new snapshot the next time, since an action has changed something."""
        self._seen = None
