"""How long requests take: at the rate, and at the quota."""

from dataclasses import dataclass

from worker.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a backfill takes when nothing comes between.

    Attributes:
        requests: how many it needs.
        rate: requests a second that it may send.
        per_day: requests a day that it may send; None without a quota.
        seconds: how long it takes.
    """

    requests: int
    rate: float
    per_day: float | None
    seconds: float


def estimate_requests(requests: int, settings: Settings, *, rate: float) -> Estimate:
    """Return how long so many requests of a backfill take.

    Args:
        requests: how many.
        settings: what part of rate and quota it may use.
        rate: requests a second of the account.
    """
    share = rate * settings.backfill_share
    a_day = settings.quota * (1 - settings.live_reserve) if settings.quota else None
    seconds = requests / share
    if a_day and requests > a_day:
        seconds = max(seconds, requests / a_day * 86_400)
    return Estimate(requests, share, a_day, seconds)
