"""Stop an account by hand, and start it again."""

from collections.abc import Collection

import click
import orjson
from redis.asyncio import Redis

from scripts.console.exit_codes import OK
from scripts.console.options import account_option, json_option
from scripts.local.processes import run_with_redis
from scripts.overview.release_holds import end_hold, end_holds, find_hold
from scripts.overview.run_snapshot import describe_end
from tasks.queueing.message import parse_run
from tasks.resilience.holds import Hold, Holds, Reason, backfill_of, scope_of_run
from tasks.resilience.run_holds import list_run_holds
from worker.config.accounts import load_accounts
from worker.config.settings import Settings, load_settings


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
@click.option("--run", metavar="RUN", help="Only that of this run; needs --accept-refusals.")
@click.option("--accept-refusals", is_flag=True, help="Go on with --run although RiskOS had no documents so far.")
@json_option()
def resume(account: str | None, run: str | None, *, accept_refusals: bool, as_json: bool) -> int:
    """End the holds of accounts and the archive, whatever their reason.

    A run that is on hold because RiskOS had no documents for its first 200 evaluations stays on hold, except with
    `--run RUN --accept-refusals`.
    """
    settings = load_settings()
    if run is not None or accept_refusals:
        ended, left = _resume_run(settings, run, account, accept_refusals=accept_refusals), list[Hold]()
    else:
        name = load_accounts(settings).select(account).name if account else None
        scopes = (name, backfill_of(name)) if name else None
        ended, left = run_with_redis(settings, lambda redis: _resume(redis, scopes))
    if as_json:
        click.echo(orjson.dumps({"ended": [_as_json(each) for each in ended]}))
    elif not ended and not left:
        click.echo("nothing is on hold")
    for each in () if as_json else ended:
        click.echo(f"{each.what} goes on; it was on hold ({each.reason}: {each.note})")
        if each.reason is Reason.QUOTA:
            click.echo("while the quota counts as spent it will soon be so again; see DOCV_DAILY_QUOTA")
    for each in () if as_json else left:
        click.echo(f"{each.what} stays on hold ({each.reason}), {describe_end(each)}")
    return OK


async def _resume(redis: "Redis", scopes: Collection[str] | None) -> tuple[list[Hold], list[Hold]]:
    """End holds; return them, and those of runs, which stay."""
    return await end_holds(redis, scopes), [] if scopes else await list_run_holds(redis)


def _resume_run(settings: Settings, run: str | None, account: str | None, *, accept_refusals: bool) -> list[Hold]:
    """End the hold of a run and return it.

    Raises:
        click.UsageError: the options do not fit each other, or the run is not on hold.
    """
    if run is None or account:
        raise click.UsageError("--accept-refusals concerns one run: name it with --run, and no --account")
    if not accept_refusals:
        raise click.UsageError(
            f"run {parse_run(run)} goes on only with --accept-refusals: RiskOS had no documents in its first answers"
        )
    scope = scope_of_run(parse_run(run))

    async def end(redis: "Redis") -> Hold | None:
        found = await find_hold(redis, scope)
        return found if found and await end_hold(redis, scope) else None

    if ended := run_with_redis(settings, end):
        return [ended]
    raise click.UsageError(f"run {run} is not on hold for its refusals; `docv-archive status` lists what is on hold")


async def _hold(redis: "Redis", account: str, note: str) -> Hold:
    holds = Holds(redis)
    await holds.place_manual(account, note)
    (placed,) = [each for each in await holds.list_all() if each.scope == account]
    return placed


def _as_json(hold: Hold) -> dict[str, object]:
    return {"what": hold.what, "reason": hold.reason, "note": hold.note, "lasting_seconds": round(hold.age, 1)}
