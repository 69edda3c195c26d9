"""Show what is under way: queues, holds, runs, dead letters; or the counters of one run."""

import click
import orjson
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from scripts.console.exit_codes import NOT_ALL, OK, USAGE
from scripts.console.formatting import format_duration
from scripts.console.options import json_option
from scripts.console.summary import RunSummary, print_summary, unchanged_as_json
from scripts.local.processes import run_with_redis
from scripts.overview.overview import Overview, read_overview
from scripts.overview.rate_status import describe_rate, rate_as_json
from scripts.overview.release_holds import find_hold
from scripts.overview.run_snapshot import describe_end
from tasks.ledger.ledger import Ledger
from tasks.queueing.message import parse_run
from tasks.resilience.holds import Hold, scope_of_run
from worker.config.accounts import load_accounts
from worker.config.settings import load_settings


@click.command()
@click.argument("run_name", metavar="[RUN]", required=False)
@json_option()
def status(run_name: str | None, *, as_json: bool) -> int:
    """Show queues, holds, runs and dead letters, or the counters of one RUN."""
    settings = load_settings()
    accounts = load_accounts(settings)
    if run_name is not None:
        name = parse_run(run_name)
        return run_with_redis(settings, lambda redis: _print_run(redis, name, as_json=as_json))
    overview = run_with_redis(settings, lambda redis: read_overview(redis, accounts))
    if as_json:
        click.echo(_as_json(overview))
    else:
        _print(overview)
    return OK


async def _print_run(redis: "Redis", name: str, *, as_json: bool) -> int:
    ledger = Ledger(redis)
    counters = await ledger.get_run(name)
    since = await ledger.get_run_age(name)
    if since is None:
        click.echo(f"docv-archive: there is no run {name}; `docv-archive status` lists them", err=True)
        return USAGE
    hold = await find_hold(redis, scope_of_run(name))
    summary = RunSummary(run=name, counters=counters, seconds=since, hold=hold)
    print_summary(summary, as_json=as_json)
    return OK if summary.is_ok else NOT_ALL


def _as_json(overview: Overview) -> bytes:
    census = overview.stats
    return orjson.dumps(
        {
            "queues": {
                queue.value: {
                    "evaluations": census.queued[queue],
                    "oldest_seconds": round(census.oldest[queue], 1),
                    "workers": overview.workers[queue],
                }
                for queue in census.queued
            },
            "in_flight": census.leased,
            "parked": census.parked,
            "held": sum(census.held.values()),
            "next_due_seconds": census.next_due,
            "dead_letters": census.dead_letters,
            "refused_messages": overview.rejected,
            "rate": rate_as_json(overview.rate),
            "holds": [_hold_as_json(hold) for hold in overview.holds],
            "accounts": {
                each.name: {
                    "environment": each.settings.environment,
                    "shares_rate_with": each.shares_rate_with,
                    "rate": rate_as_json(overview.rates[each.name]),
                    "quota": each.settings.quota,
                    "held": census.held_by_account.get(each.name, 0),
                    "holds": [_hold_as_json(hold) for hold in overview.holds_of(each.name)],
                }
                for each in overview.accounts
            },
            "unknown_accounts": overview.unknown_accounts,
            "runs": {
                name: {
                    "total": run.total,
                    "pending": run.pending,
                    "seconds_left": round(overview.seconds_left(run), 1),
                    "outcomes": {outcome.value: count for outcome, count in run.outcomes.items()},
                    "unchanged_outcomes": unchanged_as_json(run),
                }
                for name, run in overview.runs.items()
            },
        }
    )


def _hold_as_json(hold: Hold) -> dict[str, object]:
    return {
        "what": hold.what,
        "reason": hold.reason,
        "note": hold.note,
        "lasting_seconds": round(hold.age, 1),
        "left_seconds": None if hold.is_manual else round(hold.remaining, 1),
    }


def _print(overview: Overview) -> None:
    console, census = Console(), overview.stats
    states = Table(box=None, pad_edge=False, show_header=False)
    for queue, count in census.queued.items():
        oldest = f", the oldest for {format_duration(census.oldest[queue])}" if count else ""
        workers = overview.workers[queue] or "no"
        states.add_row(f"queue {queue}", str(count), f"{workers} worker{'s' * (workers != 1)}{oldest}")
    states.add_row("in flight", str(census.leased), "")
    next_due = "" if census.next_due is None else f"the next is due in {format_duration(census.next_due)}"
    if census.next_cause:
        next_due += f", parked for {census.next_cause}"
    states.add_row("parked", str(census.parked), next_due)
    states.add_row("wait for a hold to end", str(sum(census.held.values())), "")
    states.add_row(
        "dead letters", str(census.dead_letters), "see `docv-archive dead-letters list`" if census.dead_letters else ""
    )
    if overview.rejected:
        states.add_row("refused messages", str(overview.rejected), "see `docv-archive dead-letters list`")
    for name, count in overview.unknown_accounts.items():
        mend = "see that DOCV_ACCOUNTS names it here, and where the workers are"
        states.add_row(f"wait for unknown account {name}", str(count), mend)
    _add_rates(states, overview)
    console.print(states)
    for hold in overview.holds:
        age = format_duration(hold.age)
        console.print(f"[bold red]on hold:[/] {hold.what} for {age}, reason {hold.reason}; {describe_end(hold)}")
        console.print(f"  {hold.note}", markup=False, style="dim")
    if overview.runs:
        console.print(_runs(overview))


def _add_rates(states: Table, overview: Overview) -> None:
    for each in overview.accounts:
        of, quota = f" of {each.name}" if len(overview.accounts) > 1 else "", each.settings.quota
        figure, words = describe_rate(overview.rates[each.name])
        shared = f"; shared with {each.shares_rate_with}" if each.shares_rate_with else ""
        states.add_row(f"rate{of}", figure, words + shared)
        if quota is not None:
            states.add_row(f"quota{of}", str(overview.rates[each.name].used_today), f"of {quota} requests in 24 hours")


def _runs(overview: Overview) -> Table:
    runs = Table(box=None, pad_edge=False)
    for title in ("run", "total", "pending", "to look at", "left"):
        runs.add_column(title, justify="left" if title == "run" else "right")
    for name, run in overview.runs.items():
        left = format_duration(overview.seconds_left(run)) if run.pending else ""
        runs.add_row(name, str(run.total), str(run.pending), str(run.errors), left)
    return runs
