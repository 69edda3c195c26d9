"""Make one attempt at a leased evaluation: run it, decide what follows, and record that in the ledger.

The outcome is logged and counted only after the ledger has recorded it.
"""

import time
from dataclasses import dataclass, field
from functools import partial

from redis.exceptions import RedisError

from tasks.errors import Fault, LeaseLost, SpoolError, StorageError, cause_of
from tasks.ledger.ledger import Ledger
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job, Queue
from tasks.model.outcome import ArchiveResult, Outcome
from tasks.pipeline.erased_meanwhile import archive_guarded
from tasks.pipeline.pipeline import PipelineContext, archive
from tasks.resilience.holds import Reason
from tasks.resilience.retry import (
    AwaitHold,
    DeadLetterNow,
    Release,
    RetryLater,
    RetryVerdict,
    check_workers_lost,
    decide,
    failure_of,
)
from tasks.telemetry import log_events, tracing
from worker.metrics.worker_metrics import (
    Step,
    count_dead_letter,
    count_failed_attempt,
    count_no_documents,
    count_outcome,
    count_restricted,
    observe_live_lag,
    observe_step,
)


async def attempt(job: Job, ctx: PipelineContext, ledger: Ledger) -> bool:
    """Make one attempt at an evaluation and record its result; return False if it was released to its queue.

    Only errors that must stop the whole process are raised: cancellation, and a ledger that cannot be reached.
    The lease then expires, and the evaluation is due again.
    """
    run = _Attempt(job, ctx, ledger)
    with (
        log_events.bind_evaluation(job),
        tracing.attempt(
            job.trace,
            queue=job.queue.value,
            joins_trace=job.queue is Queue.LIVE,
            eval_id=job.eval_id,
            account=job.account,
            run=job.trigger.run,
            attempt=job.attempts + 1,
        ),
    ):
        is_done = await run.make()
    observe_step(Step.TOTAL, time.monotonic() - run.started)
    return is_done


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One attempt: its result, what the result says about the services, and what happens to the evaluation next."""

    job: Job
    ctx: PipelineContext
    ledger: Ledger
    started: float = field(default_factory=time.monotonic)

    async def make(self) -> bool:
        job, ctx, probe = self.job, self.ctx, None
        try:
            check_workers_lost(job, ctx.client.retry_policy)
            probe = await ctx.gate.enter()
            evaluation = Evaluation(job.eval_id, ctx.client.account.environment)
            result = await archive_guarded(job, evaluation, ctx, partial(archive, job, ctx))
        except RedisError:
            raise
        except LeaseLost as error:
            _record_lost_lease(error)
            if probe:
                await ctx.gate.release_probe()
        except Exception as error:  # noqa: BLE001  # a failure of one evaluation must not stop the others
            return await self._record_failure(error, archive_probe=probe is not None)
        else:
            await self._record_success(result, probe)
            await self._complete(result)
        return True

    async def _record_success(self, result: ArchiveResult, probe: Reason | None) -> None:
        """Record, for all evaluations, that RiskOS and the archive work."""
        breaker, has_used_both = self.ctx.client.breaker, bool(result.answer and result.has_written)
        if has_used_both:
            breaker.record_success()
        is_proof = await breaker.pause.record_success(self.job.account, self.started, has_written=has_used_both)
        if probe or is_proof:
            await self.ctx.gate.record_probe_success(probe or Reason.CANNOT_WRITE, has_written=result.has_written)

    async def _complete(self, result: ArchiveResult) -> None:
        job, seconds = self.job, time.monotonic() - self.started
        try:
            age = await self.ledger.complete(job, result.outcome, result.unchanged, result.answer)
        except LeaseLost as error:
            _record_lost_lease(error)
            return
        log_events.evaluation_ended(result, seconds)
        tracing.set_facts(outcome=result.outcome.value)
        count_outcome(result.outcome, job.queue)
        if result.reason:
            count_no_documents(result.reason)
        if result.restricted:
            count_restricted(*result.restricted)
        if job.queue is Queue.LIVE:
            observe_live_lag(age)

    async def _record_failure(self, error: Exception, *, archive_probe: bool) -> bool:
        """Determine the fault behind a failure and record the verdict; return False if the evaluation was released."""
        client = self.ctx.client
        fault = await client.breaker.record_failure(error, self.job, self.ledger, archive_probe=archive_probe)
        if archive_probe and not isinstance(error, StorageError | SpoolError):
            await self.ctx.gate.release_probe()
        verdict = decide(error, self.job, client.retry_policy, fault)
        count_failed_attempt(cause_of(error))
        tracing.record_failure(type(error).__name__, cause=cause_of(error))
        try:
            await self._record_verdict(verdict, error, fault)
        except LeaseLost as lost:
            _record_lost_lease(lost)
            return True
        return not isinstance(verdict, Release)

    async def _record_verdict(self, verdict: RetryVerdict, error: Exception, fault: Fault) -> None:
        job, ledger = self.job, self.ledger
        match verdict:
            case RetryLater(wait, attempts):
                await ledger.retry_later(job, wait=wait, attempts=attempts, failure=failure_of(error))
                log_events.evaluation_parked(error, wait)
                # An outage detected between the failure and parking missed this evaluation, so refund its attempt here.
                if not job.suspect and await self.ctx.client.breaker.is_outage(error):
                    await ledger.refund_attempts([job.eval_id])
            case AwaitHold():
                await ledger.await_hold(job, cause=cause_of(error), suspect=fault is Fault.SERVICE)
                log_events.evaluation_on_hold(error)
            case Release():
                await ledger.release(job, excused=True)
                log_events.evaluation_released()
            case DeadLetterNow(attempts):
                await ledger.dead_letter(job, attempts=attempts, failure=failure_of(error))
                log_events.evaluation_failed(error, attempts)
                tracing.set_facts(outcome=Outcome.FAILED.value)
                count_outcome(Outcome.FAILED, job.queue)
                count_dead_letter(cause_of(error))


def _record_lost_lease(error: LeaseLost) -> None:
    log_events.lease_lost()
    tracing.record_failure(type(error).__name__, cause=error.cause)
    count_failed_attempt(error.cause)
