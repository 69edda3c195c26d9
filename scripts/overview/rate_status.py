"""How fast an account sends, for commands and for the operations page."""

from redis.asyncio import Redis

from tasks.model.account import Allowance
from tasks.resilience.adaptive_rate import AdaptiveRate, RateStatus
from tasks.resilience.holds import Holds
from worker.config.accounts_file import AccountSettings


async def read_rate(redis: "Redis", account: AccountSettings) -> RateStatus:
    """Return how fast an account sends."""
    return await make_adaptive_rate(redis, account).get_status()


def rate_as_json(rate: RateStatus) -> dict[str, object]:
    """Return a rate for a program."""
    return {
        "configured": rate.configured,
        "effective": round(rate.effective, 3),
        "observed": round(rate.observed, 3),
        "granted": rate.granted,
        "neighbour": rate.neighbour,
        "manual": rate.manual,
        "used_today": rate.used_today,
    }


def describe_rate(rate: RateStatus) -> tuple[str, str]:
    """Return a rate for a person: the figure, and what there is to say of it."""
    source = "set by hand" if rate.manual else "from the settings"
    if rate.effective < rate.configured:
        source = f"{rate.reason}, {rate.configured:g} are asked for, {source}"
    return f"{rate.effective:.3g}", f"requests a second, {source}; {rate.observed:.3g} over the last minute"


def make_adaptive_rate(redis: "Redis", account: AccountSettings) -> AdaptiveRate:
    """Return what knows and sets the rate of an account."""
    return AdaptiveRate(redis, account.name, Allowance.from_settings(account), Holds(redis))
