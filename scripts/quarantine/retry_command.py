"""The command `quarantine retry`: read bundles again and archive their documents, without asking RiskOS."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

import click
import orjson

from scripts.archive_access.open_bucket import open_read_only_bucket
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.formatting import format_count
from scripts.console.interrupts import interruptible
from scripts.console.options import json_option
from scripts.console.read_only import ProgressLine
from scripts.local.processes import find_redis
from scripts.quarantine.retrier import Retried, open_retrier
from scripts.quarantine.selection import QuarantineSelection, make_selection, select_bundles, selection_options
from worker.config.accounts import load_accounts
from worker.config.accounts_file import AccountSettings
from worker.config.settings import Settings, load_settings
from worker.logs import configure_logs

_BATCH = 64


@click.command("retry")
@selection_options
@click.option(
    "--lenient",
    is_flag=True,
    help="Archive the intact members of refused bundles; the manifest marks each.",
)
@json_option("Print one JSON object per line.")
def retry_bundles(*, account: str | None, lenient: bool, as_json: bool, **chosen: Any) -> int:
    """Read bundles again with this version and archive their documents, without a request to RiskOS.

    For each evaluation, the bundle that RiskOS sent last is read. If all of it can be read, the outcome becomes
    `archived`. The bundle stays in quarantine. Workers may keep running. If the command was interrupted,
    run it again.

    --lenient also archives the intact members of a refused bundle, such as one that contradicts itself, is truncated
    or has extra bytes. The outcome becomes `archived` only if the directory of the bundle lists no other member.

    Exit code 1 means that an evaluation is still not archived.
    """
    accounts, selection = load_accounts(load_settings()), make_selection(**chosen)
    known = accounts.select(account)
    configure_logs(known.settings.log_level, accounts.secrets())

    def retry() -> int:
        with find_redis(known.settings) as settings:
            counts = asyncio.run(_retry(settings, known, selection, lenient=lenient, as_json=as_json))
        counted = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(counts.items()))
        click.echo(format_count(counts.total(), "evaluation") + (f": {counted}" if counted else ""), err=True)
        return OK if counts.keys() <= {"archived", "erased", "disposed"} else NOT_ALL

    return interruptible(retry)


async def _retry(
    settings: Settings, account: AccountSettings, selection: QuarantineSelection, *, lenient: bool, as_json: bool
) -> Counter[str]:
    counts, missing = Counter[str](), set(selection.eval_ids)
    async with open_retrier(settings, account, lenient=lenient) as retrier:
        with ProgressLine("retry") as progress:
            async with aclosing(_select_ids(settings, selection)) as chosen:
                async for eval_ids in chosen:
                    for each in await retrier.retry(eval_ids):
                        _print(each, as_json=as_json)
                        counts[each.outcome or "not read"] += 1
                    missing.difference_update(eval_ids)
                    progress.update(counts.total())
    for eval_id in sorted(missing):
        _print(Retried(eval_id, problem="it has no bundle in quarantine"), as_json=as_json)
        counts["not read"] += 1
    return counts


async def _select_ids(settings: Settings, selection: QuarantineSelection) -> AsyncGenerator[list[str], None]:
    """Yield the evaluations of the selected bundles in batches, each once."""
    last = ""
    async with (
        open_read_only_bucket(settings) as bucket,
        aclosing(select_bundles(bucket, settings.environment, selection)) as bundles,
    ):
        async for some in bundles:
            eval_ids = [eval_id for eval_id, _ in itertools.groupby(each.eval_id for each in some) if eval_id != last]
            last = some[-1].eval_id
            for start in range(0, len(eval_ids), _BATCH):
                yield eval_ids[start : start + _BATCH]


def _print(retried: Retried, *, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps(asdict(retried)))
        return
    what = "a new revision" if retried.has_written else "nothing new"
    click.echo(f"{retried.eval_id}  {retried.outcome or 'not read':<12}  {'' if retried.problem else what}".rstrip())
    if retried.problem:
        click.echo(f"{retried.eval_id}: {retried.problem}", err=True)
