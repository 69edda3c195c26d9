"""Bring one leased evaluation a step further: run, decide, write it into the ledger, tell.

Whatever an attempt ends with, the ledger knows it before anyone else is told.
"""

import time

from redis.exceptions import RedisError

from tasks.errors import LeaseLost, StorageError, cause_of
from tasks.ledger.ledger import Ledger
from tasks.model.job import Job, Queue
from tasks.model.outcome import Outcome
from tasks.pipeline.pipeline import PipelineContext, archive
from tasks.resilience.holds import Reason
from tasks.resilience.retry import AwaitHold, DeadLetterNow, RetryLater, check_worn_out, decide, failure_of
from tasks.telemetry import log_events, tracing
from tasks.telemetry.metrics import Step


async def attempt(entry: Job, means: PipelineContext, ledger: Ledger) -> None:
    """Make one attempt at an evaluation and record what came of it.

    Only what must stop the whole process gets out of here: cancellation, and a ledger that cannot be reached.
    Then the lease runs out by itself, and the evaluation is due again.
    """
    number = entry.attempts + 1
    alone = entry.queue is Queue.LIVE
    started = time.monotonic()
    with (
        log_events.about(entry),
        tracing.attempt(entry.trace, alone=alone, eval_id=entry.eval_id, queue=entry.queue.value, attempt=number),
    ):
        await _attempt(entry, means, ledger)
    means.figures.took(Step.WHOLE, time.monotonic() - started)


async def _attempt(entry: Job, means: PipelineContext, ledger: Ledger) -> None:
    started, probe = time.monotonic(), None
    try:
        check_worn_out(entry, means.line.policy)
        probe = await means.gate.enter()
        outcome = await archive(entry, means)
    except RedisError:
        raise
    except LeaseLost as error:
        _lost(error, means)
        if probe:
            await means.gate.proved_nothing()
    except Exception as error:  # noqa: BLE001  # nothing that goes wrong with one evaluation may stop the others
        await _record_failure(error, entry, means, ledger, archive_probe=probe is not None)
    else:
        await _learn(outcome, means, probe)
        await _settle(outcome, entry, means, ledger, time.monotonic() - started)


async def _settle(outcome: Outcome, entry: Job, means: PipelineContext, ledger: Ledger, seconds: float) -> None:
    try:
        age = await ledger.settle(entry, outcome)
    except LeaseLost as error:
        _lost(error, means)
        return
    log_events.ended(outcome, seconds)
    means.figures.ended(outcome, entry.queue)
    if entry.queue is Queue.LIVE:
        means.figures.lagged(age)


def _lost(error: LeaseLost, means: PipelineContext) -> None:
    log_events.lease_lost()
    means.figures.stopped(error.cause)


async def _learn(outcome: Outcome, means: PipelineContext, probe: Reason | None) -> None:
    """Let the others know that RiskOS and the archive are well."""
    if outcome is not Outcome.UNCHANGED:
        means.line.breaker.went_well()
    if probe:
        await means.gate.proved(probe, outcome)


async def _record_failure(
    error: Exception, entry: Job, means: PipelineContext, ledger: Ledger, *, archive_probe: bool
) -> None:
    outage = await means.line.breaker.failed(error, entry, ledger, archive_probe=archive_probe)
    if archive_probe and not isinstance(error, StorageError):
        await means.gate.proved_nothing()
    verdict = decide(error, entry, means.line.policy, outage=outage)
    means.figures.stopped(cause_of(error))
    try:
        match verdict:
            case RetryLater():
                await ledger.park(entry, wait=verdict.wait, attempts=verdict.attempts, failure=failure_of(error))
                log_events.parked(error, verdict.wait)
                # Was the outage noticed between our failure and our being parked, nobody else will forgive us.
                if not entry.suspect and await means.line.breaker.is_outage(error):
                    await ledger.forgive([entry.eval_id])
            case AwaitHold():
                await ledger.await_hold(entry, cause=cause_of(error), suspect=outage)
                log_events.waits(error)
            case DeadLetterNow():
                await ledger.bury(entry, attempts=verdict.attempts, failure=failure_of(error))
                log_events.gave_up(error, verdict.attempts)
                means.figures.ended(Outcome.FAILED, entry.queue)
                means.figures.buried(cause_of(error))
    except LeaseLost as lost:
        _lost(lost, means)
