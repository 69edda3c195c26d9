"""May we work with the archive? While it is on hold one evaluation at a time finds out whether it is well again."""

from tasks.errors import ArchiveHeld
from tasks.model.outcome import Outcome
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
        self._closings = 0

    @property
    def closings(self) -> int:
        """How often it has been closed."""
        return self._closings

    def notice(self, hold: Hold | None) -> None:
        """Learn whether the archive is on hold. As long as it is not, the gate costs nothing."""
        self._closings += hold is not None and self._hold is None
        self._hold = hold

    async def enter(self) -> Reason | None:
        """Pass; return the hold's reason to the one who is its probe, else None.

        Raises:
            ArchiveHeld: the archive stands still.
        """
        return await self._holds.enter(ARCHIVE) if self._hold else None

    def check_open_since(self, closings: int) -> None:
        """Turn back who has entered and waited for something else, where it has been closed since then.

        Args:
            closings: what there had been when he entered.

        Raises:
            ArchiveHeld: the archive stands still.
        """
        if self._hold and self._closings > closings:
            raise ArchiveHeld(self._hold.reason, self._hold.left)

    async def proved_nothing(self) -> None:
        """The probe did not get as far as the archive; another one may be sent at once."""
        await self._holds.let_another_probe(ARCHIVE)

    async def proved(self, reason: Reason, outcome: Outcome) -> None:
        """The probe came to an end: the archive is well again, unless all that was done was reading."""
        if outcome is Outcome.UNCHANGED and reason is not Reason.CANNOT_READ:
            await self.proved_nothing()
            return
        await self._holds.recovered(ARCHIVE)
        await self._breaker.forget(ARCHIVE)
        self._hold = None
