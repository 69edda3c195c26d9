"""May we work with the archive? While it is on hold one evaluation at a time finds out whether it is well again."""

from tasks.errors import ArchiveHeld
from tasks.resilience.circuit_breaker import CircuitBreaker
from tasks.resilience.holds import ARCHIVE, Hold, Holds, Reason


class ArchiveGate:
    """The gate before the archive.

    Args:
        holds: where its hold is.
        breaker: what watches it.
    """

    def __init__(self, holds: Holds, breaker: CircuitBreaker) -> None:
        self._holds = holds
        self._breaker = breaker
        self._hold: Hold | None = None
        self.generation = 0
        """How often the gate has been closed."""

    def set_hold(self, hold: Hold | None) -> None:
        """Learn whether the archive is on hold. As long as it is not, the gate costs nothing."""
        self.generation += hold is not None and self._hold is None
        self._hold = hold

    async def enter(self) -> Reason | None:
        """Pass; return the hold's reason to the one who is its probe, else None.

        Raises:
            ArchiveHeld: the archive stands still.
        """
        return await self._holds.enter(ARCHIVE) if self._hold else None

    def check_not_closed_since(self, generation: int) -> None:
        """Turn back a caller that entered and then waited for something else, if the gate was closed meanwhile.

        Args:
            generation: the ``generation`` when the caller entered.

        Raises:
            ArchiveHeld: the archive is on hold.
        """
        if self._hold and self.generation > generation:
            raise ArchiveHeld(self._hold.reason, self._hold.remaining)

    async def probe_inconclusive(self) -> None:
        """The probe did not get as far as the archive; another one may be sent at once."""
        await self._holds.release_probe(ARCHIVE)

    async def probe_succeeded(self, reason: Reason, *, has_written: bool) -> None:
        """The probe came to an end: the archive is well again, unless all that was done was reading."""
        if not has_written and reason is not Reason.CANNOT_READ:
            await self.probe_inconclusive()
            return
        await self._holds.end_after_probe(ARCHIVE)
        await self._breaker.reset(ARCHIVE)
        self._hold = None
