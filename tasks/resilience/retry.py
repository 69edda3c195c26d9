"""Again, and when, or stop? Three owners, each of its own retries.

Within seconds: ``retry_quickly`` asks RiskOS again. Within minutes to a day: ``decide`` parks the evaluation in the
ledger, or gives it up. One PUT: the bucket's client retries by itself.
"""

import random
from dataclasses import dataclass

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_random_exponential

from tasks.errors import (
    ArchiveError,
    BlockedError,
    Charge,
    Forbidden,
    LeaseLost,
    PermanentError,
    RetryableError,
    WorkersLost,
    cause_of,
    message_of,
)
from tasks.model.job import Failure, Job

_MAX_RETRY_DELAY = 6 * 60 * 60.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often we try. Times are in seconds.

    Attributes:
        attempts: attempts of an evaluation before it is given up.
        retry_delay: pause after the first failed attempt; doubles with each further one, up to 6 h.
        quick_attempts: requests within one attempt.
        quick_seconds: after this time no further request is made within an attempt.
        quick_pause: longest pause before the second request; doubles, with full jitter.
    """

    attempts: int = 6
    retry_delay: float = 60.0
    quick_attempts: int = 3
    quick_seconds: float = 60.0
    quick_pause: float = 0.5


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Come back to the evaluation.

    Attributes:
        wait: in so many seconds.
        attempts: attempts that have failed by now.
    """

    wait: float
    attempts: int


@dataclass(frozen=True, slots=True)
class AwaitHold:
    """Come back to the evaluation when what it needs no longer stands still; it loses nothing."""


@dataclass(frozen=True, slots=True)
class DeadLetterNow:
    """Make the evaluation a dead letter.

    Attributes:
        attempts: attempts that have failed.
    """

    attempts: int


def retry_quickly(policy: RetryPolicy) -> AsyncRetrying:
    """Return the loop around one request: exponential with full jitter, attempts and time both bounded.

    A probe is one request; when it fails, the hold goes on.
    """
    return AsyncRetrying(
        retry=retry_if_exception(lambda error: isinstance(error, RetryableError) and not error.probe),
        stop=stop_after_attempt(policy.quick_attempts) | stop_after_delay(policy.quick_seconds),
        wait=wait_random_exponential(multiplier=policy.quick_pause, max=policy.quick_seconds / 3),
        reraise=True,
    )


def decide(error: Exception, job: Job, policy: RetryPolicy, *, outage: bool) -> RetryLater | AwaitHold | DeadLetterNow:
    """Return what becomes of an evaluation whose attempt was stopped by an error.

    What the account has to wait for costs no attempt, and neither does an outage. A 403 costs what its charge says. An
    error that is none of ours is a fault of this program; it is treated like one that another attempt may help, so that
    nothing is lost by it.
    """
    if outage or isinstance(error, BlockedError):
        return AwaitHold()
    charge = error.charge if isinstance(error, Forbidden) else Charge.ATTEMPT
    if charge is Charge.NOTHING:
        return RetryLater(wait=_jitter(policy.retry_delay), attempts=job.attempts)
    attempts = job.attempts + 1
    if charge is Charge.ALL or isinstance(error, PermanentError) or attempts >= policy.attempts:
        return DeadLetterNow(attempts=attempts)
    wait = min(policy.retry_delay * 2 ** (attempts - 1), _MAX_RETRY_DELAY)
    return RetryLater(wait=_jitter(wait), attempts=attempts)


def _jitter(seconds: float) -> float:
    return seconds * random.uniform(1.0, 1.25)  # noqa: S311  # no secret is made of it


def check_workers_lost(job: Job, policy: RetryPolicy) -> None:
    """Refuse an evaluation over which so many workers died that it may be the cause.

    Raises:
        WorkersLost: it is one.
    """
    if job.lost >= policy.attempts:
        raise WorkersLost(job.lost)


def failure_of(error: Exception) -> Failure:
    """Return what the ledger keeps of an error: our own words only."""
    status = error.status if isinstance(error, RetryableError | Forbidden) else None
    request_id = error.request_id if isinstance(error, ArchiveError) else None
    return Failure(cause=cause_of(error), why=message_of(error), status=status, request_id=request_id)


def _causes(family: type[ArchiveError]) -> set[str]:
    return {family.cause}.union(*map(_causes, family.__subclasses__()))


CAUSES = tuple(sorted(set().union(*map(_causes, (RetryableError, BlockedError, PermanentError, Forbidden, LeaseLost)))))
"""The cause of every error that can stop an attempt; a fault of this program has its class name instead."""
