"""Decide whose fault a failed attempt is: the evaluation's own, a service's, or this machine's.

A refusal that any evaluation would get, such as a write to a bucket that does not exist, puts the service on hold at
once. A failure that may be this machine's own fault pauses this worker. An ambiguous failure, such as a status 500, is
the service's fault if most evaluations fail. Until a probe succeeds, these failures cost no attempt. An evaluation that
fails again after the probe of another one succeeded is charged for it.

Only an evaluation's first ambiguous failure counts. One that failed before, while others did not, says nothing about
the others, so a few evaluations that always fail do not look like an outage when only they are left.

An unexpected answer may concern one evaluation only, such as an empty body if a gateway blocks it. So it is an outage
only if nearly all evaluations get one; otherwise a run with every second one blocked would be on hold most of the time.
"""

import importlib.resources
from collections import Counter

from redis.asyncio import Redis

from tasks.errors import (
    ConnectionFailed,
    Fault,
    RetryableError,
    ServiceFailed,
    SpoolError,
    StorageError,
    UnexpectedAnswer,
)
from tasks.ledger.ledger import Ledger
from tasks.ledger.serialization import read_count
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.job import Job
from tasks.resilience.holds import (
    ARCHIVE,
    OUTAGE_BACKOFF,
    UNEXPECTED,
    UNUSED_KEY,
    Holds,
    Reason,
    failures_key,
    forget_failures,
)
from tasks.resilience.worker_pause import WorkerPause

_RISKOS_ERRORS = (ServiceFailed, ConnectionFailed, UnexpectedAnswer)
_ARCHIVE_ERRORS = (StorageError, SpoolError)
_PROOF_SECONDS = 7 * 24 * 60 * 60
# Size of a window, and the share of failures in it that is an outage.
_OUTAGE = (20, 0.5)
# At the end of a run only failing evaluations are left, because they take longer: more than 100 at 200 requests per
# second. A larger window still contains successes from before.
_UNEXPECTED_OUTAGE = (200, 0.95)


