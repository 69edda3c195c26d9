"""How fast an account may send just now, learnt from what RiskOS says of it and from what a person wants.

The headers say what the key is granted and what is left of it; the rest of what is used is a neighbour's, such as the
customer's own onboarding, and is left to it. Without headers: slower after several 429s (by a fifth with each), faster
again with every quiet second (by a hundredth of the whole).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from tasks.model.account import Allowance
from tasks.resilience.holds import KEY_BACKOFF, Hold, Holds, Reason
from tasks.resilience.rate_headers import DAY, RateLimitHeaders
from tasks.resilience.rate_limiter import QUOTA_LOOK_SECONDS, RateLimitScript
from tasks.resilience.window_observer import WindowObserver

_SHORT_RESET = 2.0
_LONG_RESET = 120.0
_SECOND = 1.0
_DAY_LIKELY = 600.0


@dataclass(frozen=True, slots=True)
class RateStatus:
    """How fast an account sends.

    Attributes:
        configured: requests per second, as in the settings or set manually.
        effective: requests per second that are allowed at the moment.
        manual: whether the rate was set manually.
        used_today: requests of the current day of the quota.
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
        """Why less is sent than is configured, in words."""
        if self.granted is None or self.neighbour is None:
            return "slowed down by RiskOS"
        return f"RiskOS grants {self.granted:.3g} to the key and others send {self.neighbour:.3g}"


class AdaptiveRate:
    """Learns how fast an account may send, and places the holds that follow from it.

    Times are in seconds of a clock that never goes back.

    Args:
        redis: the client, with ``decode_responses``.
        account: name of the account.
        allowance: what it may send by the settings.
        holds: where holds are placed.
    """

    def __init__(self, redis: "Redis", account: str, allowance: Allowance, holds: Holds) -> None:
        self._script = RateLimitScript(redis)
        self._observer = WindowObserver(redis, allowance.shared_with or account, allowance)
        self._account, self._allowance = account, allowance
        self._holds = holds
        self._answers = 0

    async def on_headers(self, headers: RateLimitHeaders, sent_at: float, now: float) -> float:
        """Use what an answer says of the rate before a 429 says it; return how long nothing should be sent.

        Args:
            headers: of the answer.
            sent_at: when its request was sent.
            now: the time.
        """
        if spent := self._spent(headers):
            return await self._hold_for_spent(*spent)
        self._observer.record(headers, sent_at, refused=False)
        is_day_spent = self._is_day_spent(headers)
        is_urgent = is_day_spent or bool(headers.rate and headers.rate.remaining == 0)
        wait = await self._observer.flush(now) if is_urgent or self._observer.is_due(now) else 0.0
        return QUOTA_LOOK_SECONDS if is_day_spent else wait

    def on_success(self) -> None:
        """There was an answer: the next 429 is not one of a row."""
        self._answers += 1

    async def on_rate_limited(self, headers: RateLimitHeaders, sent_at: float, now: float, *, probe: bool) -> float:
        """RiskOS answered 429: slow down if it does so again and again; return how long nothing should be sent."""
        self._observer.record(headers, sent_at, refused=True)
        room_in = await self._observer.flush(now)
        if headers.wait is None and (spent := self._spent(headers)):
            return await self._hold_for_spent(*spent)
        if self._is_day_spent(headers) and not headers.is_blocked:
            return QUOTA_LOOK_SECONDS
        answers, self._answers = self._answers, 0
        asked = -1 if headers.wait is None else round(headers.wait * 1000)
        window_wait = round(room_in * 1000) if headers.rate else -1
        reason, milliseconds = await self._call("rate_limited", asked, int(headers.is_blocked), answers, window_wait)
        name, why, wait = self._account, Reason(reason), int(milliseconds) / 1000
        if not wait:
            return await self._holds.place_until_probe(name, why, _NOTES[why], KEY_BACKOFF, probe=probe)
        if headers.wait is None and headers.rate and wait <= _SECOND:
            return wait  # the next permit is due only then
        note = "RiskOS says the quota is spent" if why is Reason.QUOTA else "RiskOS asks to slow down"
        return await self._holds.place_for(name, why, note, wait)

    def _spent(self, headers: RateLimitHeaders) -> tuple[Reason, float] | None:
        """Return the hold for a window that is spent, if its end is known and not near."""
        for each in headers.windows:
            if each.remaining is None or each.remaining > (self._allowance.leave_daily if each.seconds == DAY else 0):
                continue
            wait = (each.seconds if each.seconds != DAY else None) if each.reset is None else each.reset
            if wait is not None and wait >= _SHORT_RESET and each.limit != 0:
                is_day = each.seconds == DAY or (each.seconds is None and wait >= _LONG_RESET)
                return Reason.QUOTA if is_day else Reason.SLOW_DOWN, wait
        return None

    async def _hold_for_spent(self, reason: Reason, wait: float) -> float:
        if reason is Reason.QUOTA:
            await self._call("quota_spent", round(wait * 1000))
        return await self._holds.place_for(self._account, reason, "RiskOS says none is left", wait)

    def _is_day_spent(self, headers: RateLimitHeaders) -> bool:
        day = headers.day
        return day is not None and day.remaining is not None and day.remaining <= self._allowance.leave_daily

    async def flush(self) -> None:
        """Tell the other processes that there were answers, and what they said."""
        await self._observer.flush(time.monotonic())
        if self._answers:
            self._answers = 0
            await self._call("answered")

    async def on_hold_ended(self, hold: Hold) -> None:
        """A probe ended a hold. Where 429s had lasted that long, it was the quota, and its day begins now."""
        if hold.reason is Reason.SLOW_DOWN and hold.age >= _DAY_LIKELY:
            await self._call("new_day")

    async def set_rate(self, rate: float | None) -> None:
        """Set the rate for all processes, at once; None for that of the settings."""
        await self._call("set_rate", rate or 0)

    async def get_status(self) -> RateStatus:
        """Return how fast the account sends."""
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
    Reason.NOT_ACTIVATED: "RiskOS grants this account 0 requests a second: it is not activated yet",
    Reason.SLOW_DOWN: "RiskOS answers every request with 429: the account is not activated yet, or its quota is spent",
}
