"""Show how fast an account sends, or change it while the workers run."""

import asyncio

import click
import orjson

from scripts.console.exit_codes import OK
from scripts.local.processes import known_redis
from scripts.overview.rate_status import pace_of, rate_facts, rate_words, see_rate
from tasks.resilience.adaptive_rate import RateStatus
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


async def _rate(settings: Settings, account: AccountSettings, asked: float | None, *, forget: bool) -> RateStatus:
    async with open_redis(settings.need_redis_url()) as redis:
        await check_redis(redis)
        if asked is not None or forget:
            await pace_of(redis, account).set_rate(asked)
        return await see_rate(redis, account)
