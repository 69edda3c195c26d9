"""Draw the requests per second of the last hour as lines of an SVG; the page's style sheet has its colours."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

HOUR = 3600.0
WIDTH, HEIGHT = 1000, 100
Point = tuple[int, float | None, float | None, float | None]
"""A moment, and the requests per second that were configured, allowed and sent then; None if they are not known."""


@dataclass(frozen=True, slots=True)
class RateChart:
    """The chart of an account.

    Attributes:
        configured: the lines of the configured rate, each as the ``points`` of a polyline.
        allowed: those of the rate that RiskOS allows.
        sent: those of the requests that were sent.
        top: requests per second at the upper edge.
        sent_now: requests per second at the last moment; None if they are not known.
        highest: highest number of requests per second that were sent.
        since: the first moment, or None.
        is_short: whether less than an hour is known, as after a start of this process.
    """

    configured: Sequence[str] = ()
    allowed: Sequence[str] = ()
    sent: Sequence[str] = ()
    top: float = 1.0
    sent_now: float | None = None
    highest: float = 0.0
    since: int | None = None
    is_short: bool = False


def draw_chart(recorded: Iterable[Point]) -> RateChart:
    """Return the chart of some points, the oldest first."""
    points = [*recorded]
    if not points:
        return RateChart()
    now, known = points[-1][0], [value for point in points for value in point[1:] if value is not None]
    top = _round_up(max([1.0, *known]))
    configured, allowed, sent = (
        [*_lines(((point[0], point[column]) for point in points), now, top)] for column in (1, 2, 3)
    )
    return RateChart(
        configured=configured,
        allowed=allowed,
        sent=sent,
        top=top,
        sent_now=points[-1][3],
        highest=max((point[3] for point in points if point[3] is not None), default=0.0),
        since=points[0][0],
        is_short=now - points[0][0] < HOUR - 60,
    )


def _lines(values: Iterable[tuple[int, float | None]], now: int, top: float) -> Iterator[str]:
    """Yield a line for each stretch without a gap; of a level part only the ends are kept."""
    line = list[tuple[int, float]]()
    for moment, value in (*values, (now, None)):
        if value is None:
            if line:
                yield " ".join(_place(at, height, now, top) for at, height in line)
            line = []
        elif len(line) > 1 and line[-1][1] == line[-2][1] == value:
            line[-1] = (moment, value)
        else:
            line.append((moment, value))


def _place(moment: int, value: float, now: int, top: float) -> str:
    x, y = WIDTH * (1 - (now - moment) / HOUR), HEIGHT * (1 - value / top)
    return f"{max(0.0, x):.0f},{y:.1f}"


def _round_up(value: float) -> float:
    """Return the next number that is easy to read: 1, 2, 4, 5 or 10 times a power of ten."""
    size = 1.0
    while value > 10 * size:
        size *= 10
    return next(step * size for step in (1, 2, 4, 5, 10) if value <= step * size)
