"""Place holds manually, and end holds."""

from collections.abc import Collection

import click
import orjson
from redis.asyncio import Redis

from scripts.console.exit_codes import OK
from scripts.console.operator_name import by_option, operator_name
from scripts.console.options import account_option, json_option
from scripts.local.processes import run_with_redis
from scripts.overview.release_holds import end_hold, end_holds, find_hold
from scripts.overview.run_snapshot import describe_end, placed_by
from tasks.model.run_name import parse_run
from tasks.resilience.holds import Hold, Holds, Reason, backfill_of, scope_of_run
from tasks.resilience.run_holds import list_run_holds
from worker.config.accounts import load_accounts
from worker.config.settings import Settings, load_settings


@click.command()
@click.option("--reason", required=True, help="Reason that `status` and the operations page show.")
@account_option()
@click.option("--replace", is_flag=True, help="Replace another operator's hold and its reason.")
@by_option
@json_option()
def hold(reason: str, account: str | None, *, replace: bool, by: str | None, as_json: bool) -> int:
    """Stop sending requests until `resume`; no evaluation is lost."""
    who = operator_name(by)
    note = "".join(letter for letter in reason if letter.isprintable())[:200]
    settings = load_settings()
    name = load_accounts(settings).select(account).name
    placed = run_with_redis(settings, lambda redis: _hold(redis, name, note, who, replace=replace))
    if as_json:
        click.echo(orjson.dumps({"holds": [_as_json(placed)]}))
    else:
        click.echo(
            f"{placed.what} is on hold, {describe_end(placed)}. Workers stop sending its requests within a second;"
        )
        click.echo("evaluations are still accepted, and wait.")
    return OK


@click.command()
@account_option("End only the holds of this account and its backfill.")
@click.option("--run", metavar="RUN", help="End only the hold of this run; needs --accept-refusals.")
@click.option("--accept-refusals", is_flag=True, help="Continue --run even if RiskOS has had no documents so far.")
@json_option()
def resume(account: str | None, run: str | None, *, accept_refusals: bool, as_json: bool) -> int:
    """End the holds of accounts and the archive, whatever their reason.

    A run that is on hold because RiskOS had no documents for its first 200 evaluations stays on hold unless
    `--run RUN --accept-refusals` is given.
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
        click.echo(f"{each.what} continues; it was on hold ({each.reason}: {each.note})")
        if each.reason is Reason.QUOTA:
            click.echo("it will soon be on hold again if its quota is still spent; see DOCV_DAILY_QUOTA")
    for each in () if as_json else left:
        click.echo(f"{each.what} stays on hold ({each.reason}), {describe_end(each)}")
    return OK


async def _resume(redis: "Redis", scopes: Collection[str] | None) -> tuple[list[Hold], list[Hold]]:
    """End the holds of accounts and the archive; return them, and the holds of runs, which stay."""
    return await end_holds(redis, scopes), [] if scopes else await list_run_holds(redis)


def _resume_run(settings: Settings, run: str | None, account: str | None, *, accept_refusals: bool) -> list[Hold]:
    """End the hold of a run and return it.

    Raises:
        click.UsageError: the options do not fit each other, or the run is not on hold.
    """
    if run is None or account:
        raise click.UsageError("--accept-refusals is for one run: give --run, and leave out --account")
    if not accept_refusals:
        raise click.UsageError(
            f"run {parse_run(run)} continues only with --accept-refusals, because RiskOS had no documents for the "
            "first evaluations"
        )
    scope = scope_of_run(parse_run(run))

    async def end(redis: "Redis") -> Hold | None:
        found = await find_hold(redis, scope)
        return found if found and await end_hold(redis, scope) else None

    if ended := run_with_redis(settings, end):
        return [ended]
    raise click.UsageError(f"run {run} is not on hold for its refusals; `docv-archive status` lists what is on hold")


async def _hold(redis: "Redis", account: str, note: str, by: str, *, replace: bool) -> Hold:
    holds = Holds(redis)
    is_placed = await holds.place_manual(account, note, by=by, replace=replace)
    (found,) = [each for each in await holds.list_all() if each.scope == account]
    if not is_placed:
        raise click.UsageError(
            f"{found.what} is already on hold{placed_by(found)} ({found.note}); use --replace to replace that hold"
        )
    return found


def _as_json(hold: Hold) -> dict[str, object]:
    return {
        "what": hold.what,
        "reason": hold.reason,
        "note": hold.note,
        "by": hold.by or None,
        "lasting_seconds": round(hold.age, 1),
    }
