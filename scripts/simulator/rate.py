"""The rate and the quota that the simulator enforces, and their headers."""

import enum
import math
from collections import deque
from dataclasses import dataclass

from scripts.simulator.options import RateHeaderStyle, SimulatorOptions

_SECOND = 1.0
# A request that arrived a second ago no longer counts, however its time was rounded.
_ROUNDING = 1e-6


class SlidingSecond:
    """Count the requests within one second, wherever that second begins.

    Attributes:
        total: all requests until now.
        worst: the most requests within any second.
    """

    def __init__(self) -> None:
        self._arrivals: deque[float] = deque()
        self.total = 0
        self.worst = 0

    def count(self, now: float) -> int:
        """Return how many requests arrived less than a second ago.

        Args:
            now: seconds of a monotonic clock.
        """
        while self._arrivals and self._arrivals[0] <= now - _SECOND + _ROUNDING:
            self._arrivals.popleft()
        return len(self._arrivals)

    def add(self, now: float) -> None:
        """Count a request."""
        self._arrivals.append(now)
        self.total += 1
        self.worst = max(self.worst, self.count(now))

    def relief(self, now: float) -> float:
        """Return the seconds until the oldest of the requests no longer counts."""
        return self._arrivals[0] + _SECOND - now if self.count(now) else _SECOND


class SimulatedLimit(enum.Enum):
    """The limits that refuse requests."""

    RATE = "rate"
    """Too many requests in a second."""
    QUOTA = "quota"
    """Too many requests in a day."""


@dataclass(frozen=True, slots=True)
class LimitExceeded:
    """A refusal of a request.

    Attributes:
        limit: the limit that refuses it.
        wait: seconds until another may be granted.
    """

    limit: SimulatedLimit
    wait: float


class SimulatedLimiter:
    """Grant requests within the rate and the quota; a refused request uses neither."""

    def __init__(self) -> None:
        self._granted = SlidingSecond()
        self._today = 0
        self._day_began = -math.inf

    def admit(self, options: SimulatorOptions, now: float) -> LimitExceeded | None:
        """Grant a request, or return why it is refused and how long to wait.

        Args:
            options: rate, quota and length of the day, as they are now.
            now: seconds of a monotonic clock.
        """
        if now - self._day_began >= options.day_seconds:
            self._day_began, self._today = now, 0
        if options.quota is not None and self._today >= options.quota:
            return LimitExceeded(SimulatedLimit.QUOTA, self._day_began + options.day_seconds - now)
        if options.rate is not None and self._granted.count(now) >= options.rate:
            return LimitExceeded(SimulatedLimit.RATE, self._granted.relief(now))
        self._granted.add(now)
        self._today += 1
        return None

    def headers(self, options: SimulatorOptions, now: float) -> dict[str, str]:
        """Return the headers about the rate that every response has."""
        if options.header_style is RateHeaderStyle.RISKOS:
            return self._headers_of_riskos(options, now)
        if options.rate is None or options.header_style is RateHeaderStyle.NONE:
            return {}
        left = max(0, options.rate - self._granted.count(now))
        figures = {"Limit": options.rate, "Remaining": left, "Reset": math.ceil(self._granted.relief(now))}
        mark = _MARK[options.header_style]
        return {f"{mark}RateLimit-{name}": str(figure) for name, figure in figures.items()}

    def _headers_of_riskos(self, options: SimulatorOptions, now: float) -> dict[str, str]:
        used = {"Window": (options.rate, self._granted.count(now)), "Day": (options.quota, self._today)}
        return {
            f"X-Ratelimit-{name}-{window}": str(figure)
            for window, (limit, count) in used.items()
            if limit is not None
            for name, figure in (("Limit", limit), ("Remaining", max(0, limit - count)))
        }


_MARK = {RateHeaderStyle.STANDARD: "", RateHeaderStyle.X: "X-"}


def retry_after(style: RateHeaderStyle, wait: float) -> dict[str, str]:
    """Return the header with the whole seconds that a refused request has to wait; RiskOS sends none."""
    return {f"{_MARK[style]}Retry-After": str(math.ceil(wait))} if style in _MARK else {}
