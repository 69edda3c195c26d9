"""How fast an account may send just now, learnt from what RiskOS says of it and from what a person wants.

Slower after several 429s (by a fifth with each), faster again with every quiet second (by a hundredth of the whole),
never above what the headers grant.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from tasks.resilience.holds import KEY_BACKOFF, Hold, Holds, Reason
from tasks.resilience.rate_headers import RateLimitHeaders
from tasks.resilience.rate_limiter import RateLimitScript

_SECOND = 1.5
_SHORT_RESET = 2.0
_LONG_RESET = 120.0
_BELIEVED = 600.0
_TOLD_AGAIN = 300.0
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
    """

    configured: float
    effective: float
    manual: bool
    used_today: int
    observed: float = 0.0


class AdaptiveRate:
    """Learns how fast an account may send, and places the holds that follow from it.

    Args:
        redis: the client, with ``decode_responses``.
        account: name of the account.
        rate: requests a second, as in the settings.
        holds: where holds are placed.
        shared_with: name of the account whose rate and quota it shares; None where they are its own.
    """

    def __init__(self, redis: "Redis", account: str, rate: float, holds: Holds, shared_with: str | None = None) -> None:
        self._script = RateLimitScript(redis)
        self._shared_with = shared_with
        self._account, self._rate = account, rate
        self._holds = holds
        self._answers = 0
        self._granted: int | None = None
        self._granted_at = 0.0

    async def on_headers(self, headers: RateLimitHeaders, now: float) -> float:
        """Use what an answer says of the rate before a 429 says it; return for how long the account now stands still.

        Args:
            now: seconds of a clock that never goes back.
        """
        if headers.remaining == 0 and headers.reset is not None and headers.reset >= _SHORT_RESET:
            reason = Reason.QUOTA if headers.reset >= _LONG_RESET else Reason.SLOW_DOWN
            if reason is Reason.QUOTA:
                await self._call("quota_spent", round(headers.reset * 1000))
            return await self._holds.place_for(self._account, reason, "RiskOS says none is left", headers.reset)
        # How long a window lasts is not said; one that ends within a second is taken to be a second.
        if not headers.limit or headers.reset is None or headers.reset > _SECOND:
            return 0.0
        if headers.limit != self._granted or now - self._granted_at >= _TOLD_AGAIN:
            self._granted, self._granted_at = headers.limit, now
            await self._call("rate_granted", headers.limit, _BELIEVED * 1000)
        return 0.0

    def on_success(self) -> None:
        """There was an answer: the next 429 is not one of a row."""
        self._answers += 1

    async def on_rate_limited(self, headers: RateLimitHeaders, *, probe: bool) -> float:
        """RiskOS answered 429: slow down where it does so again and again; return for how long nobody sends."""
        answers, self._answers = self._answers, 0
        asked = -1 if headers.wait is None else round(headers.wait * 1000)
        limit = -1 if headers.limit is None else headers.limit
        reason, milliseconds = await self._call("rate_limited", asked, limit, answers)
        name, why = self._account, Reason(reason)
        if int(milliseconds):
            note = "RiskOS says the quota is spent" if why is Reason.QUOTA else "RiskOS asks to slow down"
            return await self._holds.place_for(name, why, note, int(milliseconds) / 1000)
        return await self._holds.place_until_probe(name, why, _NOTES[why], KEY_BACKOFF, probe=probe)

    async def flush(self) -> None:
        """Tell the other processes that there were answers."""
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
        configured, effective, manual, used_today, observed = await self._call("status")
        return RateStatus(
            configured=float(configured),
            effective=float(effective),
            manual=bool(int(manual)),
            used_today=int(used_today),
            observed=float(observed),
        )

    async def _call(self, verb: str, *args: float) -> Sequence[str]:
        return await self._script.call(self._account, self._rate, verb, *args, shared_with=self._shared_with)


_NOTES = {
    Reason.NOT_ACTIVATED: "RiskOS grants this account 0 requests a second: it is not activated yet",
    Reason.SLOW_DOWN: "RiskOS answers every request with 429: the account is not activated yet, or its quota is spent",
}
