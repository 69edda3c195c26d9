"""Divide the bar of a run into a segment for each outcome."""

from collections.abc import Iterator
from dataclasses import dataclass

from tasks.ledger.counters import RunCounters

WIDTH = 1000
"""Width of a whole bar."""


@dataclass(frozen=True, slots=True)
class BarSegment:
    """A segment: ``count`` evaluations of one outcome; ``start`` and ``width`` are parts of ``WIDTH``."""

    outcome: str
    count: int
    start: float
    width: float


def bar_segments(run: RunCounters) -> Iterator[BarSegment]:
    """Yield the segments of a run's bar in the order of the outcomes, without empty ones."""
    start = 0.0
    for outcome, count in run.outcomes.items():
        if count:
            width = WIDTH * count / max(count, run.total)
            yield BarSegment(outcome.value, count, round(start, 2), round(width, 2))
            start += width
