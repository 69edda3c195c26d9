"""The command `erase`: ask the operator to confirm, erase each evaluation, and print the results."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import click

from scripts.archive_access.open_bucket import open_archive_bucket, open_read_only_bucket
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.formatting import format_count
from scripts.console.interrupts import interruptible
from scripts.console.operator_name import by_option, check_line, operator_name
from scripts.console.options import account_option, json_option, kind_option, yes_option
from scripts.erase.duties import open_duties
from scripts.erase.erasure import BegunErasure, ErasureRefused, ErasureStores
from scripts.erase.outcomes import Printer
from scripts.erase.pending import begin_pending, sweep_leftovers
from scripts.erase.presence import find_in_lists
from scripts.erase.receipt import ErasureRequest
from scripts.erase.steps import EVALUATION_ERRORS, begin_request, finish_request
from scripts.erase.traces import RedisRecords
from scripts.erase.versions import open_versions
from scripts.erase.wait import wait_for_workers
from scripts.ids.arguments import ParsedIds
from scripts.ids.run_ids import read_ids_with_run, run_option
from scripts.local.processes import find_local_redis
from tasks.errors import RetryableError, StorageError
from tasks.ledger.ledger import Ledger
from tasks.model.evaluation import ENVIRONMENTS, Evaluation
from tasks.telemetry import tracing
from worker.clients.embedded_redis import is_unused
from worker.clients.errors import ServiceUnavailable
from worker.clients.redis import check_redis, open_redis
from worker.config.accounts import Accounts, load_accounts
from worker.config.settings import Settings, SettingsError, load_settings
from worker.tracing import open_tracer

_NO_REDIS = (
    "DOCV_REDIS_URL is not set, and no Redis was started here before: make sure that no worker writes to the archive"
)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Erasure:
    """The work of one call of the command.

    Attributes:
        ids: the evaluations; empty with ``pending``.
        request: the operator's request.
        settings: settings of the account; those of the process if none is selected.
        environments: environment of each account, by its name.
        wait_seconds: seconds for which a worker may still write; None to leave the receipts open.
        dry_run: whether to change nothing.
        pending: environments in which to complete open receipts and sweep recorded leftovers instead.
    """

    ids: Sequence[str]
    request: ErasureRequest
    settings: Settings
    environments: dict[str, str]
    wait_seconds: float | None
    dry_run: bool
    pending: Sequence[str]


@click.command()
@click.argument("sources", metavar="[FILE|ID]...", nargs=-1)
@run_option
@kind_option("Erase only documents of this kind, and keep the rest of the evaluation; repeat it for several kinds.")
@click.option("--reason", help="Reason, which the receipt records. Do not enter personal data.")
@by_option
@yes_option
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
@click.option("--no-wait", is_flag=True, help="Do not wait for workers; the receipt stays open until --pending.")
@click.option(
    "--pending", is_flag=True, help="Complete all open receipts, and remove objects that workers left behind."
)
@click.option(
    "--even-if-absent",
    is_flag=True,
    help="Also write a receipt if nothing is found, so that the evaluation, or the kind, is never archived.",
)
@click.option(
    "--when-allowed",
    is_flag=True,
    help='If a rule with keep = "must" prevents it, erase with the first `retention apply` after its period.',
)
@click.option("--bypass-governance", is_flag=True, help="Also remove objects under a GOVERNANCE retention.")
@account_option(
    "Account of DOCV_ACCOUNTS; if omitted, the one called default, or the only one; with --pending all accounts."
)
@json_option("Print one JSON object per line.")
def erase(
    sources: Sequence[str],
    *,
    run: str | None,
    kinds: Sequence[str],
    reason: str | None,
    by: str | None,
    account: str | None,
    yes: bool,
    as_json: bool,
    **flags: bool,
) -> int:
    """Erase evaluations for good: a privacy request.

    Removes documents, manifests, all their versions and their traces in Redis; a receipt stays in the archive. The
    evaluations are not archived again, except with --even-if-erased. If the command was interrupted, run it again.

    With --kind, only documents of that kind are removed, such as selfies. The evaluation stays in the archive, and
    documents of that kind are not archived again, even if RiskOS delivers other ones.

    A disconnected worker may still write for DOCV_LEASE_SECONDS and DOCV_PUT_SECONDS. The command waits that long
    once for all IDs, removes what was written since, and completes the receipts. --no-wait leaves this to
    `erase --pending`.

    With DOCV_RETENTION, an evaluation with documents that a rule with keep = "must" still covers is not erased, and the
    command says until when. --when-allowed records such a request; exit code 0.

    FILE is a list as for `backfill`; - is standard input, which needs --yes.

    Exit code 1 means that an evaluation was not found or not erased, that a receipt is open, or that the other
    environment has objects of an evaluation.
    """
    _check_usage(sources, run, reason, kinds, pending=flags["pending"])
    needs_answer = not (yes or flags["dry_run"] or flags["pending"])
    if needs_answer and "-" in sources:
        raise click.UsageError("- reads IDs from standard input, which cannot confirm them: give --yes, too")
    accounts = load_accounts(settings := load_settings())
    pending: Sequence[str] = ENVIRONMENTS if flags.pop("pending") else ()
    # --pending without an account needs none: all accounts share the archive and Redis.
    if account is not None or not pending:
        settings = accounts.select(account).settings
        pending = pending and (settings.environment,)
    ids = ParsedIds() if pending else read_ids_with_run(sources, run, settings)
    if needs_answer:
        _confirm(len(ids.eval_ids), kinds, settings)
    request = _make_request(reason, by, kinds, flags)
    code = interruptible(lambda: _run(ids.eval_ids, request, settings, accounts, pending, as_json=as_json, **flags))
    return NOT_ALL if code == OK and ids.bad else code


def _confirm(count: int, kinds: Sequence[str], settings: Settings) -> None:
    what = f"documents of the kind {' and '.join(kinds)}" if kinds else "documents, manifests"
    click.confirm(
        f"{format_count(count, 'evaluation')} in {settings.archive_url} ({settings.environment}): {what} and all their "
        "versions are removed for good. Continue?",
        abort=True,
        err=True,
    )


def _make_request(
    reason: str | None, by: str | None, kinds: Sequence[str], flags: Mapping[str, bool]
) -> ErasureRequest:
    return ErasureRequest(
        check_line(reason, "--reason") if reason is not None else "",
        operator_name(by),
        socket.gethostname(),
        bypass_governance=flags["bypass_governance"],
        even_if_absent=flags["even_if_absent"],
        when_allowed=flags["when_allowed"],
        kinds=tuple(sorted(set(kinds))),
    )


def _check_usage(
    sources: Sequence[str], run: str | None, reason: str | None, kinds: Sequence[str], *, pending: bool
) -> None:
    has_any = bool(sources) or run is not None
    if pending and (has_any or reason is not None or kinds):
        raise click.UsageError("--pending completes earlier erasures: give neither evaluations nor --reason nor --kind")
    if not pending and not has_any:
        raise click.UsageError("no evaluations: give IDs, files with IDs, or --run")
    if not pending and reason is None:
        raise click.UsageError("Missing option '--reason'.")


def _run(
    ids: Sequence[str],
    request: ErasureRequest,
    settings: Settings,
    accounts: Accounts,
    pending: Sequence[str],
    *,
    as_json: bool,
    **flags: bool,
) -> int:
    printer = Printer(as_json=as_json)
    tracing.set_tracer(open_tracer(settings))
    with contextlib.ExitStack() as stack:
        seconds = settings.lease_seconds + settings.put_seconds
        # A worker that uses the embedded Redis holds a file lock while it runs.
        has_worker = not settings.archive_url.startswith("file:") or not is_unused(settings.private_dir)
        try:
            settings, embedded = stack.enter_context(find_local_redis(settings))
            if embedded and embedded.started and not has_worker:
                seconds = 0.0
        except SettingsError:
            click.echo(f"docv-archive: {_NO_REDIS}", err=True)
        erasure = _Erasure(
            ids,
            request,
            settings,
            {each.name: each.settings.environment for each in accounts},
            wait_seconds=None if flags["no_wait"] else seconds,
            dry_run=flags["dry_run"],
            pending=pending,
        )
        asyncio.run(_erase(erasure, printer))
    return OK if printer.all_ok else NOT_ALL


async def _erase(erasure: _Erasure, printer: Printer) -> None:
    async with _open_stores(erasure) as stores:
        begun = await (_begin_pending if erasure.pending else _begin)(erasure, stores, printer)
        if erasure.wait_seconds is None:
            for each in begun:
                printer.print(each.evaluation, each)
            return
        if not begun:
            return
        await wait_for_workers(erasure.wait_seconds)
        whole = [each.evaluation.eval_id for each in begun if not each.request.kinds]
        mentions = await stores.redis_records.remove_mentions(whole)
        for each in begun:
            evaluation = each.evaluation
            finishing = finish_request(each, stores, mentions.get(evaluation.eval_id, ()))
            printer.print(evaluation, await _translate_errors(evaluation.eval_id, finishing))


async def _begin(erasure: _Erasure, stores: ErasureStores, printer: Printer) -> list[BegunErasure]:
    begun = []
    for eval_id in erasure.ids:
        evaluation = Evaluation(eval_id, erasure.settings.environment)
        result = await _translate_errors(
            eval_id, begin_request(evaluation, erasure.request, stores, dry_run=erasure.dry_run)
        )
        if isinstance(result, BegunErasure):
            begun.append(result)
        else:
            printer.print(evaluation, result)
    return begun


async def _begin_pending(erasure: _Erasure, stores: ErasureStores, printer: Printer) -> list[BegunErasure]:
    begun = []
    async for evaluation, result in begin_pending(erasure.request, stores, erasure.pending, dry_run=erasure.dry_run):
        if isinstance(result, BegunErasure):
            begun.append(result)
        else:
            printer.print(evaluation, result)
    async for evaluation, swept in sweep_leftovers(erasure.request, stores, erasure.pending, dry_run=erasure.dry_run):
        printer.print(evaluation, swept)
    return begun


@contextlib.asynccontextmanager
async def _open_stores(erasure: _Erasure) -> AsyncIterator[ErasureStores]:
    settings = erasure.settings
    async with contextlib.AsyncExitStack() as stack:
        ledger = None
        if settings.redis_url:
            redis = await stack.enter_async_context(open_redis(settings.need_redis_url()))
            await check_redis(redis)
            ledger = Ledger(redis)
        opened = open_read_only_bucket(settings, may_be_new=True) if erasure.dry_run else open_archive_bucket(settings)
        bucket = await stack.enter_async_context(opened)
        versions = open_versions(settings)
        # An erasure of some kinds leaves the evaluation in lists.
        whole = () if erasure.request.kinds else erasure.ids
        lists = await find_in_lists(bucket, versions, whole, _report_damage) if whole else {}
        records = RedisRecords(ledger, environments=erasure.environments)
        yield ErasureStores(bucket, versions, records, settings.tags, lists, open_duties(settings))


def _report_damage(key: str) -> None:
    click.echo(f"docv-archive: {key} is damaged, so it is unknown which evaluations it names", err=True)


async def _translate_errors(eval_id: str, work: Awaitable[Result]) -> Result | ErasureRefused:
    try:
        return await work
    except EVALUATION_ERRORS as error:
        return ErasureRefused(str(error))
    except (StorageError, RetryableError) as error:
        raise ServiceUnavailable(f"{eval_id}: {error}; run the same command to continue") from None
