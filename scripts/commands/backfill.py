"""Carry a whole list of evaluations into the archive: a named run, safe to stop and to start again."""

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import click

from scripts.archive_access.open_bucket import open_archive_bucket
from scripts.commands.backfill_plan import make_plan
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.interrupts import interruptible
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
from scripts.local.machine import local_workers
from scripts.local.processes import local_redis
from scripts.overview.run_snapshot import RunSnapshot
from scripts.overview.run_watcher import follow_run
from tasks.errors import RunCancelled, RunTaken
from tasks.ledger.ledger import BeginResult, Ledger
from tasks.model.outcome import ManifestOutcome
from tasks.queueing.message import parse_run
from tasks.storage.run_list import RunList, RunSource, hash_lines, store_run_list
from worker.clients.redis import check_redis, open_redis
from worker.config.accounts import load_accounts
from worker.config.accounts_file import AccountSettings
from worker.config.settings import Settings, load_settings

CheckWorker = Callable[[RunSnapshot], None]


@dataclass(frozen=True, slots=True)
class BackfillOptions:
    """What a backfill is asked to do.

    Attributes:
        source: file, ``-`` or ``s3://…``.
        run: name of the run; made of source and IDs where it is None.
        column: of the IDs.
        evidence_columns: columns of document type and reason codes, by these names; None to find them by theirs.
        event_at_column: of the times of the evaluations.
        limit: only so many, the first.
        sample: only so many, chosen by chance, always the same.
        refresh: ask RiskOS although there is a manifest.
        refresh_outcomes: ask RiskOS although there is a manifest, if it says one of these.
        even_if_erased: archive again what was erased.
        accept_refusals: go on even if RiskOS has no documents for the first 200.
        again: begin again if the run was cancelled.
        strict: queue nothing when a line is bad.
        rejects: file for bad lines; named after the run's source where it is None.
        account: name of the account to ask with; see ``worker.config.accounts.Accounts.find`` where it is None.
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
@click.option("--run", help="Name of the run; by default made of the file's name and its IDs.")
@column_option
@click.option(
    "--evidence-columns",
    type=EvidenceColumnsType(),
    metavar="document_type=COL,reason_codes=COL",
    help="Columns, or keys, with what explains missing documents; found by name where that is clear, or none.",
)
@click.option("--event-at-column", metavar="COL", help="Column, or key, with the time of each evaluation (RFC 3339).")
@click.option("--limit", type=click.IntRange(1, 1_000_000), help="Only so many, the first ones.")
@click.option("--sample", type=click.IntRange(1, 1_000_000), help="Only so many, by chance; always the same.")
@refresh_option
@refresh_outcome_option
@even_if_erased_option
@accept_refusals_option
@click.option("--again", is_flag=True, help="If the run was cancelled, begin it again with its first ID.")
@click.option("--strict", is_flag=True, help="Queue nothing when a line is bad.")
@click.option("--rejects", type=click.Path(dir_okay=False, path_type=Path), help="File for the bad lines.")
@click.option("--dry-run", is_flag=True, help="Only say what it would mean: requests, hours, PUTs, bytes.")
@click.option("--detach", is_flag=True, help="Do not wait: leave it to the workers.")
@account_option()
@json_option()
def backfill(*, dry_run: bool, detach: bool, as_json: bool, **chosen: Any) -> int:
    """Archive a whole list: a named run, safe to stop and to start again.

    FILE is text, CSV, JSON lines or Parquet, also gzipped; - is standard input; s3://bucket/key works, too. Workers
    archive them, as many at a time as Redis is to hold (DOCV_BACKLOG). Stop anything at any time: the same command
    goes on where it was.
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
        with _gather_ids(options, settings) as gathered:
            if dry_run:
                with local_redis(settings) as (here, _):
                    refresh = tuple(ManifestOutcome) if options.refresh else options.refresh_outcomes
                    return asyncio.run(make_plan(gathered, here, account, refresh=refresh, as_json=as_json))
            with _open_workers(settings, account) as (here, check_worker):
                summary = asyncio.run(_backfill(options, gathered, here, account, check_worker, detach=detach))
        print_summary(summary, as_json=as_json)
        return OK if (detach or summary.is_ok) and not gathered.bad else NOT_ALL

    return interruptible(archive_them)


@contextlib.contextmanager
def _open_workers(settings: Settings, account: AccountSettings) -> Iterator[tuple[Settings, CheckWorker]]:
    """Have a Redis and workers: those that are there, or where no Redis is named some of our own."""
    if settings.redis_url:
        yield settings, lambda _: None
        return
    with local_workers(settings, account.name) as here:
        yield here.settings, here.check_worker


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
        click.echo(f"bad lines, which name no evaluation: {gathered.bad}; they are in {gathered.rejects}", err=True)
    if gathered.repeated:
        click.echo(f"lines that name an evaluation again: {gathered.repeated}; each is archived once", err=True)
    if gathered.explained is not None:
        click.echo(f"evaluations with evidence for missing documents: {gathered.explained}", err=True)
    if gathered.bad_times:
        click.echo(
            f"lines with a time that is not RFC 3339 with a zone: {gathered.bad_times}; it is left out", err=True
        )
    if gathered.bad and options.strict:
        gathered.ids.close()
        raise click.UsageError("--strict: nothing was queued, since some lines are bad")
    return gathered


async def _backfill(
    options: BackfillOptions,
    gathered: Gathered,
    settings: Settings,
    account: AccountSettings,
    check_worker: CheckWorker,
    *,
    detach: bool,
) -> RunSummary:
    async with open_redis(settings.need_redis_url()) as redis:
        await check_redis(redis)
        ledger = Ledger(redis, replicas=settings.redis_replicas)
        run = await _begin(options, gathered, account, ledger)
        if detach:
            click.echo(
                f"run {run.run}: {run.source.ids} evaluations, left to the workers; `docv-archive status {run.run}`",
                err=True,
            )
            last = RunSnapshot(await ledger.get_run(run.run), await ledger.get_stats(), ())
        else:
            try:
                last = await follow_run(redis, run.run, run.source.ids, run.account, check_worker)
            except asyncio.CancelledError:
                await ledger.stop_feeding(run.run)
                raise
        seconds = await ledger.get_run_age(run.run) or 0.0
    return RunSummary(run=run.run, counters=last.counters, seconds=seconds, hold=last.refusals)


async def _begin(options: BackfillOptions, gathered: Gathered, account: AccountSettings, ledger: Ledger) -> RunList:
    """Keep the list of the run in the archive, and have the ledger fed from it.

    Raises:
        RunTaken: the name of the run means something else.
        RunCancelled: the run was cancelled, and is not to begin again.
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
        )
    begun = await ledger.begin_run(
        run.run, total=run.source.ids, fingerprint=run.fingerprint, account=run.account, again=options.again
    )
    if begun is BeginResult.CONFLICT:
        raise RunTaken(run.run, "before")
    if begun is BeginResult.CANCELLED:
        raise RunCancelled(run.run)
    if options.accept_refusals:
        await ledger.accept_refusals(run.run)
    if begun is BeginResult.RESUMED:
        click.echo(f"run {run.run} goes on where it was", err=True)
    return run


def _name(source: str) -> str:
    return "standard input" if source == "-" else PurePosixPath(source).name


def _stem(source: str) -> str:
    """Return what of a source's name can stand in the name of a run."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", _name(source).split(".")[0]).strip("-._")
    return stem[:40] or "backfill"
