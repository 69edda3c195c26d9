"""The command `legal-hold add`: put evaluations under a matter."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

import click

from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.formatting import format_count
from scripts.console.interrupts import interruptible
from scripts.console.operator_name import by_option, operator_name
from scripts.console.options import account_option, json_option, kind_option
from scripts.console.read_only import ProgressLine
from scripts.ids.id_list import read_selected_ids
from scripts.ids.run_ids import run_option
from scripts.ids.scratch import leave_no_folders
from scripts.ids.unique import UniqueIds
from scripts.legal_hold.holder import Holder, HoldResult
from scripts.legal_hold.opening import find_open_matter, open_hold_stores
from scripts.legal_hold.results import AT_ONCE, ResultPrinter, iterate
from scripts.verify.ordered_gather import ordered_gather
from tasks.model.evaluation import Evaluation
from tasks.model.matter_name import parse_matter
from tasks.storage.bucket import Bucket
from tasks.storage.matter import ADDED_AT_ONCE, record_addition
from worker.config.accounts import load_accounts
from worker.config.accounts_file import AccountSettings
from worker.config.settings import load_settings


@dataclass(frozen=True, slots=True)
class AddOptions:
    """What to add.

    Attributes:
        matter: name of the matter.
        by: operator that adds it.
        account: account of the evaluations.
        even_if_absent: whether to add evaluations that are not archived.
        kinds: kinds of the documents to hold; empty for all.
    """

    matter: str
    by: str
    account: AccountSettings
    even_if_absent: bool
    kinds: tuple[str, ...]


@click.command("add")
@click.argument("matter")
@click.argument("sources", metavar="[FILE|ID]...", nargs=-1)
@run_option
@kind_option("Hold only documents of this kind; repeat it for several kinds.")
@click.option(
    "--even-if-absent",
    is_flag=True,
    help="Also add evaluations that are not archived yet; a manifest names the matter, and they are archived as usual.",
)
@by_option
@account_option()
@json_option("Print one JSON object per line.")
def add(
    matter: str,
    sources: Sequence[str],
    *,
    run: str | None,
    kinds: Sequence[str],
    even_if_absent: bool,
    by: str | None,
    account: str | None,
    as_json: bool,
) -> int:
    """Put evaluations under a matter: `erase` and the retention schedule keep all of their documents.

    FILE is a list as for `backfill`; - is standard input. In a bucket with Object Lock, every version of every object
    is also under S3's legal hold. Workers hold what they archive later. If the command was interrupted, run it again.

    With --kind, documents of other kinds are not held, so `erase --kind` and the retention schedule go on with them.
    Later additions to the same matter extend it.

    Exit code 1 means that an evaluation is not under the matter: it is not archived, or it was erased.
    """
    known = load_accounts(load_settings()).select(account)
    wanted = tuple(sorted(set(kinds)))
    options = AddOptions(parse_matter(matter), operator_name(by), known, even_if_absent, wanted)
    with leave_no_folders(known.settings), read_selected_ids(sources, run, known.settings) as listed:
        printer = ResultPrinter("held", as_json=as_json)
        code = interruptible(lambda: asyncio.run(_add_all(options, listed.ids, printer)))
    return NOT_ALL if code == OK and listed.bad else code


async def _add_all(options: AddOptions, ids: UniqueIds, printer: ResultPrinter) -> int:
    settings = options.account.settings
    async with open_hold_stores(settings) as stores:
        await find_open_matter(stores.bucket, options.matter)
        holder = Holder(stores.bucket, stores.s3, options.matter, options.even_if_absent, settings.tags, options.kinds)
        with ProgressLine("legal-hold add", len(ids)) as progress:
            for chunk in ids.chunks(ADDED_AT_ONCE):
                async with aclosing(_add_some(options, chunk, stores.bucket, holder)) as results:
                    async for result in results:
                        printer.print(result)
                        progress.update(printer.count)
    if not printer.as_json:
        known = printer.ok - printer.new
        before = f" ({known:,} added earlier)" if known else ""
        click.echo(f"{format_count(printer.ok, 'evaluation', 'is', 'are')} under matter {options.matter}{before}")
    return NOT_ALL if printer.failed else OK


async def _add_some(
    options: AddOptions, eval_ids: Sequence[str], bucket: Bucket, holder: Holder
) -> AsyncGenerator[HoldResult, None]:
    """Record an addition and put its evaluations under the matter; yield the results in order."""
    environment = options.account.settings.environment
    evaluations = [Evaluation(each, environment, options.account.name) for each in eval_ids]
    found = [each async for each in ordered_gather(AT_ONCE, holder.look_up, iterate(evaluations))]
    if new := [each.evaluation.eval_id for each in found if each.is_new]:
        await record_addition(bucket, options.matter, environment, new, options.by, options.kinds)
        # A release that began before this record was written may not have found it.
        await find_open_matter(bucket, options.matter)

    async def hold(looked_up: HoldResult) -> HoldResult:
        if looked_up.why:
            return looked_up
        return replace(await holder.hold(looked_up.evaluation), is_new=looked_up.is_new)

    async with aclosing(ordered_gather(AT_ONCE, hold, iterate(found))) as results:  # type: ignore[type-var]
        async for result in results:
            yield result
    try:
        await find_open_matter(bucket, options.matter)
    except click.UsageError:
        # A release that began meanwhile may have passed some of these before they were held.
        for evaluation in evaluations:
            await holder.release(evaluation)
        raise
