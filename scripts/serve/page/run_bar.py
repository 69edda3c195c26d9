"""How a run stands, as parts of a bar: one for each outcome, and what is left."""

from collections.abc import Iterator
from dataclasses import dataclass

from tasks.ledger.counters import RunCounters

WIDTH = 1000
"""Length of a whole bar."""


@dataclass(frozen=True, slots=True)
class BarSegment:
    """A part of a bar: ``count`` evaluations of one outcome; ``start`` and ``width`` are of ``WIDTH``."""

    outcome: str
    count: int
    start: float
    width: float


def bar_segments(run: RunCounters) -> Iterator[BarSegment]:
    """Yield the parts of a run's bar that there are, in the order of the outcomes."""
    start = 0.0
    for outcome, count in run.outcomes.items():
        if count:
            width = WIDTH * count / run.total
            yield BarSegment(outcome.value, count, round(start, 2), round(width, 2))
            start += width
