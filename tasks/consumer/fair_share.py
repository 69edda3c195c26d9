"""How many slots of a process each account may have, so that a slow account leaves room to a fast one.

Evaluations of an account with a low rate wait long for their permits. In one queue with those of another they would
soon have every slot, and all would go at the pace of the slowest. So an account may have at most N times the slots
that are free: one alone has most of them, several share them, and some always stay free. What finds no room
waits in the ledger, apart for each account, and is fetched from there as fast as the account works it off.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator

from tasks.model.job import Queue

_FREE_SLOT_FACTOR = {Queue.LIVE: 4, Queue.BACKFILL: 2}
_MAX_FETCH = 1000


class FairShare:
    """The slots of one process.

    Args:
        concurrency: how many there are.
        accounts: how many accounts this process knows; one alone need share nothing.
    """

    def __init__(self, concurrency: int, accounts: int) -> None:
        self._concurrency, self._shared = concurrency, accounts > 1
        self._taken: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()

    def can_start(self, account: str, queue: Queue) -> bool:
        """Return whether another evaluation of an account may have a slot."""
        if not self._shared:
            return True
        taken, free = self._taken[account], self._free_slots
        # An account that has a slot already does not take the last one.
        return taken < _FREE_SLOT_FACTOR[queue] * free and (free > 1 or not taken)

    @contextlib.contextmanager
    def slot(self, account: str) -> Iterator[None]:
        """Have a slot for as long as the block lasts."""
        self._taken[account] += 1
        try:
            yield
        finally:
            self._taken[account] -= 1
            self._ended[account] += 1

    def fetch_limit(self, account: str) -> int:
        """Return how many of those that wait in the ledger to fetch now.

        That is as many as there is room for, and twice as many as ended since this was asked last.
        """
        ended, self._ended[account] = self._ended[account], 0
        if not self._shared:
            return _MAX_FETCH
        times = _FREE_SLOT_FACTOR[Queue.BACKFILL]
        room = (times * self._free_slots - self._taken[account]) // (times + 1)
        return min(_MAX_FETCH, max(room, 0) + 2 * ended + 1)

    @property
    def _free_slots(self) -> int:
        return max(0, self._concurrency - self._taken.total())
