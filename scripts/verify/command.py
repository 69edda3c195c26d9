"""Verify the archive, or some of it, and print every difference."""

import csv
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import click
import orjson

from scripts.archive_access.open_bucket import open_read_only_bucket
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.formatting import csv_safe
from scripts.console.options import account_option, column_option, json_option
from scripts.console.parameter_types import ShareType
from scripts.console.read_only import ProgressLine, run_read_only
from scripts.ids.id_list import read_id_list
from scripts.ids.unique import UniqueIds
from scripts.verify.check_evaluation import check_evaluation, check_quarantine
from scripts.verify.check_run import check_run
from scripts.verify.context import Selection, VerifyContext, VerifyDepth
from scripts.verify.layout import ArchiveArea, ObjectGroup, evaluation_place, group_objects, quarantine_place
from scripts.verify.open_lister import open_lister
from scripts.verify.ordered_gather import ordered_gather
from scripts.verify.problems import Difference
from tasks.storage.encrypted_bucket import EncryptedBucket
from tasks.storage.encryption import Keyring
from worker.config.accounts import load_account_settings
from worker.config.settings import Settings, load_settings

_AT_ONCE = 64
Writer = Callable[[Sequence[Difference]], None]


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What is to be verified.

    Attributes:
        source: list of IDs; the whole archive where it is None.
        column: of the IDs.
        depth: how closely.
        selection: which evaluations.
        grace: seconds that a manifest may take to follow its objects.
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
    "--sample", type=ShareType(), default=1.0, help="Only a part of all evaluations, such as 5%; always the same."
)
@click.option(
    "--since",
    type=click.DateTime(("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S")),
    help="Only what was archived then or later (UTC).",
)
@click.option("--checksums-only", is_flag=True, help="Compare S3's own SHA-256; read only what has none of the whole.")
@click.option("--sizes-only", is_flag=True, help="Compare what is listed; read no document.")
@click.option("--grace", type=click.IntRange(0), default=3600, show_default=True, help="Seconds: younger is no orphan.")
@account_option()
@json_option("Print one JSON object a line instead of CSV.")
def verify(
    sample: float,
    since: datetime | None,
    *,
    checksums_only: bool,
    sizes_only: bool,
    as_json: bool,
    **others: Any,
) -> int:
    """Read the archive back and compare it with its manifests; print every difference, change nothing.

    All of it, or only the evaluations that FILE names. Workers may go on meanwhile. Exit code 1 says that there is a
    difference; the word for it is one of a closed set, docs/design.md has them.
    """
    depth = VerifyDepth.SIZES if sizes_only else VerifyDepth.CHECKSUMS if checksums_only else VerifyDepth.CONTENT
    options = VerifyOptions(depth=depth, selection=Selection(sample, since and since.replace(tzinfo=UTC)), **others)
    if options.account and options.source is None:
        raise click.UsageError("--account says where the evaluations of FILE are; without FILE all of it is verified")
    if checksums_only and sizes_only:
        raise click.UsageError("give --checksums-only or --sizes-only, not both")
    settings = load_account_settings(options.account) if options.source else load_settings()
    write = _json_lines if as_json else _csv
    if options.source is None:
        return run_read_only(_verify(options, None, settings, write))
    with read_id_list(options.source, options.column, settings) as listed:
        code = run_read_only(_verify(options, listed.ids, settings, write))
        return NOT_ALL if listed.bad and code == OK else code


async def _verify(options: VerifyOptions, eval_ids: UniqueIds | None, settings: Settings, write: Writer) -> int:
    async with open_read_only_bucket(settings) as bucket, open_lister(settings) as shelves:
        ctx = VerifyContext(
            EncryptedBucket(bucket, Keyring.of(settings.keyring_texts())),
            shelves,
            young=time.time() - options.grace,
            depth=options.depth,
            selection=options.selection,
            lock_expected=settings.lock_mode,
        )
        groups = (
            group_objects(shelves.walk("")) if eval_ids is None else _selected_groups(eval_ids, settings.environment)
        )
        count = await _write_all(ctx, groups, write)
    click.echo(f"{ctx.progress.sentence()}; {count:,} differences", err=True)
    return NOT_ALL if count else OK


async def _write_all(ctx: VerifyContext, groups: AsyncIterator[ObjectGroup], write: Writer) -> int:
    count = 0
    write(())
    found = ordered_gather(_AT_ONCE, lambda group: find_differences(ctx, group), groups)
    with ProgressLine("verify") as distance:
        async with aclosing(found):  # type: ignore[type-var]  # it is a generator
            async for differences in found:
                if differences:
                    write(differences)
                count += len(differences)
                distance.update(ctx.progress.evaluations, f"{ctx.progress.sentence()}, {count:,} differences")
    return count


async def _selected_groups(eval_ids: UniqueIds, environment: str) -> AsyncIterator[ObjectGroup]:
    for eval_id in eval_ids:
        yield ObjectGroup(evaluation_place(environment, eval_id), None)
        yield ObjectGroup(quarantine_place(environment, eval_id), None)


async def find_differences(ctx: VerifyContext, group: ObjectGroup) -> list[Difference]:
    """Return what is not as it must be in one place of the archive."""
    match group.place.area:
        case ArchiveArea.EVALUATION:
            return await check_evaluation(ctx, group) if ctx.selection.has(group.place.name) else []
        case ArchiveArea.QUARANTINE:
            return await check_quarantine(ctx, group) if ctx.selection.has(group.place.name) else []
        case ArchiveArea.RUN:
            return await check_run(ctx, group)
        case ArchiveArea.RECEIPT:
            ctx.progress.receipts += 1
            return []
        case ArchiveArea.NONE:
            return ctx.orphans("", group.objects or (), "it is nothing of ours")


def _json_lines(some: Sequence[Difference]) -> None:
    sys.stdout.buffer.writelines(orjson.dumps(each.facts(), option=orjson.OPT_APPEND_NEWLINE) for each in some)


def _csv(some: Sequence[Difference]) -> None:
    """Write differences; where there are none yet, the header."""
    writer = csv.DictWriter(sys.stdout, [field.name for field in fields(Difference)], lineterminator="\n")
    if not some:
        writer.writeheader()
    writer.writerows({name: csv_safe(str(value)) for name, value in each.facts().items()} for each in some)
