"""The command `retention plan`: count the documents that are due by a day and those that wait, and write a plan."""

import contextlib
import gzip
import io
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import IO

import click
import orjson
from rich.console import Console
from rich.table import Table

from scripts.archive_access.open_bucket import open_read_only_bucket
from scripts.console.csv_output import write_row
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.formatting import format_bytes
from scripts.console.options import account_option, json_option
from scripts.console.read_only import run_read_only
from scripts.retention.plan_counts import PlanCounts, PlanRow
from scripts.retention.survey import Survey, load_survey

_FILE = click.Path(dir_okay=False, path_type=Path)
_WIDTH = 120


@click.command("plan")
@click.option(
    "--until", metavar="DATE", type=click.DateTime(["%Y-%m-%d"]), help="Plan until this day, UTC [default: today]."
)
@click.option("--out", type=_FILE, help="Write the plan for `retention apply`; compressed if it ends in .gz.")
@click.option("--csv", type=_FILE, help="Write the counts as CSV.")
@click.option("--html", type=_FILE, help="Write the counts as an HTML file.")
@account_option("Plan only the environment of this account of DOCV_ACCOUNTS; if omitted, both environments.")
@json_option()
def plan(
    until: datetime | None,
    out: Path | None,
    csv: Path | None,
    html: Path | None,
    account: str | None,
    *,
    as_json: bool,
) -> int:
    """Show what the schedule disposes of until a day, and what waits for something.

    Reads every manifest of the archive, and changes nothing. Documents wait for the clock of their rule, for the grace
    after the report of an event, for a review, for the release of a legal hold, or for the end of a lock of S3.

    Exit code 1 means that a manifest or an event is damaged, so that its documents are kept.
    """
    survey = load_survey(account)
    day = until.date() if until else survey.today
    counts: list[PlanCounts] = []
    with _open_for_writing(out) as file:
        code = run_read_only(_plan(survey, day, file, counts))
    for each in counts:
        if csv:
            _write_csv(csv, each)
        if html:
            # Imported lazily: only this option needs jinja2.
            from scripts.retention.plan_page import render_plan  # noqa: PLC0415

            _write_text(html, render_plan(each, survey, day))
        if as_json:
            about = {"archive": survey.settings.archive_url, "environments": survey.environments, "until": day}
            click.echo(orjson.dumps({**about, **each.as_json()}))
        else:
            _print_table(each, day)
        for sentence in each.problems():
            click.echo(f"docv-archive: {sentence}", err=True)
    return code


async def _plan(survey: Survey, until: date, file: IO[bytes] | None, counts: list[PlanCounts]) -> int:
    async with open_read_only_bucket(survey.settings) as bucket:
        found = await survey.run(bucket, until, out=file)
    counts.append(found)
    return NOT_ALL if found.damaged else OK


def _print_table(counts: PlanCounts, until: date) -> None:
    table = Table(box=None, pad_edge=False)
    for name in PlanRow.names():
        table.add_column(name, justify="right" if name in {"documents", "bytes"} else "left")
    for row in counts.rows():
        table.add_row(row.state.value, row.rule, row.kind, row.month, f"{row.documents:,}", format_bytes(row.bytes))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(table, markup=False)
    click.echo(f"Until {until}:")
    for sentence in counts.sentences():
        click.echo(f"  {sentence}")


def _write_csv(path: Path, counts: PlanCounts) -> None:
    text = io.StringIO()
    write_row(text, PlanRow.names())
    for row in counts.rows():
        write_row(text, row.as_json().values())
    _write_text(path, text.getvalue())


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8", newline="")
    except OSError as error:
        raise click.FileError(str(path), hint=str(error.strerror)) from None


@contextlib.contextmanager
def _open_for_writing(path: Path | None) -> Iterator[IO[bytes] | None]:
    if path is None:
        yield None
        return
    try:
        with (
            path.open("wb") as file,
            gzip.open(file, "wb") if path.suffix == ".gz" else contextlib.nullcontext(file) as written,
        ):
            yield written  # type: ignore[misc]  # GzipFile is an IO[bytes] but does not declare it
    except OSError as error:
        raise click.FileError(str(path), hint=str(error.strerror)) from None
