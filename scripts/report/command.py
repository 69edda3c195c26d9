"""Print the outcome of every evaluation of a run as CSV, JSON Lines, or an HTML file."""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import click

from scripts.archive_access.evaluation_rows import EvaluationRow
from scripts.archive_access.open_bucket import open_read_only_bucket
from scripts.console.csv_output import Record, RecordWriter, choose_writer
from scripts.console.exit_codes import NOT_ALL, OK, USAGE
from scripts.console.formatting import format_count
from scripts.console.options import account_option, column_option, excel_option, json_option
from scripts.local.processes import find_redis
from scripts.overview.run_rows import report_rows
from scripts.report.kept_columns import KeptCells, read_kept_cells
from scripts.report.page import render_page
from scripts.report.totals import ReportTotals
from tasks.ledger.ledger import Ledger
from tasks.model.run_name import parse_run
from tasks.storage.manifest import utc_now
from tasks.storage.run_list import RunList, read_chunk, read_run_list
from worker.clients.redis import check_redis, open_redis
from worker.config.accounts import load_account_settings
from worker.config.settings import Settings


@click.command()
@click.argument("name", metavar="RUN")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write an HTML file instead of CSV.")
@click.option("--keep", "kept", metavar="COLUMN", multiple=True, help="Add this column of the --from file.")
@click.option("--from", "source", metavar="FILE", help="Your own file, which has these evaluations; needed by --keep.")
@column_option
@account_option()
@excel_option
@json_option("Print one JSON object per line instead of CSV.")
def report(
    name: str,
    html: Path | None,
    kept: Sequence[str],
    source: str | None,
    column: str | None,
    account: str | None,
    *,
    excel: bool,
    as_json: bool,
) -> int:
    """List the outcome of every evaluation of a run, according to the archive.

    The archive keeps a list of each run of `run`, `backfill` and `enqueue --run`. --keep adds columns of your own
    file to the rows, joined by the evaluation ID. That file is not stored.
    """
    if bool(kept) != (source is not None):
        raise click.UsageError("--keep and --from need each other: give the columns and their file")
    settings, run_name = load_account_settings(account), parse_run(name)
    with contextlib.ExitStack() as stack:
        cells = stack.enter_context(read_kept_cells(source, kept, column, settings)) if source else None
        names = [*EvaluationRow.names(), *(cells.names if cells else ())]
        write = choose_writer(names, as_json=as_json, excel=excel)
        here = stack.enter_context(find_redis(settings))
        written = asyncio.run(_write_report(here, run_name, _nothing if html else write, cells))
        if written is None:
            click.echo(
                f"docv-archive: the archive has no list of run {name}. `run`, `backfill` and `enqueue --run` keep one, "
                f"runs named over HTTP or Celery have none. `docv-archive status {name}` has its counters",
                err=True,
            )
            return USAGE
        run, totals = written
        if html:
            _write_page(html, render_page(run, totals, utc_now(), cells))
    where = f"{html}: " if html else ""
    click.echo(f"{where}{format_count(totals.count, 'evaluation')}, {totals.errors:,} need attention", err=True)
    return NOT_ALL if totals.errors else OK


def _write_page(path: Path, page: str) -> None:
    try:
        path.write_text(page, "utf-8")
    except OSError as error:
        raise click.FileError(str(path), hint=str(error.strerror)) from None


async def _write_report(
    settings: Settings, name: str, write: RecordWriter, cells: KeptCells | None
) -> tuple[RunList, ReportTotals] | None:
    """Write the rows of a run; return its list and the totals, or None if the archive has no list of it."""
    async with open_read_only_bucket(settings, may_be_new=True) as bucket:
        run = await read_run_list(bucket, settings.environment, name)
        if run is None:
            return None
        totals = ReportTotals(datetime.fromisoformat(run.begun_at))
        async with open_redis(settings.need_redis_url()) as redis:
            await check_redis(redis)
            ledger = Ledger(redis)
            write(())
            for piece in run.pieces:
                eval_ids, is_cancelled = await read_chunk(bucket, piece), run.cancelled_at is not None
                async for some in report_rows(bucket, run.environment, ledger, eval_ids, is_cancelled=is_cancelled):
                    write([row.as_json() | (cells.get(row.eval_id) if cells else {}) for row in some])
                    totals.add(some)
        return run, totals


def _nothing(_records: Sequence[Record]) -> None:
    pass
