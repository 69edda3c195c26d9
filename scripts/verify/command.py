"""Verify the archive, or some of it, and print every difference."""

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from scripts.archive_access.open_bucket import open_read_only_bucket
from scripts.console.csv_output import RecordWriter, choose_writer
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.formatting import format_count
from scripts.console.options import account_option, column_option, excel_option, json_option
from scripts.console.parameter_types import ShareType
from scripts.console.read_only import ProgressLine, run_read_only
from scripts.ids.id_list import read_id_list
from scripts.ids.scratch import leave_no_folders
from scripts.ids.unique import UniqueIds
from scripts.verify.check_evaluation import check_evaluation, check_quarantine
from scripts.verify.check_record import check_records
from scripts.verify.check_run import check_run
from scripts.verify.context import Selection, VerifyContext, VerifyDepth
from scripts.verify.layout import (
    ArchiveArea,
    ObjectGroup,
    evaluation_place,
    event_place,
    group_objects,
    quarantine_place,
)
from scripts.verify.open_lister import open_lister
from scripts.verify.ordered_gather import ordered_gather
from scripts.verify.problems import Difference
from tasks.storage.encrypted_bucket import EncryptedBucket
from tasks.storage.encryption import Keyring
from tasks.telemetry import tracing
from worker.config.accounts import load_account_settings
from worker.config.settings import Settings, load_settings
from worker.tracing import open_tracer

