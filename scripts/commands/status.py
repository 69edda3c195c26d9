"""Show queues, holds, runs and dead letters, or the counters of one run."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import click
import orjson
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.formatting import format_duration
from scripts.console.interrupts import interruptible
from scripts.console.options import json_option
from scripts.console.summary import RunSummary, print_summary, unchanged_as_json
from scripts.local.processes import run_with_redis
from scripts.overview.overview import Overview, read_overview
from scripts.overview.rate_status import describe_rate, rate_as_json
from scripts.overview.release_holds import find_hold
from scripts.overview.run_snapshot import describe_end, placed_by
from tasks.ledger.counters import RunCounters
from tasks.ledger.ledger import Ledger
from tasks.ledger.unread_messages import UnreadMessages, find_unread_messages
from tasks.ledger.worker_registry import PausedWorker
from tasks.model.run_name import parse_run
from tasks.resilience.holds import Hold, describe_scope, scope_of_run
from worker.config.accounts import Accounts, load_accounts
from worker.config.accounts_file import AccountSettings
from worker.config.settings import load_settings

_WATCH_SECONDS = 2.0


@click.command()
@click.argument("run_name", metavar="[RUN]", required=False)
@click.option("--watch", is_flag=True, help="Refresh every 2 s, until Ctrl-C or the end of RUN.")
@json_option()
def status(run_name: str | None, *, watch: bool, as_json: bool) -> int:
    """Show queues, holds, runs and dead letters, or the counters of one RUN."""
    settings = load_settings()
    accounts = load_accounts(settings)
    name = None if run_name is None else parse_run(run_name)
    is_broker = settings.broker_url is None

    async def show(redis: "Redis") -> int:
        if name is not None:
            return await _print_run(redis, name, as_json=as_json)
        overview, unread = await _read(redis, accounts, is_broker=is_broker)
        if as_json:
            unread_counts = {"unread_messages": {each.key: each.count for each in unread}}
            click.echo(orjson.dumps(_as_json(overview) | unread_counts))
        else:
            _print(overview, unread)
        return OK

    if not watch:
        return run_with_redis(settings, show)
    return interruptible(lambda: run_with_redis(settings, lambda redis: _watch(redis, show, name)))


async def _watch(redis: "Redis", show: Callable[["Redis"], Awaitable[int]], run_name: str | None) -> int:
    """Show the status again and again; return the exit code of a run when it has ended or does not exist."""
    while True:
        click.clear()  # on a terminal only
        # Read before the output, so that the last output has the final counters.
        is_over = run_name is not None and not (await Ledger(redis).runs.get_counters(run_name)).pending
        code = await show(redis)
        if is_over:
            return code
        await asyncio.sleep(_WATCH_SECONDS)


async def _read(redis: "Redis", accounts: Accounts, *, is_broker: bool) -> tuple[Overview, list[UnreadMessages]]:
    return await read_overview(redis, accounts), await find_unread_messages(redis, is_broker=is_broker)


async def _print_run(redis: "Redis", name: str, *, as_json: bool) -> int:
    ledger = Ledger(redis)
    counters = await ledger.runs.get_counters(name)
    since = await ledger.runs.get_age(name)
    if since is None:
        click.echo(f"docv-archive: there is no run {name}; `docv-archive status` lists them", err=True)
        return NOT_ALL
    hold = await find_hold(redis, scope_of_run(name))
    summary = RunSummary(run=name, counters=counters, seconds=since, hold=hold)
    print_summary(summary, as_json=as_json)
    return OK if summary.is_ok else NOT_ALL


def _as_json(overview: Overview) -> dict[str, object]:
    census = overview.stats
    return {
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
        "damaged_entries": census.damaged,
        "objects_after_erasure": overview.leftovers,
        "rate": rate_as_json(overview.rate),
        "holds": [_hold_as_json(hold) for hold in overview.holds],
        "paused_workers": [_paused_as_json(each) for each in overview.paused],
        "accounts": {each.name: _account_as_json(overview, each) for each in overview.accounts},
        "unknown_accounts": overview.unknown_accounts,
        "runs": {name: _run_as_json(overview, run) for name, run in overview.runs.items()},
    }


def _paused_as_json(worker: PausedWorker) -> dict[str, object]:
    return {
        "worker": worker.name,
        "what": describe_scope(worker.scope),
        "reason": worker.reason,
        "note": worker.note,
        "lasting_seconds": round(worker.age, 1),
    }


def _account_as_json(overview: Overview, account: AccountSettings) -> dict[str, object]:
    return {
        "environment": account.settings.environment,
        "shares_rate_with": account.shares_rate_with,
        "rate": rate_as_json(overview.rates[account.name]),
        "quota": account.settings.quota,
        "held": overview.stats.held_by_account.get(account.name, 0),
        "holds": [_hold_as_json(hold) for hold in overview.holds_of(account.name)],
    }


def _run_as_json(overview: Overview, run: RunCounters) -> dict[str, object]:
    return {
        "total": run.total,
        "pending": run.pending,
        "seconds_left": round(overview.seconds_left(run), 1),
        "outcomes": {outcome.value: count for outcome, count in run.outcomes.items()},
        "unchanged_outcomes": unchanged_as_json(run),
    }


def _hold_as_json(hold: Hold) -> dict[str, object]:
    return {
        "what": hold.what,
        "reason": hold.reason,
        "note": hold.note,
        "by": hold.by or None,
        "lasting_seconds": round(hold.age, 1),
        "left_seconds": None if hold.is_manual else round(hold.remaining, 1),
    }


def _print(overview: Overview, unread: Sequence[UnreadMessages]) -> None:
    console, census = Console(), overview.stats
    states = Table(box=None, pad_edge=False, show_header=False)
    for queue, count in census.queued.items():
        oldest = f", the oldest for {format_duration(census.oldest[queue])}" if count else ""
        workers = overview.workers[queue] or "no"
        states.add_row(f"queue {queue}", f"{count:,}", f"{workers} worker{'s' * (workers != 1)}{oldest}")
    states.add_row("in flight", str(census.leased), "")
    next_due = "" if census.next_due is None else f"the next is due in {format_duration(census.next_due)}"
    if census.next_cause:
        next_due += f", parked for {census.parked_for}"
    states.add_row("parked", f"{census.parked:,}", next_due)
    states.add_row("on hold", f"{sum(census.held.values()):,}", "")
    where = "see `docv-archive dead-letters list`"
    states.add_row("dead letters", f"{census.dead_letters:,}", where if census.dead_letters else "")
    if overview.rejected:
        states.add_row("rejected messages", f"{overview.rejected:,}", where)
    if census.damaged:
        states.add_row("damaged entries", f"{census.damaged:,}", where)
    if overview.leftovers:
        states.add_row("objects of erased evaluations", str(overview.leftovers), "see `docv-archive erase --pending`")
    for each in unread:
        states.add_row(f"messages in {each.key}, which no worker reads", str(each.count), each.fix)
    for name, count in overview.unknown_accounts.items():
        fix = "check that DOCV_ACCOUNTS has it, here and for the workers"
        states.add_row(f"wait for unknown account {name}", str(count), fix)
    _add_rates(states, overview)
    console.print(states)
    _print_stops(console, overview)
    if overview.runs:
        console.print(_runs(overview))


def _print_stops(console: Console, overview: Overview) -> None:
    """Print the holds and the paused workers."""
    for hold in overview.holds:
        age = format_duration(hold.age)
        console.print(f"[bold red]on hold:[/] {hold.what} for {age}, reason {hold.reason}; {describe_end(hold)}")
        console.print(f"  {hold.note}{placed_by(hold)}", markup=False, style="dim")
    for worker in overview.paused:
        what, age = describe_scope(worker.scope), format_duration(worker.age)
        console.print(f"[bold red]paused:[/] worker {worker.name} for {age}, for {what}, reason {worker.reason}")
        console.print(f"  {worker.note}", markup=False, style="dim")


def _add_rates(states: Table, overview: Overview) -> None:
    for each in overview.accounts:
        of, quota = f" of {each.name}" if len(overview.accounts) > 1 else "", each.settings.quota
        figure, words = describe_rate(overview.rates[each.name])
        shared = f"; shared with {each.shares_rate_with}" if each.shares_rate_with else ""
        states.add_row(f"rate{of}", figure, words + shared)
        if quota is not None:
            states.add_row(
                f"quota{of}", str(overview.rates[each.name].used_today), f"of {quota:,} requests in 24 hours"
            )


def _runs(overview: Overview) -> Table:
    runs = Table(box=None, pad_edge=False)
    for title in ("run", "total", "pending", "need attention", "left"):
        # A truncated name cannot be passed to a command.
        runs.add_column(title, justify="left" if title == "run" else "right", overflow="fold", no_wrap=title == "left")
    for name, run in overview.runs.items():
        left = format_duration(overview.seconds_left(run)) if run.pending else ""
        runs.add_row(name, f"{run.total:,}", f"{run.pending:,}", f"{run.errors:,}", left)
    return runs
