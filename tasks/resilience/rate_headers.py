"""What an answer's headers say of the rate.

RiskOS documents that there are such headers on every response, but not their names. These have been seen:
``X-RateLimit-Limit``, ``-Remaining``, ``-Reset``, ``Retry-After`` and ``X-Retry-After``; the draft of the IETF has the
first three without the ``X-``.
"""

import contextlib
import email.utils
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

T = TypeVar("T")
_NAMES = ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "retry-after")
_MAX_WAIT = 24 * 60 * 60.0
_EPOCH = 1_000_000_000
_EPOCH_MILLISECONDS = 1_000_000_000_000
_COUNT = re.compile(r"(\d{1,9})(?:\D.*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class RateLimitHeaders:
    """What one answer says of the rate; None where it says nothing.

    Attributes:
        limit: requests that are granted in a window.
        remaining: how many of them are left.
        reset: seconds until the window ends, at most a day.
        retry_after: seconds that we are asked to wait, at most a day.
    """

    limit: int | None = None
    remaining: int | None = None
    reset: float | None = None
    retry_after: float | None = None

    @property
    def wait(self) -> float | None:
        """Seconds to wait after a 429."""
        return self.reset if self.retry_after is None else self.retry_after


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
    said = {name: (lowered.get(name, ""), lowered.get(f"x-{name}", "")) for name in _NAMES}
    return RateLimitHeaders(
        limit=_first(_count(value) for value in said["ratelimit-limit"]),
        remaining=_first(_count(value) for value in said["ratelimit-remaining"]),
        reset=_first(_wait(value, now) for value in said["ratelimit-reset"]),
        retry_after=_first(_wait(value, now) for value in said["retry-after"]),
    )


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