_AT_ONCE = 64
_OF_EVALUATIONS = frozenset({ArchiveArea.EVALUATION, ArchiveArea.QUARANTINE, ArchiveArea.EVENT})


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What to verify.

    Attributes:
        source: list of IDs; None for the whole archive.
        column: column of the IDs.
        depth: how closely to check objects.
        selection: which evaluations to check.
        grace: seconds within which a manifest may follow its objects.
        account: name of the account whose evaluations the list names.
    """

    source: str | None
    column: str | None
    depth: VerifyDepth
    selection: Selection
    grace: float
    account: str | None


@click.command()
@click.argument("source", metavar="[FILE]", required=False)
@column_option
@click.option(
    "--sample",
    type=ShareType(),
    default=1.0,
    help="Check a random sample of all evaluations, such as 5% (the same sample every time).",
)
@click.option(
    "--since",
    type=click.DateTime(("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S")),
    help="Check only evaluations archived at this time or later (UTC).",
)
@click.option(
    "--checksums-only", is_flag=True, help="Compare the SHA-256 that S3 stores; read only objects without one."
)
@click.option("--sizes-only", is_flag=True, help="Compare the listed sizes; read no document.")
@click.option(
    "--grace",
    type=click.IntRange(0),
    default=3600,
    show_default=True,
    help="Ignore objects without a manifest until they are this many seconds old.",
)
@account_option()
@excel_option
@json_option("Print one JSON object per line instead of CSV.")
def verify(
    sample: float,
    since: datetime | None,
    *,
    checksums_only: bool,
    sizes_only: bool,
    excel: bool,
    as_json: bool,
    **others: Any,
) -> int:
    """Read the archive back, compare it with its manifests, and print every difference; change nothing.

    Checks the whole archive, or only the evaluations in FILE. Workers may keep running. Exit code 1 means that there
    is a difference. docs/design.md lists all differences.
    """
    depth = VerifyDepth.SIZES if sizes_only else VerifyDepth.CHECKSUMS if checksums_only else VerifyDepth.CONTENT
    options = VerifyOptions(depth=depth, selection=Selection(sample, since and since.replace(tzinfo=UTC)), **others)
    if options.account and options.source is None:
        raise click.UsageError("--account needs FILE; without FILE the whole archive is verified")
    if checksums_only and sizes_only:
        raise click.UsageError("give --checksums-only or --sizes-only, not both")
    settings = load_account_settings(options.account) if options.source else load_settings()
    write = choose_writer(Difference.names(), as_json=as_json, excel=excel)
    if options.source is None:
        return run_read_only(_verify(options, None, settings, write))
    with leave_no_folders(settings), read_id_list(options.source, options.column, settings) as listed:
        code = run_read_only(_verify(options, listed.ids, settings, write))
        return NOT_ALL if listed.bad and code == OK else code


async def _verify(options: VerifyOptions, eval_ids: UniqueIds | None, settings: Settings, write: RecordWriter) -> int:
    tracing.set_tracer(open_tracer(settings))
    async with open_read_only_bucket(settings) as bucket, open_lister(settings) as lister:
        ctx = VerifyContext(
            EncryptedBucket(bucket, Keyring.of(settings.keyring_texts())),
            lister,
            young=time.time() - options.grace,
            depth=options.depth,
            selection=options.selection,
            lock_expected=settings.lock_mode,
            has_schedule=settings.retention is not None,
        )
        groups = (
            group_objects(lister.walk("")) if eval_ids is None else _selected_groups(eval_ids, settings.environment)
        )
        problems = await _write_all(ctx, groups, write)
    click.echo(f"{ctx.progress.sentence()}; {format_count(problems.total(), 'difference')}", err=True)
    if problems and settings.notify_url:
        await _notify(settings, problems, ctx.progress.evaluations)
    if not problems and options.source is None and options.selection.since is None and settings.redis_url:
        # Imported lazily: verify works without Redis.
        from scripts.verify.success import record_success  # noqa: PLC0415
        from tasks.ledger.last_success import NightlyCommand  # noqa: PLC0415

        await record_success(settings.need_redis_url(), NightlyCommand.VERIFY)
    return NOT_ALL if problems else OK


async def _notify(settings: Settings, problems: Counter[str], evaluations: int) -> None:
    """Send the notification that there are differences; the exit code shows them in any case."""
    # aiohttp is slow to import, and only notifications need it.
    from tasks.notifications.notification import differences_found  # noqa: PLC0415  # see the comment
    from tasks.notifications.sender import NotificationFailed, NotificationSender  # noqa: PLC0415  # the same

    try:
        if sender := NotificationSender.of(settings):
            await sender.send_with_retries(differences_found(problems, evaluations))
    except NotificationFailed as error:
        click.echo(f"docv-archive: the notification was not delivered: {error}", err=True)


async def _write_all(ctx: VerifyContext, groups: AsyncIterator[ObjectGroup], write: RecordWriter) -> Counter[str]:
    problems = Counter[str]()
    write(())
    found = ordered_gather(_AT_ONCE, lambda group: find_differences(ctx, group), groups)
    with ProgressLine("verify") as progress_line:
        async with aclosing(found):  # type: ignore[type-var]  # it is a generator
            async for differences in found:
                if differences:
                    write([each.facts() for each in differences])
                problems.update(each.problem.value for each in differences)
                line = f"{ctx.progress.sentence()}, {format_count(problems.total(), 'difference')}"
                progress_line.update(ctx.progress.evaluations, line)
    return problems


async def _selected_groups(eval_ids: UniqueIds, environment: str) -> AsyncIterator[ObjectGroup]:
    for eval_id in eval_ids:
        yield ObjectGroup(evaluation_place(environment, eval_id), None)
        yield ObjectGroup(quarantine_place(environment, eval_id), None)
        yield ObjectGroup(event_place(environment, eval_id), None)


async def find_differences(ctx: VerifyContext, group: ObjectGroup) -> list[Difference]:
    """Return the differences in one part of the archive."""
    area = group.place.area
    if area in _OF_EVALUATIONS and not ctx.selection.has(group.place.name):
        return []
    match area:
        case ArchiveArea.EVALUATION:
            return await check_evaluation(ctx, group)
        case ArchiveArea.QUARANTINE:
            return await check_quarantine(ctx, group)
        case ArchiveArea.RUN:
            return await check_run(ctx, group)
        case ArchiveArea.NONE:
            return ctx.orphans("", group.objects or (), "it does not belong to docv-archive")
    return await check_records(ctx, group)
