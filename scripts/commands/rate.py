"""Show how fast an account sends, or change it while the workers run."""

import click
import orjson
from redis.asyncio import Redis

from scripts.console.exit_codes import OK
from scripts.console.options import account_option, json_option
from scripts.console.parameter_types import RateType
from scripts.local.processes import run_with_redis
from scripts.overview.rate_status import describe_rate, make_adaptive_rate, rate_as_json, read_rate
from tasks.resilience.adaptive_rate import RateStatus
from worker.config.accounts import load_accounts
from worker.config.accounts_file import AccountSettings
from worker.config.settings import load_settings


@click.command()
@click.argument("requested", metavar="[RATE]", required=False, type=RateType())
@click.option("--from-settings", is_flag=True, help="Use the rate of the settings again.")
@account_option()
@json_option()
def rate(requested: float | None, account: str | None, *, from_settings: bool, as_json: bool) -> int:
    """Show the rate, or set it immediately to RATE requests per second for all workers."""
    if from_settings and requested is not None:
        raise click.UsageError("give a rate or --from-settings, not both")
    settings = load_settings()
    known = load_accounts(settings).select(account)
    seen = run_with_redis(settings, lambda redis: _rate(redis, known, requested, reset=from_settings))
    click.echo(orjson.dumps(rate_as_json(seen)) if as_json else " ".join(describe_rate(seen)))
    return OK


async def _rate(redis: "Redis", account: AccountSettings, requested: float | None, *, reset: bool) -> RateStatus:
    if requested is not None or reset:
        await make_adaptive_rate(redis, account).set_rate(requested)
    return await read_rate(redis, account)
