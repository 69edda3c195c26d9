"""Limit the slots of each account in a process, so that a slow account leaves some to the others.

Evaluations of an account with a low rate wait long for their permits. In a queue shared with other accounts they would
soon occupy every slot, and all accounts would be as slow as the slowest. So an account may have at most N times as many
slots as are free: a single account has most of them, several share them, and some always stay free. The other
evaluations wait in the ledger, separately for each account, and are fetched as fast as the account processes them.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator

from tasks.model.job import Queue

_FREE_SLOT_FACTOR = {Queue.LIVE: 4, Queue.BACKFILL: 2}
_MAX_FETCH = 1000


class FairShare:
    """Shares the slots of one process among its accounts.

    Args:
        concurrency: slots of the process.
        accounts: accounts that the process knows; a single one is not limited.
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
        """Count a slot of an account for as long as the block lasts."""
        self._taken[account] += 1
        try:
            yield
        finally:
            self._taken[account] -= 1
            self._ended[account] += 1

    def fetch_limit(self, account: str) -> int:
        """Return how many of an account's evaluations that wait in the ledger to fetch now.

        These are as many as may have a slot, twice as many as ended since the last call, and one more.
        """
        ended, self._ended[account] = self._ended[account], 0
        if not self._shared:
            return _MAX_FETCH
        factor = _FREE_SLOT_FACTOR[Queue.BACKFILL]
        startable = (factor * self._free_slots - self._taken[account]) // (factor + 1)
        return min(_MAX_FETCH, max(startable, 0) + 2 * ended + 1)

    @property
    def _free_slots(self) -> int:
        return max(0, self._concurrency - self._taken.total())
