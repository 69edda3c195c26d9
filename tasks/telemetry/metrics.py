"""What the work tells of itself in figures; who counts them is lent, and may be nobody."""

import contextlib
import enum
import time
from collections.abc import Iterator
from typing import Protocol

from tasks.errors import ArchiveError, BlockedError, LeaseLost, PermanentError, RetryableError


class Step(enum.StrEnum):
    """A part of an attempt that takes its time."""

    RATE_LIMIT = "rate_limit"
    """Waiting for a permit to send a request."""
    DOWNLOAD = "download"
    UNPACK = "unpack"
    UPLOAD = "upload"
    TOTAL = "total"
    """The whole attempt."""


class Metrics(Protocol):
    """Who counts. Times are in seconds, sizes in bytes; no ID is ever told."""

    def took(self, step: str, seconds: float, /) -> None:
        """A step took so long."""

    def answered(self, status: int | None, size: int, /) -> None:
        """RiskOS answered with this status, None where no whole answer came, and with a bundle of this size."""

    def uploaded(self, size: int, /) -> None:
        """So much was put into the archive."""

    def stopped(self, cause: str, /) -> None:
        """An attempt was stopped."""

    def ended(self, outcome: str, queue: str, /) -> None:
        """An evaluation has its outcome."""

    def buried(self, cause: str, /) -> None:
        """An evaluation became a dead letter."""

    def lagged(self, seconds: float, /) -> None:
        """A live evaluation had its outcome so long after it was accepted."""


class NullMetrics:
    """Nobody wants to know."""

    def took(self, step: str, seconds: float, /) -> None:
        """See Figures."""

    def answered(self, status: int | None, size: int, /) -> None:
        """See Figures."""

    def uploaded(self, size: int, /) -> None:
        """See Figures."""

    def stopped(self, cause: str, /) -> None:
        """See Figures."""

    def ended(self, outcome: str, queue: str, /) -> None:
        """See Figures."""

    def buried(self, cause: str, /) -> None:
        """See Figures."""

    def lagged(self, seconds: float, /) -> None:
        """See Figures."""


NULL_METRICS = NullMetrics()


@contextlib.contextmanager
def timed(figures: Metrics, step: Step) -> Iterator[None]:
    """Have the block counted as a step, however it ends."""
    began = time.monotonic()
    try:
        yield
    finally:
        figures.took(step, time.monotonic() - began)


def _words(family: type[ArchiveError]) -> Iterator[str]:
    yield family.cause
    for kind in family.__subclasses__():
        yield from _words(kind)


CAUSES = tuple(
    sorted({word for family in (RetryableError, BlockedError, PermanentError, LeaseLost) for word in _words(family)})
)
"""Every word for what stops an attempt. A fault of this program has none of its own: its name may be anything."""