class CircuitBreaker:
    """Watches successes and failures of one account, and of the archive.

    Args:
        redis: the client, with ``decode_responses``.
        account: name of the account.
        holds: places the hold of an outage.
        pause: the pause of this worker; None if this process counts as the only worker.
        successes: successes that are not yet published to the other processes; shared by the accounts of a process.
    """

    def __init__(
        self,
        redis: "Redis",
        account: str,
        holds: Holds,
        pause: WorkerPause | None = None,
        successes: Counter[str] | None = None,
    ) -> None:
        self._redis = redis
        self._script = redis.register_script(
            importlib.resources.files("tasks.resilience").joinpath("circuit_breaker.lua").read_text("utf-8")
        )
        self._account = account
        self._holds = holds
        self.pause = pause or WorkerPause(WorkerRegistry(redis), holds, "")
        self._successes: Counter[str] = Counter() if successes is None else successes

    def record_success(self) -> None:
        """Count a success: RiskOS answered, and the archive was written to."""
        self._successes.update((self._account, self._account + UNEXPECTED, ARCHIVE))

    async def record_failure(self, error: Exception, job: Job, ledger: Ledger, *, archive_probe: bool) -> Fault:
        """Count a failed attempt; return whose fault it is, which is never UNKNOWN.

        Evaluations that failed before the outage was detected get their attempt back.

        Args:
            error: the error that stopped the attempt.
            job: the evaluation.
            ledger: refunds the attempts of the others.
            archive_probe: whether the attempt was the probe of the archive's hold.
        """
        scope, reason = self._scope_of(error)
        if scope is None or not isinstance(error, RetryableError):
            return Fault.EVALUATION
        if error.fault is not Fault.UNKNOWN:
            self.pause.record_failure(scope)
        if archive_probe if scope == ARCHIVE else error.is_probe:
            await self._hold(scope, reason, error, probe=True)
            return Fault.SERVICE
        if await self.is_outage(error):
            return Fault.SERVICE
        match error.fault:
            case Fault.MACHINE:
                return await self._record_machine_fault(scope, reason, error, job)
            case Fault.SERVICE:
                return await self._record_service_fault(scope, reason, error, job)
        return await self._classify_ambiguous_failure(scope, reason, error, job, ledger)

    async def is_outage(self, error: Exception) -> bool:
        """Return whether the service that an error concerns is on hold until a probe succeeds."""
        scope, _ = self._scope_of(error)
        hold = await self._holds.get(scope) if scope else None
        return hold is not None and hold.needs_probe

    async def flush(self) -> None:
        """Publish the successes of this process to the others.

        The first success of an account in an hour ends its hold for an outage. Until then, three failures were enough
        to place one, and a failure takes less time than a success.
        """
        for window in [window for window, count in self._successes.items() if count]:
            is_first, _ = await self._report(window, "")
            if is_first:
                await self._end_outage(window.removesuffix(UNEXPECTED))

    async def reset(self, scope: str, *, is_proved: bool = False) -> None:
        """Forget the failures of an outage that is over.

        Args:
            is_proved: whether a probe succeeded, so that an evaluation that fails again is charged for it.
        """
        for window in (scope, scope + UNEXPECTED):
            if self._successes[window]:
                await self._report(window, "")
        await forget_failures(self._redis, scope)
        if is_proved:
            seconds, micro = await self._redis.time()
            await self._redis.set(_proof_key(scope), seconds * 1000 + micro // 1000, ex=_PROOF_SECONDS)

    async def _record_machine_fault(self, scope: str, reason: Reason, error: RetryableError, job: Job) -> Fault:
        if job.excused_at is not None and job.excused_at < self.pause.proved_at(scope):
            return Fault.EVALUATION
        return Fault.SERVICE if await self.pause.begin(scope, reason, str(error)) else Fault.MACHINE

    async def _record_service_fault(self, scope: str, reason: Reason, error: RetryableError, job: Job) -> Fault:
        proved_at = read_count(await self._redis.get(_proof_key(scope))) / 1000
        if job.excused_at is not None and job.excused_at < proved_at:
            return Fault.EVALUATION
        await self._hold(scope, reason, error)
        return Fault.SERVICE

    async def _classify_ambiguous_failure(
        self, scope: str, reason: Reason, error: RetryableError, job: Job, ledger: Ledger
    ) -> Fault:
        window = scope + UNEXPECTED if isinstance(error, UnexpectedAnswer) else scope
        _, failures = await self._report(window, "" if job.suspect else job.eval_id)
        if job.suspect or not failures:
            return Fault.EVALUATION
        await self._hold(scope, reason, error)
        await ledger.refund_attempts(failures)
        return Fault.SERVICE if await self.is_outage(error) else Fault.EVALUATION

    async def _hold(self, scope: str, reason: Reason, error: RetryableError, *, probe: bool = False) -> None:
        await self._holds.place_until_probe(scope, reason, str(error), OUTAGE_BACKOFF, probe=probe)

    async def _end_outage(self, scope: str) -> None:
        hold = await self._holds.get(scope)
        if hold and hold.reason is Reason.OUTAGE:
            await self._holds.end_after_probe(scope)

    async def _report(self, window: str, failed: str) -> tuple[bool, list[str]]:
        """Report successes and a failure.

        Return whether the successes are the first in an hour, and, if this is an outage, the IDs of the failed
        evaluations.
        """
        successes, self._successes[window] = self._successes[window], 0
        size_and_share = _UNEXPECTED_OUTAGE if window.endswith(UNEXPECTED) else _OUTAGE
        outcomes = failures_key(window)
        is_first, failures = await self._script(
            keys=[outcomes, UNUSED_KEY, f"{outcomes}:last-well"], args=[successes, failed, *size_and_share]
        )
        return bool(is_first), failures

    def _scope_of(self, error: Exception) -> tuple[str | None, Reason]:
        if isinstance(error, _ARCHIVE_ERRORS):
            return ARCHIVE, Reason.CANNOT_READ if getattr(error, "doing", None) == "read" else Reason.CANNOT_WRITE
        return (self._account if isinstance(error, _RISKOS_ERRORS) else None), Reason.OUTAGE


def _proof_key(scope: str) -> str:
    """Return the key that holds when a probe last succeeded (milliseconds)."""
    return f"{failures_key(scope)}:proved"
