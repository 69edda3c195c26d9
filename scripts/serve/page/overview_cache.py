"""What the first sheet shows, seen at most once a second, however many look."""

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
    """What there is to see.

    Attributes:
        overview: everything that is under way, with the newest runs.
        causes: the most frequent causes of dead letters, and how many have each.
        runs: how many runs there are.
    """

    overview: Overview
    causes: Mapping[str, int]
    runs: int


class OverviewCache:
    """Looks at Redis for everybody."""

    def __init__(self, redis: "Redis", accounts: Accounts, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis, self._accounts, self._clock = redis, accounts, clock
        self._lock = asyncio.Lock()
        self._seen: tuple[float, OverviewSnapshot] | None = None

    async def get(self) -> OverviewSnapshot:
        """Return what there is to see."""
        async with self._lock:
            if self._seen is None or self._clock() - self._seen[0] >= _FRESH_SECONDS:
                now, ledger = self._clock(), Ledger(self._redis)
                overview = await read_overview(self._redis, self._accounts, _RUNS)
                causes, runs = await ledger.count_causes(_CAUSES), await ledger.count_runs()
                self._seen = (now, OverviewSnapshot(overview, causes, runs))
            return self._seen[1]

    def clear(self) -> None:
        """Look anew the next time: something was done."""
        self._seen = None
