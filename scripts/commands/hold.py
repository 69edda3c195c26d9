"""Stop an account by hand, and start it again."""

import click
import orjson
from redis.asyncio import Redis

from scripts.console.exit_codes import OK
from scripts.console.options import account_option, json_option
from scripts.local.processes import run_with_redis
from scripts.overview.release_holds import end_holds
from scripts.overview.run_snapshot import describe_end
from tasks.resilience.holds import Hold, Holds, Reason, backfill_of
from worker.config.accounts import load_accounts
from worker.config.settings import load_settings


@click.command()
@click.option("--reason", required=True, help="Why; `status` shows it to whoever wonders.")
@account_option()
@json_option()
def hold(reason: str, account: str | None, *, as_json: bool) -> int:
    """Stop sending requests until `resume`; nothing is lost meanwhile."""
    note = "".join(letter for letter in reason if letter.isprintable())[:200]
    settings = load_settings()
    name = load_accounts(settings).select(account).name
    placed = run_with_redis(settings, lambda redis: _hold(redis, name, note))
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
    scopes = (name, backfill_of(name)) if name else None
    ended = run_with_redis(settings, lambda redis: end_holds(redis, scopes))
    if as_json:
        click.echo(orjson.dumps({"ended": [_as_json(each) for each in ended]}))
    elif not ended:
        click.echo("nothing is on hold")
    for each in () if as_json else ended:
        click.echo(f"{each.what} goes on; it was on hold ({each.reason}: {each.note})")
        if each.reason is Reason.QUOTA:
            click.echo("while the quota counts as spent it will soon be so again; see DOCV_DAILY_QUOTA")
    return OK


async def _hold(redis: "Redis", account: str, note: str) -> Hold:
    holds = Holds(redis)
    await holds.place_manual(account, note)
    (placed,) = [each for each in await holds.list_all() if each.scope == account]
    return placed


def _as_json(hold: Hold) -> dict[str, object]:
    return {"what": hold.what, "reason": hold.reason, "note": hold.note, "lasting_seconds": round(hold.age, 1)}
