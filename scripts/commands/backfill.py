"""Carry a whole list of evaluations into the archive: a named run, safe to stop and to start again."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import click

from scripts.archive_access.open_bucket import opened_bucket
from scripts.commands.backfill_plan import plan
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.interrupts import interruptible
from scripts.console.summary import Summary, print_summary
from scripts.ids.gather import Gathered, gather
from scripts.local.machine import machine
from scripts.local.processes import local_redis
from scripts.overview.run_progress import open_progress
from scripts.overview.run_snapshot import RunSnapshot
from scripts.overview.run_watcher import watch_run
from tasks.errors import RunTaken
from tasks.ledger.ledger import BeginResult, Ledger
from tasks.queueing.message import parse_run
from tasks.storage.run_list import RunList, Source, store_run_list
from worker.clients.redis import check_redis, open_redis
from worker.config.accounts import load_accounts
from worker.config.accounts_file import AccountSettings
from worker.config.settings import Settings, load_settings

Tend = Callable[[RunSnapshot], None]

_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_STEM = 40
_FINGERPRINT = 8


@dataclass(frozen=True, slots=True)
class BackfillOptions:
    """What a backfill is asked to do.

    Attributes:
        source: file, ``-`` or ``s3://…``.
        run: name of the run; made of source and IDs where it is None.
        column: of the IDs.
        limit: only so many, the first.
        sample: only so many, chosen by chance, always the same.
        refresh: ask RiskOS although there is a manifest.
        even_if_erased: archive again what was erased.
        strict: queue nothing when a line is bad.
        rejects: file for bad lines; named after the run's source where it is None.
        account: name of the account to ask with; see ``worker.config.accounts.Accounts.find`` where it is None.
    """

    source: str
    run: str | None
    column: str | None
    limit: int | None
    sample: int | None
    refresh: bool
    even_if_erased: bool
    strict: bool
    rejects: Path | None
    account: str | None


def backfill(wanted: BackfillOptions, *, dry_run: bool, detach: bool, as_json: bool) -> int:
    """Plan a backfill, or do it; return the exit code."""
    settings = load_settings()
    account = load_accounts(settings).chosen(wanted.account)
    if wanted.run is not None:
        parse_run(wanted.run)
    if detach:
        settings.need_redis_url()
    elif not settings.redis_url and not dry_run:
        account.settings.need_api_key()
    return interruptible(lambda: _do(wanted, settings, account, dry_run=dry_run, detach=detach, as_json=as_json))


def _do(
    wanted: BackfillOptions, settings: Settings, account: AccountSettings, *, dry_run: bool, detach: bool, as_json: bool
) -> int:
    with _gathered(wanted, settings) as gathered:
        if dry_run:
            with local_redis(settings) as (here, _):
                return asyncio.run(plan(gathered, here, account, refresh=wanted.refresh, as_json=as_json))
        with _workplace(settings, account) as (here, tend):
            summary = asyncio.run(_backfill(wanted, gathered, here, account, tend, detach=detach))
    print_summary(summary, as_json=as_json)
    return OK if (detach or summary.fine) and not gathered.bad else NOT_ALL


@contextlib.contextmanager
def _workplace(settings: Settings, account: AccountSettings) -> Iterator[tuple[Settings, Tend]]:
    """Have a Redis and workers: those that are there, or where no Redis is named some of our own."""
    if settings.redis_url:
        yield settings, lambda _: None
        return
    with machine(settings, account.name) as here:
        yield here.settings, here.tend


def _gathered(wanted: BackfillOptions, settings: Settings) -> Gathered:
    rejects = wanted.rejects or Path(f"{_stem(wanted.source)}.rejects.csv")
    gathered = gather(
        wanted.source,
        column=wanted.column,
        limit=wanted.limit,
        sample=wanted.sample,
        rejects=rejects,
        settings=settings,
    )
    if gathered.bad:
        click.echo(f"bad lines, which name no evaluation: {gathered.bad}; they are in {gathered.rejects}", err=True)
    if gathered.repeated:
        click.echo(f"lines that name an evaluation again: {gathered.repeated}; each is archived once", err=True)
    if gathered.bad and wanted.strict:
        gathered.ids.close()
        raise click.UsageError("--strict: nothing was queued, since some lines are bad")
    return gathered


async def _backfill(
    wanted: BackfillOptions,
    gathered: Gathered,
    settings: Settings,
    account: AccountSettings,
    tend: Tend,
    *,
    detach: bool,
) -> Summary:
    async with open_redis(settings.need_redis_url()) as redis:
        await check_redis(redis)
        ledger = Ledger(redis, replicas=settings.redis_replicas)
        run = await _begin(wanted, gathered, account, ledger)
        if detach:
            click.echo(
                f"run {run.run}: {run.source.ids} evaluations, left to the workers; `docv-archive status {run.run}`",
                err=True,
            )
            last = RunSnapshot(await ledger.get_run(run.run), await ledger.get_stats(), ())
        else:
            try:
                last = await _watch(run, watch_run(redis, run.run, run.account), tend)
            except asyncio.CancelledError:
                await ledger.stop_feeding(run.run)
                raise
        seconds = await ledger.get_run_age(run.run) or 0.0
    return Summary(run=run.run, counters=last.counters, seconds=seconds)


async def _begin(wanted: BackfillOptions, gathered: Gathered, account: AccountSettings, ledger: Ledger) -> RunList:
    """Keep the list of the run in the archive, and have the ledger fed from it.

    Raises:
        RunTaken: the name of the run means something else.
    """
    run = await _keep(wanted, gathered, account)
    begun = await ledger.begin_run(run.run, total=run.source.ids, fingerprint=run.fingerprint, account=run.account)
    if begun is BeginResult.CONFLICT:
        raise RunTaken(run.run, "before")
    if begun is BeginResult.RESUMED:
        click.echo(f"run {run.run} goes on where it was", err=True)
    return run


async def _keep(wanted: BackfillOptions, gathered: Gathered, account: AccountSettings) -> RunList:
    ids = gathered.ids
    async with opened_bucket(account.settings) as bucket:
        return await store_run_list(
            bucket,
            ids,
            run=wanted.run or f"{_stem(wanted.source)}-{ids.fingerprint[:_FINGERPRINT]}",
            environment=account.settings.environment,
            account=account.name,
            refresh=wanted.refresh,
            even_if_erased=wanted.even_if_erased,
            source=Source(
                name=_name(wanted.source),
                fingerprint=ids.fingerprint,
                ids=len(ids),
                repeated=gathered.repeated,
                bad=gathered.bad,
            ),
        )


async def _watch(run: RunList, found: AsyncIterator[RunSnapshot], tend: Tend) -> RunSnapshot:
    with open_progress(run.run, run.source.ids) as progress:
        async for seen in found:
            progress.show(seen)
            if not seen.counters.pending:
                return seen
            tend(seen)
    raise asyncio.CancelledError


def _name(source: str) -> str:
    return "standard input" if source == "-" else PurePosixPath(source).name


def _stem(source: str) -> str:
    """Return what of a source's name can stand in the name of a run."""
    stem = _NO_NAME.sub("-", _name(source).split(".")[0]).strip("-._")
    return stem[:_STEM] or "backfill"
