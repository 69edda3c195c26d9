"""What an answer's headers say of the rate.

RiskOS sends ``X-Ratelimit-Limit-Window``, ``-Remaining-Window``, ``-Limit-Day`` and ``-Remaining-Day``, and no reset.
Other spellings have been seen: with ``-Reset``, with another window or none, without the ``X-``, ``Retry-After`` and
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
# An unnamed window lasts a second, unless it says that it ends later.
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
    """What one answer says of one window; None if it does not say.

    Attributes:
        seconds: length of the window; None if it has no name and ends later than in a second.
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
    """What one answer says of the rate.

    Attributes:
        windows: the windows that it names, each at most once.
        retry_after: seconds that we are asked to wait, at most a day; None if it does not say.
    """

    windows: tuple[RateLimitWindow, ...] = ()
    retry_after: float | None = None

    @property
    def wait(self) -> float | None:
        """Seconds to wait after a 429."""
        resets = [each.reset for each in self.windows if not each.remaining and each.reset is not None]
        return max(resets, default=None) if self.retry_after is None else self.retry_after

    @property
    def rate(self) -> RateLimitWindow | None:
        """The window that grants the lowest rate, of those shorter than a day whose length is known."""
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
    """Return what the headers of an answer say.

    A time comes as seconds, as an HTTP date, or as seconds or milliseconds since the epoch; which one it is, is
    nowhere documented.

    Args:
        headers: of the answer; names are compared without case.
        now: the time, seconds since the epoch; taken where the answer has no ``Date``.
    """
    # A date is meant by the clock of who says it; ours may be wrong.
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
    """Return the first that says something."""
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
        # Every HTTP date is in GMT, also where it does not say so (RFC 9110, 5.6.7).
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    return None
