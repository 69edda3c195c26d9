"""Archive on one machine: start a Redis and a worker, and wait until all evaluations are done."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from scripts.console.formatting import format_count
from scripts.console.summary import RunSummary
from scripts.local.processes import LocalWorker, local_redis, local_worker
from scripts.overview.run_lists import keep_run_list
from scripts.overview.run_snapshot import RunSnapshot
from scripts.overview.run_watcher import follow_run
from tasks.ledger.ledger import Ledger
from tasks.model.account import DEFAULT_ACCOUNT
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.model.outcome import ManifestOutcome, Outcome
from tasks.queueing.publisher import Publisher, enqueue
from tasks.resilience.holds import Holds, Reason
from tasks.retention.schedule import load_schedule
from worker.app import make_publishing_app
from worker.clients.archive import check_archive, check_conditional_writes, open_archive
from worker.clients.embedded_redis import EmbeddedRedis
from worker.clients.errors import ServiceUnavailable
from worker.clients.file_system import check_file_system
from worker.clients.redis import check_redis, open_redis
from worker.config.accounts import load_accounts
from worker.config.settings import Settings

_OF_THE_KEY = {Reason.UNAUTHORIZED, Reason.FORBIDDEN, Reason.NOT_ACTIVATED}


class LocalWorkers:
    """A running Redis and a running worker.

    Args:
        settings: settings that name the Redis.
        worker: the worker process.
        account: name of the account to use.
    """

    def __init__(self, settings: Settings, worker: LocalWorker, account: str) -> None:
        self.settings, self._worker, self._account = settings, worker, account

    def print_log_path(self) -> None:
        """Name the worker's log on standard error."""
        click.echo(f"the log of the worker is {self._worker.log}", err=True)

    def archive(
        self,
        eval_ids: Sequence[str],
        *,
        refresh: bool = False,
        refresh_outcomes: tuple[ManifestOutcome, ...] = (),
        even_if_erased: bool = False,
        accept_refusals: bool = False,
        source: str | None = None,
    ) -> RunSummary:
        """Archive evaluations and wait until each has its outcome.

        Args:
            eval_ids: canonical IDs, each once.
            refresh: ask RiskOS again about archived evaluations.
            refresh_outcomes: ask RiskOS again about evaluations whose manifest says one of these.
            even_if_erased: archive erased evaluations again.
            accept_refusals: go on even if RiskOS has no documents for the first 200.
            source: source of the IDs, for the list of the run; None stores no list.

        Raises:
            ServiceUnavailable: the worker dies again and again, or RiskOS refuses the key.
        """
        name, started = make_run_name("run"), time.monotonic()
        order = EnqueueOptions(
            Queue.BACKFILL,
            self._account,
            Trigger("run", run=name),
            refresh=refresh,
            refresh_outcomes=refresh_outcomes,
            even_if_erased=even_if_erased,
        )
        last = asyncio.run(self._archive(eval_ids, name, order, source, accept_refusals=accept_refusals))
        seconds = time.monotonic() - started
        return RunSummary(run=name, counters=last.counters, seconds=seconds, hold=last.refusals)

    async def _archive(
        self, eval_ids: Sequence[str], name: str, order: EnqueueOptions, source: str | None, *, accept_refusals: bool
    ) -> RunSnapshot:
        account = load_accounts(self.settings).select(self._account)
        async with open_redis(self.settings.need_redis_url()) as redis:
            ledger = Ledger(redis, replicas=self.settings.redis_replicas)
            if source is not None:
                await keep_run_list(ledger, account, eval_ids, order, source)
            if accept_refusals:
                await ledger.runs.accept_refusals(name)
            with contextlib.closing(Publisher(make_publishing_app(self.settings))) as publisher:
                await enqueue(ledger, publisher, eval_ids, order)
            return await follow_run(redis, name, len(eval_ids), account, self)

    @property
    def pid(self) -> int:
        """The ID of the worker's process; another one after a restart."""
        return self._worker.pid

    def check(self, seen: RunSnapshot) -> None:
        """Check that the run can go on: the worker lives, and RiskOS accepts the key.

        Raises:
            ServiceUnavailable: the worker dies again and again, or RiskOS has refused the key from the beginning.
        """
        self._worker.check_alive()
        # Waiting helps if a key that worked is refused for a while, but not if it never worked.
        asked = sum(count for outcome, count in seen.counters.outcomes.items() if outcome is not Outcome.UNCHANGED)
        refused = next((hold for hold in seen.holds if hold.reason in _OF_THE_KEY), None)
        if refused and not asked:
            raise ServiceUnavailable(
                f"{refused.note}: check DOCV_API_KEY or DOCV_ACCOUNTS, the environment and whether the account is "
                f"activated; {format_count(seen.counters.pending, 'evaluation', 'waits', 'wait')}; then "
                "run the same command to continue"
            )


@contextlib.contextmanager
def local_workers(settings: Settings, account: str = DEFAULT_ACCOUNT) -> Iterator[LocalWorkers]:
    """Run a worker, and an embedded Redis unless the settings name one, while the block runs.

    Args:
        settings: settings of the process, not of one account; the worker reads those itself.
        account: name of the account to use.

    Raises:
        SettingsError: the retention schedule cannot be read.
        EmbeddedError: there is no Redis.
        ServiceUnavailable: Redis or the bucket is not usable.
    """
    load_schedule(settings)
    with local_redis(settings) as (here, embedded):
        asyncio.run(_prepare(here, embedded))
        with local_worker(here, embedded) as worker:
            yield LocalWorkers(here, worker, account)


def make_run_name(kind: str) -> str:
    """Return a name for a run without one."""
    return f"{kind}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


async def _prepare(settings: Settings, embedded: EmbeddedRedis | None) -> None:
    """Check that all services answer; if Redis was just started here, end the leases and holds of earlier workers."""
    async with open_redis(settings.need_redis_url()) as redis:
        await check_redis(redis)
        archive = open_archive(settings)
        await check_archive(archive, settings)
        if isinstance(archive, Path):
            check_file_system(archive)
        await check_conditional_writes(archive, settings)
        if embedded and embedded.started:
            await Ledger(redis).end_leases()
            # End holds that need a probe, so that they are probed now. Holds by a person or the quota stay.
            holds = Holds(redis)
            for hold in await holds.list_all():
                if hold.needs_probe:
                    await holds.end(hold.scope)
