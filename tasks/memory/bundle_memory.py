"""Reserve memory for bundles before each request, so that a process only sends requests that it has memory for."""

from contextlib import AbstractAsyncContextManager

from tasks.memory.byte_budget import ByteBudget, Reservation

_FOR_LIVE_DIVISOR = 8
_LARGEST_DIVISOR = 4
_LEAST = 1 << 18
"""Bytes of an answer that the connection buffers before they are read."""
_RECENT = 8
"""Number of recent answers that the moving average of their size covers."""


class BundleMemory:
    """The memory for bundles of a process.

    Args:
        most: bytes for all bundles.
        shares: evaluations that can wait for their permits at the same time, each with its memory. If a slow account
            held all memory while it waits for permits, the other accounts would slow down to its rate.

    Attributes:
        largest: bytes of the largest bundle in memory; larger ones are spooled.
    """

    def __init__(self, most: int, shares: int = 1) -> None:
        self._for_live = most // _FOR_LIVE_DIVISOR
        self._most_ahead = min(self._for_live, (most - self._for_live) // shares)
        self._budget = ByteBudget(most, self._for_live)
        self._expected = 0.0
        self.largest = most // _LARGEST_DIVISOR

    def reserve(self, *, is_live: bool) -> AbstractAsyncContextManager[Reservation]:
        """Reserve the expected size of a bundle; the real size is known when RiskOS answers.

        Args:
            is_live: whether the evaluation is live; live evaluations do not wait behind a backfill.
        """
        return self._budget.reserve(min(max(round(self._expected), _LEAST), self._most_ahead), is_urgent=is_live)

    def record(self, size: int) -> None:
        """Update the expected size with the size of an answer, which is 0 if there was no bundle."""
        self._expected += (size - self._expected) / _RECENT
