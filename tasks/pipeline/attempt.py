"""Bring one leased evaluation a step further: run, decide, write it into the ledger, tell.

Whatever an attempt ends with, the ledger knows it before anyone else is told.
"""

import time

from redis.exceptions import RedisError

from tasks.errors import LeaseLost, StorageError, cause_of
from tasks.ledger.ledger import Ledger
from tasks.model.job import Job, Queue
from tasks.model.outcome import ArchiveResult, Outcome
from tasks.pipeline.pipeline import PipelineContext, archive
from tasks.resilience.retry import AwaitHold, DeadLetterNow, RetryLater, check_workers_lost, decide, failure_of
from tasks.telemetry import log_events, tracing
from worker.metrics.worker_metrics import (
    Step,
    count_dead_letter,
    count_failed_attempt,
    count_no_documents,
    count_outcome,
    observe_live_lag,
    observe_step,
)


async def attempt(job: Job, ctx: PipelineContext, ledger: Ledger) -> None:
    """Make one attempt at an evaluation and record what came of it.

    Only what must stop the whole process gets out of here: cancellation, and a ledger that cannot be reached.
    Then the lease runs out by itself, and the evaluation is due again.
    """
    number = job.attempts + 1
    alone = job.queue is Queue.LIVE
    started = time.monotonic()
    with (
        log_events.bind_evaluation(job),
        tracing.attempt(job.trace, alone=alone, eval_id=job.eval_id, queue=job.queue.value, attempt=number),
    ):
        await _attempt(job, ctx, ledger)
    observe_step(Step.TOTAL, time.monotonic() - started)


async def _attempt(job: Job, ctx: PipelineContext, ledger: Ledger) -> None:
    started, probe = time.monotonic(), None
    try:
        check_workers_lost(job, ctx.client.retry_policy)
        probe = await ctx.gate.enter()
        result = await archive(job, ctx)
    except RedisError:
        raise
    except LeaseLost as error:
        _record_lost_lease(error)
        if probe:
            await ctx.gate.probe_inconclusive()
    except Exception as error:  # noqa: BLE001  # nothing that goes wrong with one evaluation may stop the others
        await _record_failure(error, job, ctx, ledger, archive_probe=probe is not None)
    else:
        # Other evaluations learn that RiskOS and the archive are well.
        if result.answer and result.has_written:
            ctx.client.breaker.record_success()
        if probe:
            await ctx.gate.probe_succeeded(probe, has_written=result.has_written)
        await _complete(result, job, ledger, time.monotonic() - started)


async def _complete(result: ArchiveResult, job: Job, ledger: Ledger, seconds: float) -> None:
    try:
        age = await ledger.complete(job, result.outcome, result.unchanged, result.answer)
    except LeaseLost as error:
        _record_lost_lease(error)
        return
    log_events.evaluation_ended(result, seconds)
    count_outcome(result.outcome, job.queue)
    if result.reason:
        count_no_documents(result.reason)
    if job.queue is Queue.LIVE:
        observe_live_lag(age)


def _record_lost_lease(error: LeaseLost) -> None:
    log_events.lease_lost()
    count_failed_attempt(error.cause)


async def _record_failure(
    error: Exception, job: Job, ctx: PipelineContext, ledger: Ledger, *, archive_probe: bool
) -> None:
    outage = await ctx.client.breaker.record_failure(error, job, ledger, archive_probe=archive_probe)
    if archive_probe and not isinstance(error, StorageError):
        await ctx.gate.probe_inconclusive()
    verdict = decide(error, job, ctx.client.retry_policy, outage=outage)
    count_failed_attempt(cause_of(error))
    try:
        match verdict:
            case RetryLater():
                await ledger.retry_later(job, wait=verdict.wait, attempts=verdict.attempts, failure=failure_of(error))
                log_events.evaluation_parked(error, verdict.wait)
                # If the outage was noticed between the failure and parking, this evaluation was missed: refund it here.
                if not job.suspect and await ctx.client.breaker.is_outage(error):
                    await ledger.refund_attempts([job.eval_id])
            case AwaitHold():
                await ledger.await_hold(job, cause=cause_of(error), suspect=outage)
                log_events.evaluation_on_hold(error)
            case DeadLetterNow():
                await ledger.dead_letter(job, attempts=verdict.attempts, failure=failure_of(error))
                log_events.evaluation_failed(error, verdict.attempts)
                count_outcome(Outcome.FAILED, job.queue)
                count_dead_letter(cause_of(error))
    except LeaseLost as lost:
        _record_lost_lease(lost)
