"""The command `retention event`: record the events that start clocks of the schedule."""

import asyncio
import datetime as dt
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

import click
import orjson

from scripts.archive_access.open_bucket import open_archive_bucket
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.interrupts import interruptible
from scripts.console.operator_name import by_option, operator_name
from scripts.console.options import account_option, column_option, json_option
from scripts.console.read_only import ProgressLine
from scripts.ids.candidate import is_id
from scripts.ids.errors import BadSource
from scripts.ids.scratch import leave_no_folders
from scripts.retention.event_recorder import EventRecorder, ReportResult
from scripts.retention.event_rows import RefusedRow, ReportRow, read_evaluations, read_table
from scripts.retention.report_store import ReportStore
from scripts.verify.ordered_gather import ordered_gather
from tasks.errors import IntegrityError
from tasks.model.run_name import parse_run
from tasks.retention.event import parse_event, parse_event_day
from tasks.retention.schedule import load_schedule
from tasks.storage.bucket import Bucket
from tasks.storage.run_list import read_chunk, read_run_list
from worker.config.accounts import load_account_settings
from worker.config.settings import Settings

_AT_ONCE = 64
_NO_SCHEDULE = "DOCV_RETENTION is not set: events start the clocks of a schedule, so it has to be known"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EventSources:
    """Where the reports come from.

    Attributes:
        sources: files with events; with ``event``, IDs and files with IDs.
        column: column of the IDs in a file with events.
        event: the same event for all evaluations, or None.
        day: its day; None withdraws it.
        run: the run whose evaluations have it, or None.
    """

    sources: tuple[str, ...]
    column: str | None
    event: str | None
    day: dt.date | None
    run: str | None


