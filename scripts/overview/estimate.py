"""Estimate how long evaluations take, from the rate, the quota, the recent speed and the parked evaluations."""

from dataclasses import dataclass

from worker.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a backfill takes if nothing interrupts it.

    Attributes:
        requests: number of requests that it needs.
        rate: requests per second that are expected.
        per_day: requests per day that it may send; None without a quota.
        seconds: how long it takes.
        is_measured: whether ``rate`` is the speed that workers reached, and not the configured one.
    """

    requests: int
    rate: float
    per_day: float | None
    seconds: float
    is_measured: bool = False


def estimate_requests(
    requests: int, settings: Settings, *, rate: float, measured: float | None = None, last_due: float = 0.0
) -> Estimate:
    """Return how long requests of a backfill take.

    Args:
        requests: number of requests.
        settings: settings with the shares of rate and quota that it may use.
        rate: requests per second of the account.
        measured: evaluations per second that workers reached; None if that is not known.
        last_due: seconds until the last evaluation that is parked is due.
    """
    share = rate * settings.backfill_share
    is_measured = measured is not None and 0 < measured < share
    speed = measured if measured and is_measured else share
    per_day = settings.quota * (1 - settings.live_reserve) if settings.quota else None
    seconds = requests / speed
    if per_day and requests > per_day:
        seconds = max(seconds, requests / per_day * 86_400)
    return Estimate(requests, speed, per_day, max(seconds, last_due), is_measured)
