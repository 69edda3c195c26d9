"""Stop an account by hand, and start it again."""

import asyncio

import click
import orjson

from scripts.console.exit_codes import OK
from scripts.console.options import account_option, json_option
from scripts.local.processes import find_redis
from scripts.overview.release_holds import end_holds
from scripts.overview.run_snapshot import describe_end
from tasks.resilience.holds import Hold, Holds, Reason, backfill_of
from worker.clients.redis import check_redis, open_redis
from worker.config.accounts import load_accounts
from worker.config.settings import Settings, load_settings

_LONGEST_NOTE = 200


@click.command()
@click.option("--reason", required=True, help="Why; `status` shows it to whoever wonders.")
@account_option()
@json_option()
def hold(reason: str, account: str | None, *, as_json: bool) -> int:
    """Stop sending requests until `resume`; nothing is lost meanwhile."""
    note = "".join(letter for letter in reason if letter.isprintable())[:_LONGEST_NOTE]
    settings = load_settings()
    name = load_accounts(settings).select(account).name
    with find_redis(settings) as here:
        placed = asyncio.run(_hold(here, name, note))
    if as_json:
        click.echo(orjson.dumps({"holds": [_as_json(placed)]}))
    else:
        click.echo(
            f"{placed.what} is on hold, {describe_end(placed)}. Within a second no worker sends a request with it"
        )
        click.echo("any more; evaluations go on being accepted, and wait.")
    return OK


@click.command()
@account_option("Only those of this account and its backfill.")
@json_option()
def resume(account: str | None, *, as_json: bool) -> int:
    """End every hold, whoever placed it: a person, a refused key, an outage."""
    settings = load_settings()
    name = load_accounts(settings).select(account).name if account else None
    with find_redis(settings) as here:
        ended = asyncio.run(_resume(here, name))
    if as_json:
        click.echo(orjson.dumps({"ended": [_as_json(each) for each in ended]}))
    elif not ended:
        click.echo("nothing is on hold")
    for each in () if as_json else ended:
        click.echo(f"{each.what} goes on; it was on hold ({each.reason}: {each.note})")
        if each.reason is Reason.QUOTA:
            click.echo("while the quota counts as spent it will soon be so again; see DOCV_DAILY_QUOTA")
    return OK


async def _hold(settings: Settings, account: str, note: str) -> Hold:
    async with open_redis(settings.need_redis_url()) as redis:
        await check_redis(redis)
        holds = Holds(redis)
        await holds.place_manual(account, note)
        (placed,) = [each for each in await holds.list_all() if each.scope == account]
        return placed


async def _resume(settings: Settings, account: str | None) -> list[Hold]:
    async with open_redis(settings.need_redis_url()) as redis:
        await check_redis(redis)
        return await end_holds(redis, None if account is None else (account, backfill_of(account)))


def _as_json(hold: Hold) -> dict[str, object]:
    return {"what": hold.what, "reason": hold.reason, "note": hold.note, "lasting_seconds": round(hold.age, 1)}
