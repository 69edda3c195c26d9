"""The command `legal-hold list`: print every matter."""

import click
import orjson
from rich.console import Console
from rich.table import Table

from scripts.archive_access.open_bucket import open_read_only_bucket
from scripts.console.exit_codes import OK
from scripts.console.options import json_option
from scripts.console.read_only import run_read_only
from scripts.legal_hold.members import open_members
from scripts.legal_hold.opening import translate_record_errors
from tasks.storage.matter import MatterRecord, list_matters
from worker.config.settings import Settings, load_settings

_COLUMNS = ("matter", "state", "evaluations", "created", "by", "reason")


@click.command("list")
@json_option("Print one JSON object per line instead of a table.")
def list_holds(*, as_json: bool) -> int:
    """List the matters, released ones included, with the number of evaluations that were added to each."""
    return run_read_only(_list(load_settings(), as_json=as_json))


async def _list(settings: Settings, *, as_json: bool) -> int:
    table = Table(*_COLUMNS, box=None, pad_edge=False)
    with translate_record_errors():
        async with open_read_only_bucket(settings, may_be_new=True) as bucket:
            async for record in list_matters(bucket):
                async with open_members(bucket, record.matter, settings) as members:
                    counts, total = members.counts, members.total
                if as_json:
                    click.echo(orjson.dumps(as_facts(record, counts)))
                else:
                    facts = (f"{total:,}", f"{record.created_at[:19]}Z", record.created_by, record.reason)
                    table.add_row(record.matter, record.state, *facts)
    if table.row_count:
        console = Console(highlight=False, markup=False)
        console.print(table)
    elif not as_json:
        click.echo("there are no matters")
    return OK


def as_facts(record: MatterRecord, counts: dict[str, int]) -> dict[str, object]:
    """Return a matter as a JSON object.

    Args:
        counts: number of evaluations by environment.
    """
    return {
        "matter": record.matter,
        "state": record.state,
        "reason": record.reason,
        "created_at": record.created_at,
        "created_by": record.created_by,
        "release_reason": record.release_reason,
        "released_by": record.released_by,
        "release_begun_at": record.release_begun_at,
        "released_at": record.released_at,
        "evaluations": counts,
    }