class EventPrinter:
    """Prints refused reports at once, and the counts at the end.

    Attributes:
        refused: the number of refused reports.
        counts: the number of reports by result.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self.refused = 0
        self.counts = Counter[ReportResult]()

    def refuse(self, row: RefusedRow) -> None:
        """Print why a report is refused."""
        self.refused += 1
        if self._as_json:
            click.echo(orjson.dumps({"place": row.place, "problem": row.why}))
        else:
            click.echo(f"{row.place}: {row.why}", err=True)

    def print_counts(self, repeated: int) -> None:
        """Print the number of reports by result."""
        counts = {result.value: self.counts[result] for result in ReportResult}
        counts |= {"repeated": repeated, "refused": self.refused}
        if self._as_json:
            click.echo(orjson.dumps(counts))
        else:
            click.echo(", ".join(f"{count:,} {name}" for name, count in counts.items()))


@click.command("event")
@click.argument("sources", metavar="FILE|ID|-...", nargs=-1)
@column_option
@click.option("--event", metavar="NAME", help="Report this event for all evaluations given as IDs, or in files.")
@click.option("--date", "day", metavar="YYYY-MM-DD", help="Day of this event.")
@click.option("--withdraw", is_flag=True, help="Withdraw this event instead.")
@click.option("--run", metavar="RUN", help="Report this event for the evaluations of a run's list.")
@by_option
@account_option()
@json_option("Print one JSON object for each refused report, and one with the counts.")
def event(account: str | None, by: str | None, *, withdraw: bool, as_json: bool, **chosen: Any) -> int:
    """Record events that start clocks of the retention schedule, such as the end of a relationship.

    FILE is a list with a header and the columns eval_id, event and date, in the formats of `backfill`; an empty date
    withdraws the event. With --event, give IDs or files with IDs instead.

    All reports are checked before the first one is recorded, and those that are not valid are named. A report that the
    archive already has is not recorded again. Exit code 1 means that a report was refused.
    """
    settings = load_account_settings(account)
    if (schedule := load_schedule(settings)) is None:
        raise click.UsageError(_NO_SCHEDULE)
    now, events = dt.datetime.now(dt.UTC), schedule.events
    wanted = _read_options(**chosen, withdraw=withdraw, events=events, today=now.date())
    name, printer = operator_name(by), EventPrinter(as_json=as_json)

    def work() -> int:
        with leave_no_folders(settings), ReportStore() as store:
            _fill(store, _read_rows(wanted, settings, events, now.date()), printer)
            asyncio.run(_record(wanted, settings, store, printer, name))
            printer.print_counts(store.repeated)
        return NOT_ALL if printer.refused else OK

    return interruptible(work)


def _read_options(
    sources: tuple[str, ...],
    column: str | None,
    event: str | None,
    day: str | None,
    run: str | None,
    *,
    withdraw: bool,
    events: frozenset[str],
    today: dt.date,
) -> EventSources:
    if event is None:
        if day is not None or withdraw or run is not None:
            raise click.UsageError("--date, --withdraw and --run need --event")
        if not sources:
            raise click.UsageError("no events: give FILE, or --event with IDs")
        if any(map(is_id, sources)):
            raise click.UsageError("IDs need --event, and --date or --withdraw")
        return EventSources(sources, column, None, None, None)
    if (day is None) != withdraw:
        raise click.UsageError("--event needs either --date or --withdraw")
    if column is not None:
        raise click.UsageError("--column is for a FILE with events")
    if not sources and run is None:
        raise click.UsageError("no evaluations: give IDs, FILE or --run")
    try:
        parsed = parse_event(event, events), None if day is None else parse_event_day(day, today)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return EventSources(sources, None, *parsed, None if run is None else parse_run(run))


def _read_rows(
    wanted: EventSources, settings: Settings, events: frozenset[str], today: dt.date
) -> Iterator[ReportRow | RefusedRow]:
    if wanted.event is not None:
        yield from read_evaluations(wanted.sources, settings, wanted.event, wanted.day)
    else:
        for source in wanted.sources:
            yield from read_table(source, wanted.column, settings, events, today)


def _fill(store: ReportStore, rows: Iterator[ReportRow | RefusedRow], printer: EventPrinter) -> None:
    for row in rows:
        if isinstance(row, ReportRow):
            store.add(row)
        else:
            printer.refuse(row)


async def _record(wanted: EventSources, settings: Settings, store: ReportStore, printer: EventPrinter, by: str) -> None:
    async with open_archive_bucket(settings) as bucket:
        if wanted.run is not None:
            await _add_run(wanted.run, wanted, bucket, settings.environment, store)
        if not store.count() and not printer.refused:
            raise BadSource("there is no event in it")
        recorder = EventRecorder(bucket, settings.environment, by)

        def refuse(refused: list[tuple[ReportRow, RefusedRow]]) -> None:
            for row, problem in refused:
                store.refuse(row)
                printer.refuse(problem)

        def count(results: list[ReportResult | RefusedRow]) -> None:
            for result in results:
                if isinstance(result, RefusedRow):
                    printer.refuse(result)
                else:
                    printer.counts[result] += 1

        await _for_each(store, recorder.check, refuse, "check")
        await _for_each(store, recorder.record, count, "record")


async def _for_each(
    store: ReportStore, work: Callable[[list[ReportRow]], Awaitable[T]], handle: Callable[[T], None], doing: str
) -> None:
    """Process the reports of several evaluations at a time, and handle the results in order."""

    async def evaluations() -> AsyncIterator[list[ReportRow]]:
        for rows in store.evaluations():
            yield rows

    results = ordered_gather(_AT_ONCE, work, evaluations())
    with ProgressLine(doing, store.count()) as line:
        async with aclosing(results):  # type: ignore[type-var]  # it is a generator
            done = 0
            async for result in results:
                handle(result)
                done += 1
                line.update(done)


async def _add_run(run: str, wanted: EventSources, bucket: Bucket, environment: str, store: ReportStore) -> None:
    try:
        if (found := await read_run_list(bucket, environment, run)) is None:
            raise BadSource(f"the archive has no list of run {run}")
        number = 0
        for piece in found.pieces:
            for eval_id in await read_chunk(bucket, piece):
                number += 1
                store.add(ReportRow(f"run {run}, ID {number}", eval_id, wanted.event or "", wanted.day))
    except IntegrityError as error:
        raise BadSource(str(error)) from None
