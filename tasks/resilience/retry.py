"""Decide whether and when to try again.

Retries have three owners. Within seconds, ``retry_quickly`` repeats a request to RiskOS. Within minutes to a day,
``decide`` parks the evaluation in the ledger, or makes it a dead letter. The bucket's client repeats a PUT itself.
"""

import random
from dataclasses import dataclass

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_random_exponential

from tasks.errors import (
    ArchiveError,
    BlockedError,
    Charge,
    Fault,
    Forbidden,
    LeaseLost,
    PermanentError,
    RetryableError,
    UnexpectedAnswer,
    WorkersLost,
    cause_of,
    message_of,
)
from tasks.model.job import Failure, Job

_MAX_RETRY_DELAY = 6 * 60 * 60.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often to try. Times are in seconds.

    Attributes:
        attempts: attempts at an evaluation before it becomes a dead letter.
        retry_delay: pause after the first failed attempt; it doubles with each further one, up to 6 h.
        quick_attempts: requests within one attempt.
        quick_seconds: no further request is sent within an attempt after this time.
        quick_pause: longest pause before the second request; it doubles, with full jitter.
    """

    attempts: int = 6
    retry_delay: float = 60.0
    quick_attempts: int = 3
    quick_seconds: float = 60.0
    quick_pause: float = 0.5


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Park the evaluation until its next attempt.

    Attributes:
        wait: seconds until the next attempt.
        attempts: attempts that have failed by now.
    """

    wait: float
    attempts: int


@dataclass(frozen=True, slots=True)
class AwaitHold:
    """Let the evaluation wait until its account or the archive is no longer on hold; this costs no attempt."""


@dataclass(frozen=True, slots=True)
class Release:
    """Release the evaluation to its queue for another worker; this costs no attempt."""


@dataclass(frozen=True, slots=True)
class DeadLetterNow:
    """Make the evaluation a dead letter.

    Attributes:
        attempts: attempts that have failed.
    """

    attempts: int


RetryVerdict = RetryLater | AwaitHold | Release | DeadLetterNow
"""The next step for an evaluation whose attempt failed."""


def retry_quickly(policy: RetryPolicy) -> AsyncRetrying:
    """Return the loop around one request: exponential pauses with full jitter, limited in requests and in time.

    A probe is not repeated; if it fails, the hold continues.
    """
    return AsyncRetrying(
        retry=retry_if_exception(_is_worth_a_quick_retry),
        stop=stop_after_attempt(policy.quick_attempts) | stop_after_delay(policy.quick_seconds),
        wait=wait_random_exponential(multiplier=policy.quick_pause, max=policy.quick_seconds / 3),
        reraise=True,
    )


def _is_worth_a_quick_retry(error: BaseException) -> bool:
    # A proxy's page does not go away within seconds, and pauses keep slots from other evaluations: with 8 slots per
    # worker and a page for every second evaluation, the others took 4.3 times as long. A later attempt tries again.
    return isinstance(error, RetryableError) and not isinstance(error, UnexpectedAnswer) and not error.is_probe


def decide(error: Exception, job: Job, policy: RetryPolicy, fault: Fault) -> RetryVerdict:
    """Return the next step for an evaluation whose attempt was stopped by an error.

    Waiting for the account costs no attempt, and neither does a fault of a service or a machine. A 403 costs what its
    charge says. Any error other than an ``ArchiveError`` is a bug in this program. It is treated like a
    ``RetryableError``, so that no evaluation is lost because of it.
    """
    if fault is Fault.SERVICE or isinstance(error, BlockedError):
        return AwaitHold()
    if fault is Fault.MACHINE:
        return Release()
    charge = error.charge if isinstance(error, Forbidden) else Charge.ATTEMPT
    if charge is Charge.NOTHING:
        return RetryLater(wait=_jitter(policy.retry_delay), attempts=job.attempts)
    attempts = job.attempts + 1
    if charge is Charge.ALL or isinstance(error, PermanentError) or attempts >= policy.attempts:
        return DeadLetterNow(attempts=attempts)
    wait = min(policy.retry_delay * 2 ** (attempts - 1), _MAX_RETRY_DELAY)
    return RetryLater(wait=_jitter(wait), attempts=attempts)


def _jitter(seconds: float) -> float:
    return seconds * random.uniform(1.0, 1.25)  # noqa: S311  # not a secret


def check_workers_lost(job: Job, policy: RetryPolicy) -> None:
    """Raise if workers died during as many attempts at an evaluation as the policy allows.

    Raises:
        WorkersLost: the evaluation may be the cause.
    """
    if job.lost >= policy.attempts:
        raise WorkersLost(job.lost)


def failure_of(error: Exception) -> Failure:
    """Return the ledger's record of an error, which contains only texts of this program."""
    status = error.status if isinstance(error, RetryableError | Forbidden) else None
    request_id = error.request_id if isinstance(error, ArchiveError) else None
    return Failure(cause=cause_of(error), why=message_of(error), status=status, request_id=request_id)


def _causes(family: type[ArchiveError]) -> set[str]:
    return {family.cause}.union(*map(_causes, family.__subclasses__()))


CAUSES = tuple(sorted(set().union(*map(_causes, (RetryableError, BlockedError, PermanentError, Forbidden, LeaseLost)))))
"""The cause of every error that can stop an attempt; a bug in this program has its class name instead."""
