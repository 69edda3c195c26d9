"""The command `legal-hold show`: print what the archive knows about one matter."""

import sys
from dataclasses import asdict

import click
import orjson

from scripts.archive_access.open_bucket import open_read_only_bucket
from scripts.console.csv_output import choose_writer
from scripts.console.exit_codes import OK
from scripts.console.formatting import format_count
from scripts.console.options import json_option
from scripts.console.read_only import run_read_only
from scripts.legal_hold.list_command import as_facts
from scripts.legal_hold.members import Members, open_members
from scripts.legal_hold.opening import find_matter, translate_record_errors
from tasks.model.matter_name import parse_matter
from tasks.storage.matter import MatterRecord
from worker.config.settings import Settings, load_settings

_ROWS_AT_ONCE = 8_192


@click.command("show")
@click.argument("matter")
@click.option("--ids", "with_ids", is_flag=True, help="Print the evaluations instead, as CSV.")
@json_option("Print one JSON object; with --ids, one per line.")
def show(matter: str, *, with_ids: bool, as_json: bool) -> int:
    """Show who created a matter, when and why, and what was added to it.

    The evaluations are those that were added, whether or not they are archived, erased or released since.
    """
    return run_read_only(_show(load_settings(), parse_matter(matter), with_ids=with_ids, as_json=as_json))


async def _show(settings: Settings, matter: str, *, with_ids: bool, as_json: bool) -> int:
    with translate_record_errors():
        async with open_read_only_bucket(settings, may_be_new=True) as bucket:
            record = await find_matter(bucket, matter)
            async with open_members(bucket, matter, settings) as members:
                if with_ids:
                    _print_ids(members, as_json=as_json)
                elif as_json:
                    additions = [asdict(each) for each in members.additions]
                    click.echo(orjson.dumps(as_facts(record, members.counts) | {"additions": additions}))
                else:
                    _print(record, members)
    return OK


def _print_ids(members: Members, *, as_json: bool) -> None:
    write = choose_writer(("eval_id", "environment"), as_json=as_json, excel=False)
    write(())
    for environment, ids in members.ids.items():
        for chunk in ids.chunks(_ROWS_AT_ONCE):
            write([{"eval_id": eval_id, "environment": environment} for eval_id in chunk])
    sys.stdout.buffer.flush()


def _print(record: MatterRecord, members: Members) -> None:
    rows = {
        "matter": record.matter,
        "state": record.state,
        "reason": record.reason,
        "created": f"{record.created_at} by {record.created_by}",
        "release begun": record.release_begun_at and f"{record.release_begun_at} by {record.released_by}",
        "released": record.released_at,
        "release reason": record.release_reason,
        "evaluations": ", ".join(f"{count:,} in {environment}" for environment, count in members.counts.items()) or "0",
    }
    for name, value in rows.items():
        if value:
            click.echo(f"{name:<14}  {value}")
    for each in members.additions:
        kinds = f", only {' and '.join(each.kinds)}" if each.kinds else ""
        click.echo(
            f"added           {each.added_at} by {each.added_by}: "
            f"{format_count(each.evaluations, 'evaluation')} in {each.environment}{kinds}"
        )
