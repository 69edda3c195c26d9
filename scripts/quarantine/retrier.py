"""Read bundles in quarantine again; hold a lease on each evaluation, as workers do."""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from tasks.consumer.context import make_reread_context
from tasks.consumer.loop import Loop, run_loop
from tasks.errors import ArchiveError, IntegrityError, LeaseLost, ManifestChanged, SealingKeyMissing, SpoolError
from tasks.ledger.entries import DAMAGED
from tasks.ledger.leases import LeaseKeeper
from tasks.ledger.ledger import Ledger
from tasks.ledger.leftovers import Leftovers
from tasks.model.evaluation import Evaluation
from tasks.model.job import EnqueueOptions, Job, Queue, Trigger
from tasks.model.outcome import ArchiveResult, ManifestOutcome, Outcome
from tasks.pipeline.erased_meanwhile import archive_guarded
from tasks.pipeline.manifest_builder import QUARANTINE_SOURCE
from tasks.pipeline.pipeline import LeaseWatch
from tasks.pipeline.reread import reread
from tasks.resilience.holds import ARCHIVE, Holds
from tasks.retention.schedule import load_schedule
from worker.clients.errors import ServiceUnavailable
from worker.config.accounts_file import AccountSettings
from worker.config.settings import Settings
from worker.resources import Resources, open_resources

_AT_ONCE = 8
_TICK_SECONDS = 1.0
_UNCHANGED = ArchiveResult(Outcome.UNCHANGED, ManifestOutcome.UNREADABLE)
_UNDER_WAY = "a worker or another command is processing it: run the same command again later"
_WAITING = {
    "dead": "it is a dead letter: `docv-archive dead-letters redrive` or `drop` it first",
    "damaged": f"its entry in Redis is damaged: `docv-archive dead-letters drop --cause {DAMAGED}` first",
}


@dataclass(frozen=True, slots=True)
class Retried:
    """The result for one evaluation.

    Attributes:
        eval_id: the evaluation.
        outcome: the outcome in its manifest; None if the bundle was not read again.
        has_written: whether a new revision was written.
        problem: a sentence that says why the bundle was not read again.
    """

    eval_id: str
    outcome: ManifestOutcome | None = None
    has_written: bool = False
    problem: str | None = None


class Retrier:
    """Reads bundles again, and extends its leases meanwhile.

    Args:
        settings: settings of the account, with Redis.
        account: the account of the evaluations.
        resources: the open clients.
        lenient: whether to archive the intact members of a refused bundle.
    """

    def __init__(self, settings: Settings, account: AccountSettings, resources: Resources, *, lenient: bool) -> None:
        self._account, self._environment = account.name, account.settings.environment
        self._ledger = Ledger(resources.redis, settings.lease_seconds, replicas=settings.redis_replicas)
        self._leases, self._leftovers = LeaseKeeper(self._ledger), Leftovers(resources.redis)
        self._holds, self._at_once = Holds(resources.redis), asyncio.Semaphore(_AT_ONCE)
        self._context = make_reread_context(
            settings,
            resources,
            load_schedule(settings),
            at_once=_AT_ONCE,
            confirm_lease=self._leases.confirm,
            watch=LeaseWatch(self._leases.is_fresh, self._leases.attempt, self._leftovers.add),
            lenient=lenient,
        )

    async def retry(self, eval_ids: Sequence[str]) -> list[Retried]:
        """Read the bundles of some evaluations again, in their order, each evaluation once.

        Raises:
            ServiceUnavailable: the archive is on hold.
            StorageError: the archive fails; the ledger no longer has the evaluations.
        """
        (hold,) = await self._holds.get_each(ARCHIVE)
        if hold:
            raise ServiceUnavailable(f"the archive is on hold ({hold.reason}); see `docv-archive status`")
        states = {each: state for each, (state, _) in zip(eval_ids, await self._ledger.locate(eval_ids), strict=True)}
        jobs = await self._lease(states)
        with self._leases.keep(tuple(jobs.values())):
            ended = await asyncio.gather(
                *(self._retry_one(each, jobs.get(each), states[each]) for each in states), return_exceptions=True
            )
        await self._leftovers.flush()
        for failed in (each for each in ended if isinstance(each, BaseException)):
            raise failed
        return [each for each in ended if isinstance(each, Retried)]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Extend the leases until the block ends."""

        async def cancel_stale() -> None:
            self._leases.cancel_stale()

        beat = self._leases.interval
        loops = Loop("leases", beat, self._leases.renew, longest_pause=beat), Loop("tick", _TICK_SECONDS, cancel_stale)
        tasks = [asyncio.create_task(run_loop(loop)) for loop in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _lease(self, states: Mapping[str, str | None]) -> dict[str, Job]:
        """Lease the evaluations that have no other order, including those whose retry was killed."""
        options = EnqueueOptions(Queue.BACKFILL, self._account, Trigger(QUARANTINE_SOURCE), without_request=True)
        if unknown := [each for each, state in states.items() if state is None]:
            await self._ledger.accept(unknown, options)
        token = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"
        found = await self._ledger.lease([each for each, state in states.items() if state not in _WAITING], token=token)
        for job in found:
            if not _is_retry(job):
                await self._ledger.release(job)
        return {job.eval_id: job for job in found if _is_retry(job)}

    async def _retry_one(self, eval_id: str, job: Job | None, state: str | None) -> Retried:
        if job is None:
            return Retried(eval_id, problem=_WAITING.get(state or "", _UNDER_WAY))
        evaluation = Evaluation(eval_id, self._environment, self._account)
        result = _UNCHANGED
        try:
            async with self._at_once:
                self._leases.begin(job)
                work = partial(reread, job, evaluation, self._context)
                result = await archive_guarded(job, evaluation, self._context, work)
        except LeaseLost:
            return Retried(eval_id, problem=_UNDER_WAY)
        except (IntegrityError, SealingKeyMissing, SpoolError, ManifestChanged) as error:
            return Retried(eval_id, problem=str(error))
        finally:
            # Even if it failed, no worker may continue with it.
            with contextlib.suppress(LeaseLost):
                await self._ledger.complete(job, result.outcome, result.unchanged)
            self._leases.forget(job)
        return Retried(eval_id, result.unchanged or ManifestOutcome(result.outcome), result.has_written)


def _is_retry(job: Job) -> bool:
    """Return whether a retry of the quarantine is the only order for an evaluation."""
    return job.trigger.source == QUARANTINE_SOURCE and job.without_request and not job.evidence


@contextlib.asynccontextmanager
async def open_retrier(settings: Settings, account: AccountSettings, *, lenient: bool) -> AsyncIterator[Retrier]:
    """Yield a retrier without a connection to RiskOS; it is usable until the block ends.

    Raises:
        SettingsError: a client cannot be opened with these settings.
        ServiceUnavailable: Redis or the archive does not answer.
    """
    async with open_resources(settings, ()) as resources:
        retrier = Retrier(settings, account, resources, lenient=lenient)
        async with retrier.running():
            try:
                yield retrier
            except ArchiveError as error:
                raise ServiceUnavailable(f"{error}; run the same command to continue") from None
