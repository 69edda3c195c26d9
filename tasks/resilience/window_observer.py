"""Observe in RiskOS's responses how much of an account's rate and day other clients of its key use."""

import importlib.resources

from redis.asyncio import Redis

from tasks.model.account import Allowance
from tasks.resilience.holds import UNUSED_KEY
from tasks.resilience.rate_headers import RateLimitHeaders, RateLimitWindow

# Observations are sent to Redis together, so a high rate costs few round trips.
_FLUSH_SECONDS = 0.2
_UNKNOWN = -1


class WindowObserver:
    """Collects the numbers of requests left in responses, for the estimate that all processes share in Redis.

    Times are in seconds of a monotonic clock.

    Args:
        redis: the client, with ``decode_responses``.
        limited: name of the account whose rate is limited.
        allowance: the rate and the quota in the settings.
    """

    def __init__(self, redis: "Redis", limited: str, allowance: Allowance) -> None:
        self._script = redis.register_script(
            importlib.resources.files("tasks.resilience").joinpath("window_observer.lua").read_text("utf-8")
        )
        self._limited, self._allowance = limited, allowance
        self._window, self._day_limit = RateLimitWindow(), _UNKNOWN
        self._answers: list[tuple[float, int, int]] = []
        self._flushed_at = -_FLUSH_SECONDS

    def record(self, headers: RateLimitHeaders, sent_at: float, *, refused: bool) -> None:
        """Record a response.

        Args:
            headers: the rate limit headers of the response.
            sent_at: when its request was sent.
            refused: whether its status is 429.
        """
        window, day = headers.rate, headers.day
        if window is None and day is None:
            return
        self._window = window or RateLimitWindow()
        self._day_limit = day.limit if day and day.limit is not None else _UNKNOWN
        remaining = day.remaining if day and day.remaining is not None else _UNKNOWN
        self._answers.append((sent_at, _used(window, refused=refused), remaining))

    def is_due(self, now: float) -> bool:
        """Return whether the observations should be sent to Redis."""
        return now - self._flushed_at >= _FLUSH_SECONDS

    async def flush(self, now: float) -> float:
        """Send the observations to Redis; return the seconds for which no request should be sent."""
        answers, self._answers = self._answers, []
        if not answers:
            return 0.0
        self._flushed_at = now
        window, allowance = self._window, self._allowance
        arguments: list[float] = [
            *(round((window.seconds or 0) * 1000), window.limit or 0),
            *(allowance.leave_rate, self._day_limit, allowance.rate),
        ]
        for sent_at, used, remaining in answers:
            arguments += [round((now - sent_at) * 1000, 1), used, remaining]
        (wait,) = await self._script(keys=self._keys(), args=arguments)
        return int(wait) / 1000

    def _keys(self) -> list[str]:
        return [
            f"docv:window:{self._limited}",
            f"docv:pace:{self._limited}",
            f"docv:rate:{self._limited}",
            f"docv:quota:{self._limited}",
            UNUSED_KEY,
            f"docv:rate:{self._limited}:backfill",
        ]


def _used(window: RateLimitWindow | None, *, refused: bool) -> int:
    """Return how many requests a window has counted; one more than its limit if it refused the request."""
    if window is None or window.limit is None or window.remaining is None:
        return _UNKNOWN
    return window.limit + 1 if refused and not window.remaining else max(0, window.limit - window.remaining)
