"""Log the events of evaluations, holds and workers.

An event has IDs, counts and short fixed words, and never a person's name, a key or a body.
"""

import traceback
from contextlib import AbstractContextManager

import structlog

from tasks.errors import AccountUnknown, ArchiveError, cause_of, message_of
from tasks.model.evaluation import printable_id
from tasks.model.job import Job
from tasks.model.outcome import ArchiveResult

_PACKAGES = ("tasks.", "worker.", "scripts.")
_log = structlog.get_logger("docv.archive")


def bind_evaluation(job: Job) -> AbstractContextManager[None]:
    """Add the evaluation to every line that is logged in the block, by any module or library."""
    facts = {
        "eval_id": job.eval_id,
        "queue": job.queue.value,
        "account": job.account,
        "run": job.trigger.run,
        "attempt": job.attempts + 1,
    }
    return structlog.contextvars.bound_contextvars(about=facts)


def bind_request_id(request_id: str | None) -> None:
    """Add RiskOS's ID of the last request to every further line about the evaluation; None removes it."""
    about = structlog.contextvars.get_contextvars().get("about")
    if about is not None:
        about.pop("request_id", None)
        about |= {"request_id": request_id} if request_id else {}


def evaluation_ended(result: ArchiveResult, seconds: float) -> None:
    """Log the outcome of an evaluation, the outcome in its manifest, and why there are no documents."""
    level = _log.info if result.ok else _log.warning
    facts = {"manifest_outcome": result.unchanged, "reason": result.reason}
    known = {name: fact.value for name, fact in facts.items() if fact}
    level(f"evaluation.{result.outcome}", seconds=round(seconds, 3), **known)


def evaluation_parked(error: Exception, wait: float) -> None:
    """Log that an attempt failed, and that there will be another."""
    _log.info(
        "evaluation.parked",
        cause=cause_of(error),
        why=message_of(error),
        wait=round(wait, 1),
        exc_info=_foreign_error(error),
    )


def evaluation_on_hold(error: Exception) -> None:
    """Log that an evaluation waits for the end of a hold on its account, its run or the archive."""
    _log.info("evaluation.on_hold", cause=cause_of(error), why=message_of(error))


def evaluation_deferred(error: Exception) -> None:
    """Log that an evaluation waits for a free slot of its account, or for a worker that knows the account."""
    _log.debug("evaluation.deferred", cause=cause_of(error))


def account_unknown(error: AccountUnknown) -> None:
    """Log the first evaluation of an account that this process does not know."""
    _log.error("account.unknown", account=error.account, why=str(error))


def settings_warning(why: str) -> None:
    """Log that a setting works but should be changed."""
    _log.warning("settings.warning", why=why)


def evaluation_failed(error: Exception, attempts: int) -> None:
    """Log that an evaluation has no attempts left and became a dead letter."""
    _log.error(
        "evaluation.failed",
        cause=cause_of(error),
        why=message_of(error),
        attempts=attempts,
        exc_info=_foreign_error(error),
    )


def evaluation_released() -> None:
    """Log that a draining or paused worker released an evaluation to another one."""
    _log.info("evaluation.released")


def lease_lost() -> None:
    """Log that a lease ran out during the attempt; the worker that has it now completes the evaluation."""
    _log.warning("evaluation.lease_lost")


def erased_meanwhile(objects: int, *, removed: bool) -> None:
    """Log that an evaluation was erased while its objects were written; ``erase --pending`` removes the leftovers."""
    _log.warning("evaluation.erased_meanwhile", objects=objects, removed=removed)


def message_rejected(cause: str, why: str, source: str, message: str | None) -> None:
    """Log that a message broke the contract; ``RejectedMessages`` has a record of it."""
    _log.error("message.rejected", cause=cause, why=why, source=source, message=message)


def dispatched(queue: str, evaluations: int) -> None:
    """Log that due evaluations were published again."""
    _log.debug("ledger.dispatched", queue=queue, evaluations=evaluations)


def hold_started(what: str, reason: str, note: str, left: float) -> None:
    """Log a hold that this process has detected."""
    _log.warning("hold.started", what=what, reason=reason, note=note, left=round(left, 1))


def hold_ended(what: str, reason: str, lasting: float) -> None:
    """Log the end of a hold."""
    _log.warning("hold.ended", what=what, reason=reason, lasted=round(lasting, 1))


def worker_paused(scope: str, reason: str, note: str, wait: float) -> None:
    """Log that this worker takes no evaluations until a probe is due, because a service fails on its machine only."""
    _log.warning("worker.paused", scope=scope, reason=reason, note=note, wait=round(wait, 1))


def worker_resumed(scope: str, lasting: float) -> None:
    """Log that this worker takes evaluations again."""
    _log.warning("worker.resumed", scope=scope, lasted=round(lasting, 1))


def run_list_unusable(run: str, why: str) -> None:
    """Log that a run cannot be fed any further, because its list was changed or damaged."""
    _log.error("run.list_unusable", run=printable_id(run), why=why)


def loop_failed(loop: str, error: BaseException) -> None:
    """Log that a round of a loop failed. The text of the error is left out, because it may contain anything."""
    _log.warning("loop.failed", loop=loop, error=type(error).__name__, place=_find_place(error))


def _find_place(error: BaseException) -> str:
    """Return module and line of the innermost function of this program in the traceback."""
    places = [f"{frame.f_globals.get('__name__')}:{line}" for frame, line in traceback.walk_tb(error.__traceback__)]
    return next((place for place in reversed(places) if place.startswith(_PACKAGES)), "unknown")


def _foreign_error(error: Exception) -> Exception | None:
    return None if isinstance(error, ArchiveError) else error
