"""The command `legal-hold create`: begin a matter."""

import asyncio

import click

from scripts.archive_access.open_bucket import open_archive_bucket
from scripts.console.exit_codes import OK
from scripts.console.interrupts import interruptible
from scripts.console.operator_name import by_option, check_line, operator_name
from scripts.legal_hold.opening import translate_record_errors
from tasks.model.matter_name import parse_matter
from tasks.storage.matter import MatterRecord, MatterState, create_matter
from worker.config.settings import Settings, load_settings


@click.command("create")
@click.argument("matter")
@click.option("--reason", required=True, help="Reason, which the archive keeps. Do not enter personal data.")
@by_option
def create(matter: str, reason: str, by: str | None) -> int:
    """Create a matter, to which evaluations can be added.

    MATTER has at most 48 lower-case letters, digits and hyphens. The archive keeps the name, so do not enter personal
    data: use the number of the case. A matter covers both environments.
    """
    name, why, who = parse_matter(matter), check_line(reason, "--reason"), operator_name(by)
    settings = load_settings()
    return interruptible(lambda: asyncio.run(_create(settings, name, why, who)))


async def _create(settings: Settings, matter: str, reason: str, by: str) -> int:
    with translate_record_errors():
        async with open_archive_bucket(settings) as bucket:
            record = await create_matter(bucket, matter, reason, by)
    if record.reason != reason or record.state is not MatterState.OPEN:
        raise click.UsageError(f"matter {matter} {_describe(record)}: choose another name")
    click.echo(f"matter {matter} was created at {record.created_at} by {record.created_by}")
    return OK


def _describe(record: MatterRecord) -> str:
    if record.state is MatterState.OPEN:
        return f"was created at {record.created_at} by {record.created_by} for another reason"
    return f"exists, and its release began at {record.release_begun_at}"
