"""Adapt an account's rate to RiskOS's responses and to the rate that a person set.

The headers say how many requests the key is granted, and how many are left. Requests that we did not send ourselves
come from other clients of the key, such as the customer's own onboarding. That part of the rate is left to them.
Without headers, the rate falls by a fifth with each of several 429s, and rises by a hundredth of the full rate with
every quiet second.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from tasks.model.account import Allowance
from tasks.resilience.holds import KEY_BACKOFF, Hold, Holds, Reason
from tasks.resilience.rate_headers import DAY, RateLimitHeaders
from tasks.resilience.rate_limiter import QUOTA_PROBE_SECONDS, RateLimitScript
from tasks.resilience.window_observer import WindowObserver

_SHORT_RESET = 2.0
_LONG_RESET = 120.0
_SECOND = 1.0
_DAY_LIKELY = 600.0


@dataclass(frozen=True, slots=True)
class RateStatus:
    """The rate of an account.

    Attributes:
        configured: requests per second, from the settings or set manually.
        effective: requests per second that are allowed at the moment.
        manual: whether the rate was set manually.
        used_today: requests on the current day of the quota.
        observed: requests per second over the last minute.
        granted: requests per second that RiskOS's headers grant to the key; None if they do not say.
        neighbour: requests per second that others send with the key; None if the headers do not say.
        daily_limit: requests per day that RiskOS's headers grant to the key; None if they do not say.
    """

    configured: float
    effective: float
    manual: bool
    used_today: int
    observed: float = 0.0
    granted: float | None = None
    neighbour: float | None = None
    daily_limit: int | None = None

    @property
    def reason(self) -> str:
        """Why the effective rate is below the configured one, in words."""
        if self.granted is None or self.neighbour is None:
            return "slowed down by RiskOS"
        return f"RiskOS grants {self.granted:.3g} to the key and others send {self.neighbour:.3g}"


class AdaptiveRate:
    """Adapts the rate of an account, and places the holds that follow from RiskOS's responses.

    Times are in seconds of a monotonic clock.

    Args:
        redis: the client, with ``decode_responses``.
        account: name of the account.
        allowance: the rate and the quota in the settings.
        holds: places the holds.
    """

    def __init__(self, redis: "Redis", account: str, allowance: Allowance, holds: Holds) -> None:
        self._script = RateLimitScript(redis)
        self._observer = WindowObserver(redis, allowance.shared_with or account, allowance)
        self._account, self._allowance = account, allowance
        self._holds = holds
        self._answers = 0

    async def on_headers(self, headers: RateLimitHeaders, sent_at: float, now: float) -> float:
        """Adapt the rate to the headers of a response; return the seconds for which no request should be sent.

        Args:
            headers: the rate limit headers of the response.
            sent_at: when its request was sent.
            now: the time.
        """
        if spent := self._find_spent_limit(headers):
            return await self._hold_for_spent_limit(*spent)
        self._observer.record(headers, sent_at, refused=False)
        is_day_spent = self._is_day_spent(headers)
        is_urgent = is_day_spent or bool(headers.rate and headers.rate.remaining == 0)
        wait = await self._observer.flush(now) if is_urgent or self._observer.is_due(now) else 0.0
        return QUOTA_PROBE_SECONDS if is_day_spent else wait

    def on_success(self) -> None:
        """Record a response other than 429, which ends a series of 429s."""
        self._answers += 1

    async def on_rate_limited(self, headers: RateLimitHeaders, sent_at: float, now: float, *, probe: bool) -> float:
        """Record a 429, and slow down after several; return the seconds for which no request should be sent.

        Args:
            headers: the rate limit headers of the response.
            sent_at: when its request was sent.
            now: the time.
            probe: whether the request was the probe of a hold.
        """
        self._observer.record(headers, sent_at, refused=True)
        until_free = await self._observer.flush(now)
        if headers.wait is None and (spent := self._find_spent_limit(headers)):
            return await self._hold_for_spent_limit(*spent)
        if self._is_day_spent(headers) and not headers.is_blocked:
            return QUOTA_PROBE_SECONDS
        answers, self._answers = self._answers, 0
        requested_wait = -1 if headers.wait is None else round(headers.wait * 1000)
        window_wait = round(until_free * 1000) if headers.rate else -1
        answer = await self._call("rate_limited", requested_wait, int(headers.is_blocked), answers, window_wait)
        name, reason, wait = self._account, Reason(answer[0]), int(answer[1]) / 1000
        if not wait:
            return await self._holds.place_until_probe(name, reason, _NOTES[reason], KEY_BACKOFF, probe=probe)
        if headers.wait is None and headers.rate and wait <= _SECOND:
            return wait  # the next permit is due only then
        note = "RiskOS reports that the quota is spent" if reason is Reason.QUOTA else "RiskOS asks to slow down"
        return await self._holds.place_for(name, reason, note, wait)

    def _find_spent_limit(self, headers: RateLimitHeaders) -> tuple[Reason, float] | None:
        """Return reason and seconds of a hold for a spent window, if its end is known and not near."""
        for each in headers.windows:
            if each.remaining is None or each.remaining > (self._allowance.leave_daily if each.seconds == DAY else 0):
                continue
            wait = (each.seconds if each.seconds != DAY else None) if each.reset is None else each.reset
            if wait is not None and wait >= _SHORT_RESET and each.limit != 0:
                is_day = each.seconds == DAY or (each.seconds is None and wait >= _LONG_RESET)
                return Reason.QUOTA if is_day else Reason.SLOW_DOWN, wait
        return None

    async def _hold_for_spent_limit(self, reason: Reason, wait: float) -> float:
        if reason is Reason.QUOTA:
            await self._call("quota_spent", round(wait * 1000))
        return await self._holds.place_for(self._account, reason, "RiskOS reports that no requests are left", wait)

    def _is_day_spent(self, headers: RateLimitHeaders) -> bool:
        day = headers.day
        return day is not None and day.remaining is not None and day.remaining <= self._allowance.leave_daily

    async def flush(self) -> None:
        """Publish the observations and successes of this process to the others."""
        await self._observer.flush(time.monotonic())
        if self._answers:
            self._answers = 0
            await self._call("answered")

    async def on_hold_ended(self, hold: Hold) -> None:
        """Record that a probe ended a hold. After ten minutes of 429s, assume that the quota's day begins now."""
        if hold.reason is Reason.SLOW_DOWN and hold.age >= _DAY_LIKELY:
            await self._call("new_day")

    async def set_rate(self, rate: float | None) -> None:
        """Set the rate for all processes, effective at once; None for the rate of the settings."""
        await self._call("set_rate", rate or 0)

    async def get_status(self) -> RateStatus:
        """Return the rate of the account."""
        configured, effective, manual, used_today, observed, granted, neighbour, limit = await self._call("status")
        return RateStatus(
            configured=float(configured),
            effective=float(effective),
            manual=bool(int(manual)),
            used_today=int(used_today),
            observed=float(observed),
            granted=float(granted) if granted else None,
            neighbour=float(neighbour) if neighbour else None,
            daily_limit=int(limit) if limit else None,
        )

    async def _call(self, verb: str, *args: float) -> Sequence[str]:
        rate, shared_with = self._allowance.rate, self._allowance.shared_with
        return await self._script.call(self._account, rate, verb, *args, shared_with=shared_with)


_NOTES = {
    Reason.NOT_ACTIVATED: "RiskOS grants this account 0 requests per second: it is not activated yet",
    Reason.SLOW_DOWN: "RiskOS answers every request with 429: the account is not activated yet, or its quota is spent",
}
