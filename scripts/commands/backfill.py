"""Archive a whole list of evaluations as a named run that can be stopped and started again."""

import asyncio
import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import click

from scripts.archive_access.open_bucket import open_archive_bucket
from scripts.commands.backfill_plan import make_plan
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.formatting import format_count
from scripts.console.interrupts import interruptible
from scripts.console.operator_name import actor_name
from scripts.console.options import (
    accept_refusals_option,
    account_option,
    column_option,
    even_if_erased_option,
    json_option,
    refresh_option,
    refresh_outcome_option,
)
from scripts.console.parameter_types import EvidenceColumnsType
from scripts.console.summary import RunSummary, print_summary
from scripts.ids.facts import FactColumns
from scripts.ids.gather import Gathered, gather
from scripts.ids.scratch import leave_no_folders
from scripts.local.machine import LocalWorkers, local_workers
from scripts.local.processes import local_redis
from scripts.overview.run_snapshot import RunSnapshot
from scripts.overview.run_watcher import check_run, follow_run
from tasks.errors import RunCancelled, RunTaken
from tasks.ledger.ledger import Ledger
from tasks.ledger.runs import BeginResult
from tasks.model.outcome import ManifestOutcome
from tasks.model.run_name import parse_run
from tasks.storage.run_list import RunList, RunSource, hash_lines, store_run_list
from worker.clients.embedded_redis import was_started
from worker.clients.redis import check_redis, open_redis
from worker.config.accounts import load_accounts
from worker.config.accounts_file import AccountSettings
from worker.config.settings import Settings, load_settings


@dataclass(frozen=True, slots=True)
class BackfillOptions:
    """The options of a backfill.

    Attributes:
        source: file, ``-`` or ``s3://…``.
        run: name of the run; None to make one from the source and the IDs.
        column: column of the IDs.
        evidence_columns: columns of document type and reason codes, by these names; None to detect them by name.
        event_at_column: column of the times of the evaluations.
        limit: archive the first N IDs only.
        sample: archive a random sample of N IDs only, the same sample every time.
        refresh: ask RiskOS even if there is a manifest.
        refresh_outcomes: ask RiskOS even if there is a manifest, for manifests with one of these outcomes.
        even_if_erased: archive erased evaluations again.
        accept_refusals: go on even if RiskOS has no documents for the first 200.
        again: begin again if the run was cancelled.
        strict: queue nothing if a line is bad.
        rejects: file for bad lines; None to name it after the source.
        account: name of the account; for None see ``worker.config.accounts.Accounts.find``.
    """

    source: str
    run: str | None
    column: str | None
    evidence_columns: Mapping[str, str] | None
    event_at_column: str | None
    limit: int | None
    sample: int | None
    refresh: bool
    refresh_outcomes: tuple[ManifestOutcome, ...]
    even_if_erased: bool
    accept_refusals: bool
    again: bool
    strict: bool
    rejects: Path | None
    account: str | None


@click.command()
@click.argument("source", metavar="FILE")
@click.option("--run", help="Name of the run; by default derived from the file's name and its IDs.")
@column_option
@click.option(
    "--evidence-columns",
    type=EvidenceColumnsType(),
    metavar="document_type=COL,reason_codes=COL",
    help="Columns or keys with facts that explain missing documents; detected by name if unambiguous.",
)
@click.option("--event-at-column", metavar="COL", help="Column or key with the time of each evaluation (RFC 3339).")
@click.option("--limit", type=click.IntRange(1, 1_000_000), help="Archive the first N IDs only.")
@click.option(
    "--sample",
    type=click.IntRange(1, 1_000_000),
    help="Archive a random sample of N IDs only (the same sample every time).",
)
@refresh_option
@refresh_outcome_option
@even_if_erased_option
@accept_refusals_option
@click.option("--again", is_flag=True, help="Start a cancelled run again from its first ID.")
@click.option("--strict", is_flag=True, help="Queue nothing if any line is invalid.")
@click.option("--rejects", type=click.Path(dir_okay=False, path_type=Path), help="File for the invalid lines.")
@click.option("--dry-run", is_flag=True, help="Estimate requests, time, PUT requests and bytes; queue nothing.")
@click.option("--detach", is_flag=True, help="Do not wait for the workers to finish.")
@account_option()
@json_option()
def backfill(*, dry_run: bool, detach: bool, as_json: bool, **chosen: Any) -> int:
    """Archive a whole list as a named run, which is safe to stop and restart.

    FILE may be text, CSV, JSON Lines or Parquet, optionally gzipped. Use - for standard input, or s3://bucket/key for
    an object in S3. The workers archive the evaluations, and at most DOCV_BACKLOG of them wait in Redis at a time. You
    can stop the command and the workers at any time. Run the same command again to continue.
    """
    options = BackfillOptions(**chosen)
    settings = load_settings()
    account = load_accounts(settings).select(options.account)
    if options.run is not None:
        parse_run(options.run)
    if detach:
        settings.need_redis_url()
    elif not settings.redis_url and not dry_run:
        account.settings.need_api_key()

    def archive_them() -> int:
        if dry_run:
            return _plan(options, settings, account, as_json=as_json)
        with _gather_ids(options, settings) as gathered, _open_workers(settings, account) as workers:
            summary = asyncio.run(_backfill(options, gathered, settings, account, workers, detach=detach))
        if as_json or not detach:
            print_summary(summary, as_json=as_json)
        return OK if (detach or summary.is_ok) and not gathered.bad else NOT_ALL

    return interruptible(archive_them)


