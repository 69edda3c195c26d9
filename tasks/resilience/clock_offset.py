"""What time it is here when a clock elsewhere, such as Redis's, shows so much."""

from collections import deque

_SECONDS = 10.0
_ANSWERS = 64


class ClockOffset:
    """A clock elsewhere, learnt from its answers; all times are in seconds.

    An answer was given before we had it, by as long as it took on its way, and lay here until we came to read it. The
    quickest one of the last few says best what the clocks differ by: by no less than that, and by hardly more. Clocks
    drift, and are set: what is older is forgotten, and so is all of it when an answer contradicts it.
    """

    def __init__(self) -> None:
        self._differences: deque[tuple[float, float]] = deque(maxlen=_ANSWERS)

    def heard(self, asked: float, there: float, heard: float) -> None:
        """Learn from an answer.

        Args:
            asked: when we asked, by our clock, which never goes back.
            there: what the other clock showed when it answered.
            heard: when we had the answer, by our clock.
        """
        while self._differences and self._differences[0][0] < heard - _SECONDS:
            self._differences.popleft()
        if self._differences and asked - there > self._least:
            self._differences.clear()
        self._differences.append((heard, heard - there))

    def here(self, there: float) -> float:
        """Return what our clock shows, at the latest, when the other one shows so much; it has answered before."""
        return there + self._least

    @property
    def _least(self) -> float:
        return min(difference for _, difference in self._differences)
