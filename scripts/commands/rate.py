"""Show how fast an account sends, or change it while the workers run."""

import asyncio

import click
import orjson
from redis.asyncio import Redis

from scripts.console.exit_codes import OK
from scripts.local.processes import known_redis
from tasks.resilience.adaptive_rate import Pace, Rate
from tasks.resilience.holds import Holds
from worker.clients.redis import check_redis, open_redis
from worker.config.accounts import load_accounts
from worker.config.accounts_file import AccountSettings
from worker.config.settings import Settings, load_settings


def rate(asked: float | None, account: str | None, *, forget: bool, as_json: bool) -> int:
    """Show the rate of an account, after setting it where one is asked for; return the exit code.

    Args:
        asked: requests a second for all workers, from now on.
        account: whose.
        forget: go back to the rate of the settings.
    """
    settings = load_settings()
    known = load_accounts(settings).chosen(account)
    with known_redis(settings) as here:
        seen = asyncio.run(_rate(here, known, asked, forget=forget))
    click.echo(orjson.dumps(rate_facts(seen)) if as_json else " ".join(rate_words(seen)))
    return OK


async def _rate(settings: Settings, account: AccountSettings, asked: float | None, *, forget: bool) -> Rate:
    async with open_redis(settings.need_redis_url()) as redis:
        await check_redis(redis)
        if asked is not None or forget:
            await _pace(redis, account).ask(asked)
        return await see_rate(redis, account)


async def see_rate(redis: "Redis", account: AccountSettings) -> Rate:
    """Return how fast an account sends."""
    return await _pace(redis, account).see()


def rate_facts(rate: Rate) -> dict[str, object]:
    """Return a rate for a program."""
    return {
        "asked": rate.asked,
        "kept": round(rate.kept, 3),
        "reached": round(rate.reached, 3),
        "by_hand": rate.by_hand,
        "today": rate.today,
    }


def rate_words(rate: Rate) -> tuple[str, str]:
    """Return a rate for a person: the figure, and what there is to say of it."""
    source = "set by hand" if rate.by_hand else "from the settings"
    if rate.kept < rate.asked:
        source = f"slowed down by RiskOS, {rate.asked:g} are asked for, {source}"
    return f"{rate.kept:.3g}", f"requests a second, {source}; {rate.reached:.3g} over the last minute"


def _pace(redis: "Redis", account: AccountSettings) -> Pace:
    return Pace(redis, account.name, account.settings.rate, Holds(redis), account.shares_rate_with)
