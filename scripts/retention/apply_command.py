"""The command `retention apply`: dispose of the documents of a plan that are still due, or of all due today."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click
import orjson

from scripts.archive_access.open_bucket import open_archive_bucket, open_read_only_bucket
from scripts.archive_access.s3_client import open_s3_archive
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.formatting import format_bytes, format_count
from scripts.console.interrupts import interruptible
from scripts.console.operator_name import by_option, operator_name
from scripts.console.options import account_option, json_option, yes_option
from scripts.console.parameter_types import RateType
from scripts.erase.duties import RetentionDuties
from scripts.erase.versions import open_versions
from scripts.erase.wait import wait_for_workers
from scripts.ids.scratch import leave_no_folders, scratch_file, scratch_folder
from scripts.retention.application import Application, ApplicationResult
from scripts.retention.assessment import DocumentState
from scripts.retention.certificate import CertificateKeys, Operator
from scripts.retention.disposal import DisposalStores, Disposer, IsIdle
from scripts.retention.lock_extender import LockExtender
from scripts.retention.plan_counts import PlanCounts
from scripts.retention.plan_file import BadPlan, Plan, read_plan
from scripts.retention.survey import Survey, load_survey
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket
from worker.clients.embedded_redis import is_unused, was_started
from worker.config.settings import Settings

if TYPE_CHECKING:
    from scripts.retention.deferred_erasures import DeferredErasures


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """Options of the command.

    Attributes:
        operator: completes the certificates.
        rate: evaluations per second.
        wait: waits until no worker that read an earlier manifest can be writing.
        dry_run: whether to change nothing.
        as_json: whether to print JSON.
    """

    operator: Operator
    rate: float
    wait: Callable[[], Awaitable[None]]
    dry_run: bool = False
    as_json: bool = False


@click.command("apply")
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--unattended", is_flag=True, help="Plan for today and apply that, but not more than max_per_run allows.")
@click.option("--rate", type=RateType(), default=20.0, show_default=True, help="Evaluations per second, at most.")
@click.option("--dry-run", is_flag=True, help="Only print what would be disposed of.")
@by_option
@yes_option
@account_option("Only the environment of this account, with --unattended; if omitted, both environments.")
@json_option()
def apply(
    file: Path | None, by: str | None, account: str | None, rate: float, *, unattended: bool, yes: bool, **flags: bool
) -> int:
    """Dispose of the documents that a plan names and that are still due.

    Schedule, events, legal holds and locks are evaluated again for each evaluation. The manifest lists a document as
    disposed, then all versions of its object are removed. A disconnected worker may still write for DOCV_LEASE_SECONDS
    and DOCV_PUT_SECONDS: the command waits that long once, removes what was written since, and writes a certificate for
    each rule. If it was interrupted, run it again.

    --unattended is for a schedule of cron, systemd or Kubernetes. It also completes interrupted applications. It stops
    before it disposes of anything if more evaluations are affected than max_per_run of the schedule allows.

    At the end, carry out requests of `erase --when-allowed` for which the duty to keep documents has ended.

    With DOCV_LOCK_MODE, locks of documents under a duty to keep are extended, too.

    Exit code 1 means that an evaluation could not be processed, or that --unattended stopped. Documents that wait for
    something are counted, and the exit code is 0.
    """
    if (file is not None) == unattended:
        raise click.UsageError("give either FILE, which `retention plan --out` writes, or --unattended")
    if file and account:
        raise click.UsageError("a plan names its environments: leave out --account")
    survey = load_survey(account)
    operator = Operator(operator_name(by), socket.gethostname())
    options = ApplyOptions(operator, rate, partial(_wait, survey.settings), **flags)
    if file is None:
        return interruptible(lambda: asyncio.run(apply_due(survey, options)))
    with _open_plan(file) as opened:
        planned = read_plan(opened)
        _check_plan(planned, survey, ask=not (yes or options.dry_run))
        return interruptible(lambda: asyncio.run(apply_plan(planned, survey, options)))


def _check_plan(plan: Plan, survey: Survey, *, ask: bool) -> None:
    """Check that a plan was made for this archive, and have the operator confirm it."""
    if plan.header.archive != survey.settings.archive_url:
        raise BadPlan(f"the plan was made for {plan.header.archive}, and DOCV_ARCHIVE_URL is another archive")
    if plan.header.schedule != survey.schedule_hash:
        click.echo("docv-archive: the schedule has changed since the plan was made; the current one decides", err=True)
    if ask:
        click.confirm(
            f"{format_count(plan.totals.documents, 'document')} ({format_bytes(plan.totals.bytes)}) of "
            f"{format_count(plan.totals.evaluations, 'evaluation')} in {survey.settings.archive_url}: all versions of "
            "those that are still due are removed for good. Continue?",
            abort=True,
            err=True,
        )


async def apply_plan(plan: Plan, survey: Survey, options: ApplyOptions) -> int:
    """Apply a plan; print the result, and return the exit code.

    Raises:
        ServiceUnavailable: S3, or the folder, refuses or fails.
    """
    async with _open_bucket(survey.settings, options) as bucket:
        result = await _run(plan, survey, bucket, options)
        extender = _make_extender(survey, options)
        if extender:
            await survey.extend_locks(bucket, extender)
        deferred = await _erase_deferred(bucket, survey, options, plan.header.environments)
    return await _finish(result, deferred, survey, options, extender)


async def apply_due(survey: Survey, options: ApplyOptions) -> int:
    """Plan for today and apply that, unless too many evaluations are affected; raises as ``apply_plan``."""
    settings, extender = survey.settings, _make_extender(survey, options)
    with leave_no_folders(settings), scratch_file(scratch_folder(settings)) as file:
        async with _open_bucket(settings, options) as bucket:
            counts = await survey.run(bucket, survey.today, out=file, extender=extender)
            due, most = counts.by_state[DocumentState.DUE], survey.schedule.max_evaluations(counts.evaluations)
            if due > most:
                click.echo(
                    f"docv-archive: {format_count(due, 'evaluation')} have documents that are due, and max_per_run "
                    f"allows {most:,}: nothing was disposed of; check `retention plan --out FILE`, then run "
                    "`retention apply FILE`",
                    err=True,
                )
                return NOT_ALL
            result = await _run(read_plan(file), survey, bucket, options)
            deferred = await _erase_deferred(bucket, survey, options, survey.environments)
    return await _finish(result, deferred, survey, options, extender, counts)


async def _run(plan: Plan, survey: Survey, bucket: Bucket, options: ApplyOptions) -> ApplicationResult:
    settings = survey.settings
    disposer = Disposer(
        DisposalStores(bucket, open_versions(settings), settings.tags),
        survey.schedule,
        CertificateKeys(plan.sha256, plan.header.made_at),
        survey.today,
        survey.clock,
    )
    application = Application(
        plan,
        disposer,
        options.operator,
        rate=options.rate,
        wait=options.wait,
        open_leases=partial(_open_leases, settings),
    )
    return await application.run(dry_run=options.dry_run)


async def _erase_deferred(
    bucket: Bucket, survey: Survey, options: ApplyOptions, environments: Sequence[str]
) -> "DeferredErasures":
    # Imported lazily: a folder needs no Redis.
    from scripts.retention.deferred_erasures import erase_deferred  # noqa: PLC0415

    # Checked now: once this process uses the embedded Redis, the lock no longer shows whether a worker runs.
    wait = partial(wait_for_workers, 0) if _has_no_worker(survey.settings) else options.wait
    duties = RetentionDuties(survey.schedule, survey.today)
    return await erase_deferred(
        bucket, survey.settings, duties, environments, options.operator, wait, dry_run=options.dry_run
    )


@contextlib.asynccontextmanager
async def _open_leases(settings: Settings) -> AsyncIterator[IsIdle]:
    """Yield a function that returns whether no worker has an evaluation."""
    if _has_no_worker(settings):
        yield _has_no_lease
        return
    # Imported lazily: a folder needs no Redis.
    from scripts.retention.redis_records import open_redis_records  # noqa: PLC0415

    async with open_redis_records(settings) as records:
        yield records.is_idle


async def _has_no_lease(_: Evaluation) -> bool:
    """Return True: without workers there are no leases."""
    return True


async def _wait(settings: Settings) -> None:
    """Wait for workers, unless there is none."""
    if not _has_no_worker(settings):
        await wait_for_workers(settings.lease_seconds + settings.put_seconds)


def _has_no_worker(settings: Settings) -> bool:
    """Return whether no worker runs: one that uses the embedded Redis of a folder holds a file lock."""
    private = settings.private_dir
    is_local = settings.archive_url.startswith("file:") and settings.redis_url is None
    return is_local and was_started(private) and is_unused(private)


def _make_extender(survey: Survey, options: ApplyOptions) -> LockExtender | None:
    settings = survey.settings
    if options.dry_run or settings.lock_mode is None or settings.lock_days is None:
        return None
    if (archive := open_s3_archive(settings)) is None:
        return None
    return LockExtender(archive, survey.schedule, settings.lock_mode, settings.lock_days, survey.today)


async def _finish(
    result: ApplicationResult,
    deferred: "DeferredErasures",
    survey: Survey,
    options: ApplyOptions,
    extender: LockExtender | None,
    counts: PlanCounts | None = None,
) -> int:
    """Print the result at the end of an application, and return the exit code.

    Args:
        counts: the counts of the whole archive, with --unattended.
    """
    extended = extender.extended if extender else 0
    if options.as_json:
        about = {"dry_run": options.dry_run, "locks_extended": extended, "deferred_erasures": deferred.as_json()}
        click.echo(orjson.dumps(result.as_json() | about))
    else:
        for sentence in (*result.sentences(dry_run=options.dry_run), *deferred.sentences(dry_run=options.dry_run)):
            click.echo(sentence)
        if extended:
            click.echo(f"{format_count(extended, 'lock')} extended")
    for sentence in counts.problems() if counts else ():
        click.echo(f"docv-archive: {sentence}", err=True)
    if result.failed or deferred.failed or (counts and counts.damaged):
        return NOT_ALL
    if counts and survey.settings.redis_url and not options.dry_run:
        # Imported lazily: a folder needs no Redis.
        from scripts.verify.success import record_success  # noqa: PLC0415
        from tasks.ledger.last_success import NightlyCommand  # noqa: PLC0415

        await record_success(survey.settings.need_redis_url(), NightlyCommand.RETENTION)
    return OK


@contextlib.asynccontextmanager
async def _open_bucket(settings: Settings, options: ApplyOptions) -> AsyncIterator[Bucket]:
    opened = open_read_only_bucket(settings) if options.dry_run else open_archive_bucket(settings)
    async with opened as bucket:
        yield bucket


@contextlib.contextmanager
def _open_plan(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise click.FileError(str(path), hint=str(error.strerror)) from None
