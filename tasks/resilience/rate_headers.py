"""Parse the rate limit headers of a response.

RiskOS sends ``X-Ratelimit-Limit-Window``, ``-Remaining-Window``, ``-Limit-Day`` and ``-Remaining-Day``, and no reset.
Other spellings are known: with ``-Reset``, with another window or none, without ``X-``, ``Retry-After`` and
``X-Retry-After``.
"""

import contextlib
import email.utils
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

T = TypeVar("T")
DAY = 24 * 60 * 60.0
# An unnamed window lasts a second, unless its reset says that it ends later.
_UNNAMED = ("", "-window")
_SECONDS = {"-second": 1.0, "-minute": 60.0, "-hour": 3600.0, "-day": DAY}
_SECOND = 1.0
_SHORT_RESET = 1.5
_MAX_WAIT = DAY
_EPOCH = 1_000_000_000
_EPOCH_MILLISECONDS = 1_000_000_000_000
_COUNT = re.compile(r"(\d{1,9})(?:\D.*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class RateLimitWindow:
    """One window in the rate limit headers of a response; values that they do not give are None.

    Attributes:
        seconds: length of the window; None if it has no name and its reset is more than a second away.
        limit: requests that are granted in a window.
        remaining: how many of them are left.
        reset: seconds until the window ends, at most a day.
    """

    seconds: float | None = None
    limit: int | None = None
    remaining: int | None = None
    reset: float | None = None


@dataclass(frozen=True, slots=True)
class RateLimitHeaders:
    """The rate limit headers of one response.

    Attributes:
        windows: the windows that it names, each at most once.
        retry_after: seconds that it asks us to wait, at most a day; None if it does not say.
    """

    windows: tuple[RateLimitWindow, ...] = ()
    retry_after: float | None = None

    @property
    def wait(self) -> float | None:
        """Seconds to wait after a 429; None if the headers do not say."""
        resets = [each.reset for each in self.windows if not each.remaining and each.reset is not None]
        return max(resets, default=None) if self.retry_after is None else self.retry_after

    @property
    def rate(self) -> RateLimitWindow | None:
        """The window with the lowest rate among those that have a known length of less than a day."""
        known = [each for each in self.windows if each.limit and each.seconds and each.seconds < DAY]
        return min(known, key=lambda each: (each.limit or 0) / (each.seconds or DAY), default=None)

    @property
    def day(self) -> RateLimitWindow | None:
        """The window of a day."""
        return next((each for each in self.windows if each.seconds == DAY), None)

    @property
    def is_blocked(self) -> bool:
        """Whether a window grants nothing at all: the account is not activated."""
        return any(each.limit == 0 for each in self.windows)


def parse_rate_limit_headers(headers: Mapping[str, str], now: float) -> RateLimitHeaders:
    """Return the rate limit headers among the headers of a response.

    A time may be given as seconds, as an HTTP date, or as seconds or milliseconds since the epoch; RiskOS does not
    document which.

    Args:
        headers: the headers of the response; their names are not case-sensitive.
        now: the time, in seconds since the epoch; used if the response has no ``Date``.
    """
    # Dates are on the clock of the server; ours may be wrong.
    lowered = {name.lower(): value.strip() for name, value in headers.items()}
    now = _moment(lowered.get("date", "")) or now
    windows = [_window(lowered, suffix, now) for suffix in (*_UNNAMED, *_SECONDS)]
    return RateLimitHeaders(
        tuple(each for each in windows if each != RateLimitWindow(each.seconds)),
        retry_after=_first(_wait(value, now) for value in _values(lowered, "retry-after")),
    )


def _window(headers: Mapping[str, str], suffix: str, now: float) -> RateLimitWindow:
    limit, remaining = (
        _first(map(_count, _values(headers, f"ratelimit-{what}{suffix}"))) for what in ("limit", "remaining")
    )
    reset = _first(_wait(value, now) for value in _values(headers, f"ratelimit-reset{suffix}"))
    seconds = _SECONDS.get(suffix) or (_SECOND if reset is None or reset <= _SHORT_RESET else None)
    return RateLimitWindow(seconds, limit, remaining, reset)


def _values(headers: Mapping[str, str], name: str) -> tuple[str, str]:
    return headers.get(name, ""), headers.get(f"x-{name}", "")


def _first(values: Iterable[T | None]) -> T | None:
    """Return the first value that is not None."""
    return next((value for value in values if value is not None), None)


def _count(value: str) -> int | None:
    found = _COUNT.fullmatch(value)
    return int(found[1]) if found else None


def _wait(value: str, now: float) -> float | None:
    if re.fullmatch(r"\d{1,13}(\.\d{1,6})?", value, re.ASCII):
        seconds = float(value)
        if seconds > _EPOCH_MILLISECONDS:
            seconds /= 1000
        if seconds > _EPOCH:
            seconds -= now
    else:
        moment = _moment(value)
        if moment is None:
            return None
        seconds = moment - now
    return min(max(seconds, 0.0), _MAX_WAIT)


def _moment(value: str) -> float | None:
    """Return an HTTP date as seconds since the epoch."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        date: datetime = email.utils.parsedate_to_datetime(value)
        # Every HTTP date is in GMT, even if it does not say so (RFC 9110, 5.6.7).
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    return None
