"""Keep the leases of the evaluations that this process works on."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from tasks.errors import LeaseLost
from tasks.ledger.ledger import Ledger
from tasks.model.job import Job
from tasks.telemetry import log_events

_PARTS = 4


class LeaseKeeper:
    """The evaluations under way in this process, and the heartbeat that keeps them ours.

    Args:
        ledger: where the leases are.
        clock: seconds of a clock that never goes back.
    """

    def __init__(self, ledger: Ledger, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger, self._clock = ledger, clock
        self._entries: dict[str, Job] = {}
        self._kept_at: dict[str, float] = {}

    @property
    def interval(self) -> float:
        """Seconds between two heartbeats: several may fail before a lease runs out."""
        return self._ledger.lease / _PARTS

    @contextlib.contextmanager
    def kept(self, entries: Sequence[Job]) -> Iterator[None]:
        """Keep these leases for as long as the block lasts."""
        self._entries |= {entry.eval_id: entry for entry in entries}
        self._kept_at |= dict.fromkeys((entry.eval_id for entry in entries), self._clock())
        try:
            yield
        finally:
            for entry in entries:
                self.drop(entry)

    def drop(self, entry: Job) -> None:
        """Let go of an evaluation that has been written into the ledger."""
        if self._entries.get(entry.eval_id) is entry:
            del self._entries[entry.eval_id], self._kept_at[entry.eval_id]

    async def confirm(self, entry: Job) -> None:
        """See that an evaluation is still ours, before something is written that nobody would take away again.

        Redis is asked only where the last heartbeat was so long ago that the lease may have run out: this process stood
        still, or Redis was away. The evaluation may have been erased since then.

        Raises:
            LeaseLost: it is not ours any more.
            RedisError: Redis does not tell.
        """
        if self._entries.get(entry.eval_id) is not entry:
            raise LeaseLost
        now = self._clock()
        if now - self._kept_at[entry.eval_id] < self._ledger.lease - self.interval:
            return
        if await self._ledger.extend([entry]):
            raise LeaseLost
        self._kept_at[entry.eval_id] = now

    async def beat(self) -> None:
        """Extend every lease; let go of those that another worker has."""
        beating, began = dict(self._entries), self._clock()
        lost = await self._ledger.extend(beating.values())
        self._kept_at |= dict.fromkeys(self._kept_at.keys() & beating.keys() - set(lost), began)
        for eval_id in lost:
            entry = beating[eval_id]
            # Written into the ledger, or taken anew, while we asked: then it was not lost.
            if self._entries.get(eval_id) is entry:
                self.drop(entry)
                with log_events.about(entry):
                    log_events.lease_lost()