def _plan(options: BackfillOptions, settings: Settings, account: AccountSettings, *, as_json: bool) -> int:
    """Print the plan of a backfill, without a new Redis or a folder that stays behind."""
    refresh = tuple(ManifestOutcome) if options.refresh else options.refresh_outcomes
    with contextlib.ExitStack() as stack:
        stack.enter_context(leave_no_folders(settings))
        gathered = stack.enter_context(_gather_ids(options, settings))
        has_redis = settings.redis_url or was_started(settings.private_dir)
        here = stack.enter_context(local_redis(settings))[0] if has_redis else None
        return asyncio.run(make_plan(gathered, here, account, refresh=refresh, as_json=as_json))


@contextlib.contextmanager
def _open_workers(settings: Settings, account: AccountSettings) -> Iterator[LocalWorkers | None]:
    """Start a Redis and a worker; yield None if the settings name a Redis, because its workers do the work."""
    if settings.redis_url:
        yield None
        return
    with local_workers(settings, account.name) as here:
        yield here


def _gather_ids(options: BackfillOptions, settings: Settings) -> Gathered:
    gathered = gather(
        options.source,
        column=options.column,
        limit=options.limit,
        sample=options.sample,
        rejects=options.rejects or Path(f"{_stem(options.source)}.rejects.csv"),
        settings=settings,
        facts=FactColumns(
            **(options.evidence_columns or {}),
            event_at=options.event_at_column,
            by_name=options.evidence_columns is None,
        ),
    )
    if gathered.bad:
        click.echo(f"invalid lines, without an evaluation ID: {gathered.bad}; they are in {gathered.rejects}", err=True)
    if gathered.repeated:
        click.echo(f"lines that repeat an evaluation: {gathered.repeated}; each is archived once", err=True)
    if gathered.explained is not None:
        click.echo(f"evaluations with evidence for missing documents: {gathered.explained}", err=True)
    if gathered.bad_times:
        click.echo(
            f"lines with a time that is not RFC 3339 with a zone: {gathered.bad_times}; the time is ignored", err=True
        )
    if gathered.bad and options.strict:
        gathered.ids.close()
        raise click.UsageError("--strict: nothing was queued, because some lines are invalid")
    return gathered


async def _backfill(
    options: BackfillOptions,
    gathered: Gathered,
    settings: Settings,
    account: AccountSettings,
    workers: LocalWorkers | None,
    *,
    detach: bool,
) -> RunSummary:
    settings = workers.settings if workers else settings
    async with open_redis(settings.need_redis_url()) as redis:
        await check_redis(redis)
        ledger = Ledger(redis, replicas=settings.redis_replicas)
        run = await _begin(options, gathered, account, ledger)
        if detach:
            click.echo(
                f"run {run.run}: {format_count(run.source.ids, 'evaluation')}, left to the workers; see "
                f"`docv-archive status {run.run}`",
                err=True,
            )
            last = RunSnapshot(await ledger.runs.get_counters(run.run), await ledger.get_stats(), ())
            check_run(last.counters, run.source.ids)
        else:
            if workers:
                workers.print_log_path()
            try:
                last = await follow_run(redis, run.run, run.source.ids, account, workers)
            except asyncio.CancelledError:
                await ledger.runs.stop_feeding(run.run)
                raise
        seconds = await ledger.runs.get_age(run.run) or 0.0
    return RunSummary(run=run.run, counters=last.counters, seconds=seconds, hold=last.refusals)


async def _begin(options: BackfillOptions, gathered: Gathered, account: AccountSettings, ledger: Ledger) -> RunList:
    """Store the list of the run in the archive, and begin to feed the ledger from it.

    Raises:
        RunTaken: a run of this name has other IDs or options.
        RunCancelled: the run was cancelled, and ``again`` is not given.
    """
    ids = gathered.ids
    facts = hash_lines(ids, ids.facts()) if ids.has_facts else None
    async with open_archive_bucket(account.settings) as bucket:
        run = await store_run_list(
            bucket,
            ids,
            run=options.run or f"{_stem(options.source)}-{(facts or ids.fingerprint)[:8]}",
            environment=account.settings.environment,
            account=account.name,
            refresh=options.refresh,
            refresh_outcomes=options.refresh_outcomes,
            even_if_erased=options.even_if_erased,
            again=options.again,
            source=RunSource(
                name=_name(options.source),
                fingerprint=ids.fingerprint,
                ids=len(ids),
                repeated=gathered.repeated,
                bad=gathered.bad,
                facts=facts,
            ),
            facts=ids.facts() if facts else None,
            by=actor_name(),
        )
    begun = await ledger.runs.begin(
        run.run, total=run.source.ids, fingerprint=run.fingerprint, account=run.account, again=options.again
    )
    if begun is BeginResult.CONFLICT:
        raise RunTaken(run.run, "before")
    if begun is BeginResult.CANCELLED:
        raise RunCancelled(run.run)
    if options.accept_refusals:
        await ledger.runs.accept_refusals(run.run)
    if begun is BeginResult.RESUMED:
        click.echo(f"run {run.run} continues where it stopped", err=True)
    return run


def _name(source: str) -> str:
    return "standard input" if source == "-" else PurePosixPath(source).name


def _stem(source: str) -> str:
    """Return the part of a source's name that may be part of the name of a run."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", _name(source).split(".")[0]).strip("-._")
    return stem[:40] or "backfill"
