"""Tell an outage from an evaluation's own fault: when most fail, it is none of their doing.

Then the account, or the archive, goes on hold until a probe finds it well, and the evaluations lose no attempt.
An evaluation that failed before, while others did not, says nothing about the others: only those count that
fail for the first time. So a handful that always fails does not look like an outage when it is all that is left.

An unexpected answer may be about one evaluation, such as the empty body of one that a gateway blocks: only when nearly
all are answered so is it an outage. Else a run in which every second one is would be on hold most of the time.
"""

import importlib.resources
from collections import Counter

from redis.asyncio import Redis

from tasks.errors import ConnectionFailed, ServiceFailed, StorageError, UnexpectedAnswer
from tasks.ledger.ledger import Ledger
from tasks.model.job import Job
from tasks.resilience.holds import ARCHIVE, OUTAGE_BACKOFF, UNUSED_KEY, Holds, Reason

_PREFIX = "docv:breaker:"
_OF_RISKOS = (ServiceFailed, ConnectionFailed, UnexpectedAnswer)
_UNEXPECTED = ":unexpected"
_MOST = (20, 0.5)
# At the end of a run only the evaluations that fail are left, for they take longer: more than 100 at 200 requests per
# second. A larger window still holds those that went well among them.
_NEARLY_ALL = (200, 0.95)


class CircuitBreaker:
    """Watches how evaluations go, for one account and its archive.

    Args:
        redis: the client, with ``decode_responses``.
        account: name of the account.
        holds: where an outage is placed.
        successes: what went well in this process and is not told yet; the accounts of a process have one together.
    """

    def __init__(self, redis: "Redis", account: str, holds: Holds, successes: Counter[str] | None = None) -> None:
        self._redis = redis
        self._script = redis.register_script(
            importlib.resources.files("tasks.resilience").joinpath("circuit_breaker.lua").read_text("utf-8")
        )
        self._account = account
        self._holds = holds
        self._successes: Counter[str] = Counter() if successes is None else successes

    def record_success(self) -> None:
        """An evaluation came to an end for which RiskOS was asked and the archive was written to."""
        self._successes.update((self._account, self._account + _UNEXPECTED, ARCHIVE))

    async def record_failure(self, error: Exception, job: Job, ledger: Ledger, *, archive_probe: bool) -> bool:
        """Count a failed attempt; return whether an outage is to blame for it, and not the evaluation.

        Those that failed before the outage was noticed get their attempt back.

        Args:
            error: what stopped the attempt.
            job: the evaluation.
            ledger: where the others are.
            archive_probe: whether the attempt was the probe of the archive's hold.
        """
        scope, reason = self._scope_of(error)
        if scope is None:
            return False
        probe = archive_probe if scope == ARCHIVE else getattr(error, "probe", False)
        window = scope + _UNEXPECTED if isinstance(error, UnexpectedAnswer) else scope
        failures = await self._report(window, "" if job.suspect else job.eval_id)
        if probe or (failures and not job.suspect):
            await self._holds.place_until_probe(scope, reason, str(error), OUTAGE_BACKOFF, probe=probe)
            await ledger.refund_attempts(failures)
        return False if job.suspect and probe else await self.is_outage(error)

    async def is_outage(self, error: Exception) -> bool:
        """Return whether what an error speaks of stands still by now."""
        scope, _ = self._scope_of(error)
        hold = await self._holds.get(scope) if scope else None
        return hold is not None and hold.needs_probe

    async def flush(self) -> None:
        """Tell the other processes what went well."""
        for window in [window for window, count in self._successes.items() if count]:
            await self._report(window, "")

    async def reset(self, scope: str) -> None:
        """The outage is over: what failed during it says nothing any more."""
        for window in (scope, scope + _UNEXPECTED):
            self._successes[window] = 0
            await self._redis.delete(*_keys(window))

    async def _report(self, window: str, failed: str) -> list[str]:
        """Return those that failed, if they are an outage."""
        well, self._successes[window] = self._successes[window], 0
        size_and_share = _NEARLY_ALL if window.endswith(_UNEXPECTED) else _MOST
        outcomes, last_well = _keys(window)
        failures: list[str] = await self._script(
            keys=[outcomes, UNUSED_KEY, last_well], args=[well, failed, *size_and_share]
        )
        return failures

    def _scope_of(self, error: Exception) -> tuple[str | None, Reason]:
        if isinstance(error, StorageError):
            return ARCHIVE, Reason.CANNOT_READ if error.doing == "read" else Reason.CANNOT_WRITE
        return (self._account if isinstance(error, _OF_RISKOS) else None), Reason.OUTAGE


def _keys(window: str) -> tuple[str, str]:
    """Return the keys of a window: its outcomes, and when an evaluation went well for the last time."""
    return _PREFIX + window, f"{_PREFIX}{window}:last-well"
