"""Verify the archive, or some of it, and print every difference."""

import csv
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, fields
from datetime import UTC, datetime

import click
import orjson

from scripts.archive_access.open_bucket import opened_for_reading
from scripts.archive_access.selected_account import settings_of
from scripts.console.csv_safety import csv_safe
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.read_only import ProgressLine, run_read_only
from scripts.ids.id_list import read_id_list
from scripts.ids.unique import UniqueIds
from scripts.verify.check_evaluation import check_evaluation, check_quarantine
from scripts.verify.check_run import check_run
from scripts.verify.context import Chosen, Depth, VerifyContext
from scripts.verify.layout import Group, Room, evaluation_place, grouped, quarantine_place
from scripts.verify.open_lister import opened_shelves
from scripts.verify.ordered_gather import at_once
from scripts.verify.problems import Difference
from tasks.storage.encrypted_bucket import EncryptedBucket
from tasks.storage.encryption import Keyring
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
        chosen: which evaluations.
        grace: seconds that a manifest may take to follow its objects.
        account: name of the account whose evaluations the list names.
    """

    source: str | None
    column: str | None
    depth: Depth
    chosen: Chosen
    grace: float
    account: str | None


def wanted_of(
    source: str | None,
    *,
    column: str | None,
    sample: float,
    since: datetime | None,
    checksums_only: bool,
    sizes_only: bool,
    grace: int,
    account: str | None,
) -> VerifyOptions:
    """Return what the options of the command ask for."""
    depth = Depth.SIZES if sizes_only else Depth.CHECKSUMS if checksums_only else Depth.CONTENT
    return VerifyOptions(source, column, depth, Chosen(sample, since and since.replace(tzinfo=UTC)), grace, account)


def verify(wanted: VerifyOptions, *, as_json: bool) -> int:
    """Print every difference; return the exit code."""
    settings = settings_of(wanted.account) if wanted.source else load_settings()
    write = _json_lines if as_json else _csv
    if wanted.source is None:
        return run_read_only(_verify(wanted, None, settings, write))
    with read_id_list(wanted.source, wanted.column, settings) as listed:
        code = run_read_only(_verify(wanted, listed.ids, settings, write))
        return NOT_ALL if listed.bad and code == OK else code


async def _verify(wanted: VerifyOptions, eval_ids: UniqueIds | None, settings: Settings, write: Writer) -> int:
    async with opened_for_reading(settings) as bucket, opened_shelves(settings) as shelves:
        means = VerifyContext(
            EncryptedBucket(bucket, Keyring.of(settings.keyring_texts())),
            shelves,
            young=time.time() - wanted.grace,
            depth=wanted.depth,
            chosen=wanted.chosen,
            lock_expected=settings.lock_mode,
        )
        groups = _everything(means) if eval_ids is None else _some(eval_ids, settings.environment)
        count = await _write_all(means, groups, write)
    click.echo(f"{means.tally.sentence()}; {count:,} differences", err=True)
    return NOT_ALL if count else OK


async def _write_all(means: VerifyContext, groups: AsyncIterator[Group], write: Writer) -> int:
    count = 0
    write(())
    found = at_once(_AT_ONCE, lambda group: differences_of(means, group), groups)
    with ProgressLine("verify") as distance:
        async with aclosing(found):  # type: ignore[type-var]  # it is a generator
            async for differences in found:
                if differences:
                    write(differences)
                count += len(differences)
                distance.show(means.tally.evaluations, f"{means.tally.sentence()}, {count:,} differences")
    return count


async def _everything(means: VerifyContext) -> AsyncIterator[Group]:
    async for group in grouped(means.shelves.walk("")):
        yield group


async def _some(eval_ids: UniqueIds, environment: str) -> AsyncIterator[Group]:
    for eval_id in eval_ids:
        yield Group(evaluation_place(environment, eval_id), None)
        yield Group(quarantine_place(environment, eval_id), None)


async def differences_of(means: VerifyContext, group: Group) -> list[Difference]:
    """Return what is not as it must be in one place of the archive."""
    match group.place.room:
        case Room.EVALUATION:
            return await check_evaluation(means, group) if means.chosen.has(group.place.name) else []
        case Room.QUARANTINE:
            return await check_quarantine(means, group) if means.chosen.has(group.place.name) else []
        case Room.RUN:
            return await check_run(means, group)
        case Room.RECEIPT:
            means.tally.receipts += 1
            return []
        case Room.NONE:
            return means.orphans("", group.objects or (), "it is nothing of ours")


def _json_lines(some: Sequence[Difference]) -> None:
    sys.stdout.buffer.writelines(orjson.dumps(each.facts(), option=orjson.OPT_APPEND_NEWLINE) for each in some)


def _csv(some: Sequence[Difference]) -> None:
    """Write differences; where there are none yet, the header."""
    writer = csv.DictWriter(sys.stdout, [field.name for field in fields(Difference)], lineterminator="\n")
    if not some:
        writer.writeheader()
    writer.writerows({name: csv_safe(str(value)) for name, value in each.facts().items()} for each in some)
