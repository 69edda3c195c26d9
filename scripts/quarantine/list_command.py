"""The command `quarantine list`: print the bundles in quarantine as a table, CSV or JSON Lines."""

import sys
from collections import Counter
from contextlib import aclosing
from typing import Any, Literal

import click
import orjson
from rich.console import Console
from rich.table import Table

from scripts.archive_access.open_bucket import open_read_only_bucket
from scripts.archive_access.quarantine import QuarantinedBundle
from scripts.console.csv_output import write_row
from scripts.console.exit_codes import OK
from scripts.console.formatting import format_bytes
from scripts.console.options import json_option
from scripts.console.read_only import run_read_only
from scripts.quarantine.selection import QuarantineSelection, make_selection, select_bundles, selection_options
from tasks.storage.manifest import format_utc
from worker.config.accounts import load_account_settings
from worker.config.settings import Settings

_SHOWN = 100
_COLUMNS = ("eval_id", "outcome", "causes", "run", "quarantined_at", "bytes", "sha256", "sealed_with")
_TITLES = ("evaluation", "outcome", "cause", "run", "in quarantine since", "size")


@click.command("list")
@selection_options
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV instead of a table.")
@json_option("Print one JSON object per line instead of a table.")
def list_bundles(*, account: str | None, as_csv: bool, as_json: bool, **chosen: Any) -> int:
    """List bundles that could not be read, with evaluation, run, cause and time.

    Bundles of evaluations that have since been archived are left out, unless --all or the evaluation's ID is given.
    Needs neither Redis nor RiskOS.
    """
    if as_csv and as_json:
        raise click.UsageError("choose one of --csv and --json")
    form = "csv" if as_csv else "json" if as_json else "table"
    return run_read_only(_list(load_account_settings(account), make_selection(**chosen), form))


async def _list(settings: Settings, selection: QuarantineSelection, form: str) -> int:
    table, causes, count = _make_table(), Counter[str](), 0
    if form == "csv":
        write_row(sys.stdout, _COLUMNS)
    async with (
        open_read_only_bucket(settings, may_be_new=True) as bucket,
        aclosing(select_bundles(bucket, settings.environment, selection)) as bundles,
    ):
        async for each in (each async for some in bundles for each in some):
            count += 1
            causes.update(each.causes)
            if form == "json":
                click.echo(orjson.dumps(_as_json(each)))
            elif form == "csv":
                write_row(sys.stdout, _cells(each))
            elif count <= _SHOWN:
                table.add_row(*_row(each))
    if form == "table":
        _print(table, causes, count)
    return OK


def _as_json(bundle: QuarantinedBundle) -> dict[str, object]:
    at = format_utc(bundle.quarantined_at)
    facts = (
        bundle.eval_id,
        bundle.outcome,
        bundle.causes,
        bundle.run,
        at,
        bundle.size,
        bundle.sha256,
        bundle.sealed_with,
    )
    return dict(zip(_COLUMNS, facts, strict=True))


def _cells(bundle: QuarantinedBundle) -> list[object]:
    return list((_as_json(bundle) | {"causes": " ".join(bundle.causes)}).values())


def _row(bundle: QuarantinedBundle) -> tuple[str, ...]:
    at = format_utc(bundle.quarantined_at)[:19] + "Z"
    return bundle.eval_id, bundle.outcome, " ".join(bundle.causes), bundle.run or "", at, format_bytes(bundle.size)


def _make_table() -> Table:
    table = Table(box=None, pad_edge=False)
    for title in _TITLES:
        justify: Literal["left", "right"] = "right" if title == "size" else "left"
        # A truncated ID cannot be copied.
        table.add_column(title, justify=justify, overflow="fold", min_width=36 if title == "evaluation" else None)
    return table


def _print(table: Table, causes: Counter[str], count: int) -> None:
    if not count:
        click.echo("no bundle in quarantine matches")
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(table, markup=False)
    if count > table.row_count:
        console.print(f"... and {count - table.row_count:,} more; --csv prints them all")
    counted = ", ".join(f"{number:,} {cause}" for cause, number in causes.most_common())
    console.print(f"{count:,} in all: {counted}", markup=False)
