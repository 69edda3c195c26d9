"""Pause this worker while a service fails here that may work elsewhere; a probe finds out when that is over.

A full disk, a missing route, a certificate or credentials may concern this machine only. So the worker releases its
evaluations, and other workers continue. If all workers have paused for the same service, it is put on hold for all.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tasks.ledger.worker_registry import WorkerRegistry
from tasks.resilience.holds import ARCHIVE, OUTAGE_BACKOFF, Holds, Reason
from tasks.telemetry import log_events


class _Cause(NamedTuple):
    scope: str
    reason: Reason
    note: str


class WorkerPause:
    """The pause of this worker.

    Args:
        workers: publishes the pause to the other workers.
        holds: places the hold for all workers.
        name: name of this worker.
        clock: returns the seconds of a monotonic clock.
    """

    def __init__(
        self, workers: WorkerRegistry, holds: Holds, name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._workers, self._holds, self._name, self._clock = workers, holds, name, clock
        self._cause: _Cause | None = None
        self._began_at, self._probe_at = float("-inf"), 0.0
        self._wait = OUTAGE_BACKOFF.initial
        self._is_probing = False
        self._failed_at: dict[str, float] = {}
        self._proved: dict[str, float] = {}

    @property
    def is_paused(self) -> bool:
        """Whether the worker has paused."""
        return self._cause is not None

    @property
    def is_closed(self) -> bool:
        """Whether no attempt may begin now, not even as a probe."""
        return self.is_paused and (self._is_probing or self._clock() < self._probe_at)

    def proved_at(self, scope: str) -> float:
        """Return when a service last worked here in an attempt that began after a failure, on Redis's clock."""
        return self._proved.get(scope, 0.0)

    @contextlib.contextmanager
    def attempt(self) -> Iterator[bool]:
        """Yield whether an attempt may begin; during a pause, one may when a probe is due."""
        is_probe, may_begin = self.is_paused, not self.is_closed
        self._is_probing |= is_probe and may_begin
        try:
            yield may_begin
        finally:
            if is_probe and may_begin:
                self._is_probing = False

    def record_failure(self, scope: str) -> None:
        """Record that a service failed, so that the success of an attempt that begins later proves that it works."""
        self._failed_at[scope] = self._clock()

    async def begin(self, scope: str, reason: Reason, note: str) -> bool:
        """Pause because a service fails here; return True if every worker has paused and it is now on hold for all.

        Attempts that were running when the pause began change nothing; a failed probe doubles the wait.

        Args:
            scope: the scope of the service, as for a hold.
            reason: why it fails.
            note: the reason in a sentence.
        """
        cause = _Cause(scope, reason, note)
        if await self._hold_if_others_paused(cause):
            return True
        if self._is_probing or not self.is_paused:
            log_events.worker_paused(*cause, self._wait)
            self._began_at = self._clock()
            self._probe_at = self._began_at + self._wait
            self._wait = min(2 * self._wait, OUTAGE_BACKOFF.maximum)
        self._cause = cause
        await self._workers.pause(self._name, *cause)
        return False

    async def record_success(self, account: str, began_at: float, *, has_written: bool) -> bool:
        """Record that an attempt succeeded; return whether it proves that the archive works again after a failure.

        The success ends a pause that had begun before the attempt.

        Args:
            account: name of the account whose key was used.
            began_at: when the attempt began, on the clock of this object.
            has_written: whether RiskOS answered and the archive was written to.
        """
        failed = [scope for scope in (ARCHIVE, account) if self._failed_at.get(scope, began_at) < began_at]
        proved = failed if has_written else []
        for scope in proved:
            del self._failed_at[scope]
            self._proved[scope] = await self._workers.time()
        if began_at > self._began_at:
            self._wait = OUTAGE_BACKOFF.initial if has_written else self._wait
            await self._end()
        return ARCHIVE in proved

    async def update(self) -> None:
        """Extend the published pause; end it if the service is on hold for all.

        A full or restarted Redis may have lost the record, so it is published again. The pause itself goes on.
        """
        if self._cause is None:
            return
        if await self._holds.get(self._cause.scope):
            await self._end()
            return
        if not await self._workers.extend_pause(self._name):
            await self._workers.pause(self._name, *self._cause)
        await self._hold_if_others_paused(self._cause)

    async def _hold_if_others_paused(self, cause: _Cause) -> bool:
        paused = {each.name for each in await self._workers.list_paused() if each.scope == cause.scope}
        if {*await self._workers.list_names()} - paused - {self._name}:
            return False
        await self._holds.place_until_probe(*cause, OUTAGE_BACKOFF, probe=False)
        await self._end()
        return True

    async def _end(self) -> None:
        if self._cause:
            log_events.worker_resumed(self._cause.scope, self._clock() - self._began_at)
            self._cause = None
            await self._workers.resume(self._name)
