"""Keep evaluations from an archive on hold; one at a time passes as a probe to find out whether the hold can end."""

from tasks.errors import ArchiveHeld
from tasks.resilience.circuit_breaker import CircuitBreaker
from tasks.resilience.holds import ARCHIVE, Hold, Holds, Reason


class ArchiveGate:
    """The gate in front of the archive.

    Args:
        holds: the holds of all processes.
        breaker: the breaker that watches the archive.
    """

    def __init__(self, holds: Holds, breaker: CircuitBreaker) -> None:
        self._holds = holds
        self._breaker = breaker
        self._hold: Hold | None = None
        self.generation = 0
        """How many times the gate has been closed."""

    def set_hold(self, hold: Hold | None) -> None:
        """Record whether the archive is on hold. While it is not, passing the gate costs no request to Redis."""
        self.generation += hold is not None and self._hold is None
        self._hold = hold

    async def enter(self) -> Reason | None:
        """Pass the gate; return the reason of the hold if the caller is its probe, else None.

        Raises:
            ArchiveHeld: the archive is on hold.
        """
        return await self._holds.enter(ARCHIVE) if self._hold else None

    def check_not_closed_since(self, generation: int) -> None:
        """Raise if the gate was closed after the caller had passed it.

        Args:
            generation: the ``generation`` when the caller passed.

        Raises:
            ArchiveHeld: the archive is on hold.
        """
        if self._hold and self.generation > generation:
            raise ArchiveHeld(self._hold.reason, self._hold.remaining)

    async def release_probe(self) -> None:
        """Record that the probe did not reach the archive; another one may be sent at once."""
        await self._holds.release_probe(ARCHIVE)

    async def record_probe_success(self, reason: Reason, *, has_written: bool) -> None:
        """End the hold after a successful probe; a probe that only read proves nothing if writes had failed."""
        if not has_written and reason is not Reason.CANNOT_READ:
            await self.release_probe()
            return
        await self._holds.end_after_probe(ARCHIVE)
        await self._breaker.reset(ARCHIVE, is_proved=True)
        self._hold = None
