"""Keep the leases of the evaluations that this process works on."""

import contextlib
from collections.abc import Iterator, Sequence

from tasks import report
from tasks.entry import Entry
from tasks.ledger import Ledger

_PARTS = 4


class Leases:
    """The evaluations under way in this process, and the heartbeat that keeps them ours.

    Args:
        ledger: where the leases are.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._entries: dict[str, Entry] = {}

    @property
    def interval(self) -> float:
        """Seconds between two heartbeats: several may fail before a lease runs out."""
        return self._ledger.lease / _PARTS

    @contextlib.contextmanager
    def kept(self, entries: Sequence[Entry]) -> Iterator[None]:
        """Keep these leases for as long as the block lasts."""
        self._entries |= {entry.eval_id: entry for entry in entries}
        try:
            yield
        finally:
            for entry in entries:
                self.drop(entry)

    def drop(self, entry: Entry) -> None:
        """Let go of an evaluation that has been written into the ledger."""
        if self._entries.get(entry.eval_id) is entry:
            del self._entries[entry.eval_id]

    async def beat(self) -> None:
        """Extend every lease; let go of those that another worker has."""
        beating = dict(self._entries)
        for eval_id in await self._ledger.extend(beating.values()):
            entry = beating[eval_id]
            # Written into the ledger, or taken anew, while we asked: then it was not lost.
            if self._entries.get(eval_id) is entry:
                self.drop(entry)
                with report.about(entry):
                    report.lease_lost()
