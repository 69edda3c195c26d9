"""The rate of an account, for commands and for the operations page."""

from redis.asyncio import Redis

from scripts.console.formatting import format_number
from tasks.model.account import Allowance
from tasks.resilience.adaptive_rate import AdaptiveRate, RateStatus
from tasks.resilience.holds import Holds
from worker.config.accounts_file import AccountSettings


async def read_rate(redis: "Redis", account: AccountSettings) -> RateStatus:
    """Return the rate of an account."""
    return await make_adaptive_rate(redis, account).get_status()


def rate_as_json(rate: RateStatus) -> dict[str, object]:
    """Return a rate as JSON."""
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
    """Return a rate for people: the number, and the words that follow it."""
    source = "set by hand" if rate.manual else "from the settings"
    if rate.effective < rate.configured:
        source = f"{rate.reason}, {format_number(rate.configured)} configured, {source}"
    lately = f"{format_number(rate.observed)} over the last minute"
    figure = format_number(rate.effective)
    return figure, f"request{'s' * (figure != '1')} per second, {source}; {lately}"


def make_adaptive_rate(redis: "Redis", account: AccountSettings) -> AdaptiveRate:
    """Return the object that reads and sets the rate of an account."""
    return AdaptiveRate(redis, account.name, Allowance.from_settings(account), Holds(redis))
