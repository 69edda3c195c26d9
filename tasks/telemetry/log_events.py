"""Tell the world what became of an evaluation: one log line for each ending.

Events, not sentences; an ID, counts and short fixed words, never a name, a key or a body.
"""

from contextlib import AbstractContextManager

import structlog

from tasks.errors import AccountUnknown, ArchiveError, cause_of, message_of
from tasks.model.job import Job
from tasks.model.outcome import ArchiveResult

_log = structlog.get_logger("docv.archive")


def bind_evaluation(job: Job) -> AbstractContextManager[None]:
    """Have every line that is logged while the block lasts, by whomever, say which evaluation it is about."""
    facts = {
        "eval_id": job.eval_id,
        "queue": job.queue.value,
        "account": job.account,
        "run": job.trigger.run,
        "attempt": job.attempts + 1,
    }
    return structlog.contextvars.bound_contextvars(about=facts)


def bind_request_id(request_id: str | None) -> None:
    """Have every further line about the evaluation carry RiskOS's ID of its last request; None takes it off."""
    about = structlog.contextvars.get_contextvars().get("about")
    if about is not None:
        about.pop("request_id", None)
        about |= {"request_id": request_id} if request_id else {}


def evaluation_ended(result: ArchiveResult, seconds: float) -> None:
    """An evaluation has its outcome; the line also names what the manifest says, and why there are no documents."""
    level = _log.info if result.ok else _log.warning
    facts = {"manifest_outcome": result.unchanged, "reason": result.reason}
    known = {name: fact.value for name, fact in facts.items() if fact}
    level(f"evaluation.{result.outcome}", seconds=round(seconds, 3), **known)


def evaluation_parked(error: Exception, wait: float) -> None:
    """An attempt was stopped; there will be another."""
    _log.info(
        "evaluation.parked",
        cause=cause_of(error),
        why=message_of(error),
        wait=round(wait, 1),
        exc_info=_unforeseen(error),
    )


def evaluation_on_hold(error: Exception) -> None:
    """Its account, or the archive, is on hold; the evaluation waits for it."""
    _log.info("evaluation.on_hold", cause=cause_of(error), why=message_of(error))


def evaluation_deferred(error: Exception) -> None:
    """It waits with the others of its account, for room or for a worker that knows that one."""
    _log.debug("evaluation.deferred", cause=cause_of(error))


def account_unknown(error: AccountUnknown) -> None:
    """The first evaluation of an account came that this process does not know."""
    _log.error("account.unknown", account=error.account, why=str(error))


def settings_warning(why: str) -> None:
    """Something works, and should not be as it is."""
    _log.warning("settings.warning", why=why)


def evaluation_failed(error: Exception, attempts: int) -> None:
    """The attempts are used up; the evaluation is a dead letter."""
    _log.error(
        "evaluation.failed",
        cause=cause_of(error),
        why=message_of(error),
        attempts=attempts,
        exc_info=_unforeseen(error),
    )


def evaluation_released() -> None:
    """The worker is about to end; another will go on."""
    _log.info("evaluation.released")


def lease_lost() -> None:
    """Our lease ran out while we worked; whoever has it now will settle it."""
    _log.warning("evaluation.lease_lost")


def message_rejected(cause: str, why: str, source: str, message: str | None) -> None:
    """What came in does not fit the contract; it is kept among the dead letters."""
    _log.error("message.rejected", cause=cause, why=why, source=source, message=message)


def dispatched(queue: str, evaluations: int) -> None:
    """Evaluations that were due have been published again."""
    _log.debug("ledger.dispatched", queue=queue, evaluations=evaluations)


def hold_started(what: str, reason: str, note: str, left: float) -> None:
    """Something began to stand still, as far as this process knows."""
    _log.warning("hold.started", what=what, reason=reason, note=note, left=round(left, 1))


def hold_ended(what: str, reason: str, lasting: float) -> None:
    """What stood still goes on."""
    _log.warning("hold.ended", what=what, reason=reason, lasted=round(lasting, 1))


def run_list_unusable(run: str, why: str) -> None:
    """A run cannot be fed any further: its list is not as it was written."""
    _log.error("run.list_unusable", run=run, why=why)


def loop_failed(loop: str, error: Exception) -> None:
    """One of the worker's loops could not do its round; it goes on with the next."""
    _log.warning("loop.failed", loop=loop, error=type(error).__name__)


def _unforeseen(error: Exception) -> Exception | None:
    return None if isinstance(error, ArchiveError) else error
