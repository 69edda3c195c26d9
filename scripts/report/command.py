"""Print what became of every evaluation of a run: CSV, JSON lines, or one page of HTML."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import click

from scripts.archive_access.evaluation_rows import EvaluationRow, write_csv, write_json_lines
from scripts.archive_access.open_bucket import open_archive_bucket
from scripts.console.exit_codes import NOT_ALL, OK, USAGE
from scripts.console.options import account_option, json_option
from scripts.local.processes import find_redis
from scripts.report.page import render_page
from scripts.report.rows import report_rows
from scripts.report.totals import ReportTotals
from tasks.ledger.ledger import Ledger
from tasks.queueing.message import parse_run
from tasks.storage.manifest import utc_now
from tasks.storage.run_list import RunList, read_chunk, read_run_list
from worker.clients.redis import check_redis, open_redis
from worker.config.accounts import load_account_settings
from worker.config.settings import Settings

Writer = Callable[[Sequence[EvaluationRow]], None]


@click.command()
@click.argument("name", metavar="RUN")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write one page of HTML into this file.")
@account_option()
@json_option("Print one JSON object a line instead of CSV.")
def report(name: str, html: Path | None, account: str | None, *, as_json: bool) -> int:
    """Tell what became of every evaluation of a backfill, asked of the archive."""
    write = _nothing if html else write_json_lines if as_json else write_csv
    with find_redis(load_account_settings(account)) as here:
        told = asyncio.run(_write_report(here, parse_run(name), write))
    if told is None:
        click.echo(
            f"docv-archive: the archive has no list of run {name}: only `backfill` keeps one. "
            f"`docv-archive status {name}` has its counters",
            err=True,
        )
        return USAGE
    run, totals = told
    if html:
        page = render_page(run, totals, utc_now())
        try:
            html.write_text(page, "utf-8")
        except OSError as error:
            raise click.FileError(str(html), hint=str(error.strerror)) from None
    where = f"{html}: " if html else ""
    click.echo(f"{where}{totals.count} evaluations, {totals.errors} to look at", err=True)
    return NOT_ALL if totals.errors else OK


async def _write_report(settings: Settings, name: str, write: Writer) -> tuple[RunList, ReportTotals] | None:
    """Write the rows of a run, and return what they say together; None where there is no list of it."""
    async with open_archive_bucket(settings) as bucket:
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
                    write(some)
                    totals.add(some)
        return run, totals


def _nothing(_rows: Sequence[EvaluationRow]) -> None:
    pass
