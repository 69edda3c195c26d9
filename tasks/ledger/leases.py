"""Keep the leases of the evaluations that this process works on."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tasks.errors import LeaseLost
from tasks.ledger.ledger import Ledger
from tasks.model.job import Job
from tasks.telemetry import log_events

_PARTS = 4


class LeaseKeeper:
    """The leases of this process, and the heartbeat that extends them.

    Args:
        ledger: the ledger that granted the leases.
        clock: returns the seconds of a monotonic clock.
    """

    def __init__(self, ledger: Ledger, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger, self._clock = ledger, clock
        self._jobs: dict[str, Job] = {}
        self._renewed_at: dict[str, float] = {}
        self._begun: set[str] = set()
        self._attempts: dict[str, asyncio.Task[Any]] = {}
        self._cancelled: set[asyncio.Task[Any]] = set()

    @property
    def interval(self) -> float:
        """Seconds between two heartbeats, so short that several may fail before a lease runs out."""
        return self._ledger.lease_seconds / _PARTS

    @contextlib.contextmanager
    def keep(self, jobs: Sequence[Job]) -> Iterator[None]:
        """Extend these leases while the block runs."""
        self._jobs |= {job.eval_id: job for job in jobs}
        self._renewed_at |= dict.fromkeys((job.eval_id for job in jobs), self._clock())
        try:
            yield
        finally:
            for job in jobs:
                self.forget(job)

    def forget(self, job: Job) -> None:
        """Stop extending the lease of an evaluation whose new state is in the ledger."""
        if self._jobs.get(job.eval_id) is job:
            del self._jobs[job.eval_id], self._renewed_at[job.eval_id]
            self._begun.discard(job.eval_id)

    def begin(self, job: Job) -> bool:
        """Mark an evaluation as begun; return whether this process still has its lease."""
        is_ours = self._jobs.get(job.eval_id) is job
        if is_ours:
            self._begun.add(job.eval_id)
        return is_ours

    @contextlib.contextmanager
    def attempt(self, job: Job) -> Iterator[None]:
        """Cancel the block if the lease is lost, or if Redis has not answered for as long as a lease lasts.

        Raises:
            LeaseLost: the block was cancelled for one of these reasons.
        """
        task = asyncio.current_task()
        assert task  # noqa: S101  # an attempt is a task
        self._attempts[job.eval_id] = task
        try:
            yield
        except asyncio.CancelledError:
            # If the process is ending, too, that cancellation must not be swallowed.
            if task in self._cancelled and not task.uncancel():
                raise LeaseLost from None
            raise
        else:
            if task in self._cancelled:
                task.uncancel()
        finally:
            self._cancelled.discard(task)
            if self._attempts.get(job.eval_id) is task:
                del self._attempts[job.eval_id]

    def cancel_stale(self) -> None:
        """Cancel the attempts whose lease may have run out because Redis has not answered for that long."""
        for eval_id in self._attempts.keys() & self._jobs.keys():
            if not self.is_fresh(self._jobs[eval_id]):
                self._cancel(eval_id)

    def _cancel(self, eval_id: str) -> None:
        task = self._attempts.pop(eval_id, None)
        if task:
            self._cancelled.add(task)
            task.cancel()

    def is_fresh(self, job: Job) -> bool:
        """Return whether the last heartbeat is so recent that the lease cannot have run out yet."""
        renewed_at = self._renewed_at.get(job.eval_id) if self._jobs.get(job.eval_id) is job else None
        return renewed_at is not None and self._clock() - renewed_at < self._ledger.lease_seconds

    def take_back(self, eval_id: str) -> Job | None:
        """Forget an evaluation that has not begun, and return its job; None if it has begun or is not here."""
        job = None if eval_id in self._begun else self._jobs.get(eval_id)
        if job:
            self.forget(job)
        return job

    def list_waiting(self) -> list[str]:
        """Return the IDs of the evaluations that have not begun."""
        return [eval_id for eval_id in self._jobs if eval_id not in self._begun]

    async def confirm(self, job: Job) -> None:
        """Check that this process still has the lease, before a write that cannot be undone.

        This sends a request to Redis only if the last heartbeat is so old that the lease may have run out, or soon
        will, because the process was suspended or Redis was unavailable. The evaluation may have been erased since.

        Raises:
            LeaseLost: the lease was lost.
            RedisError: Redis did not answer.
        """
        if self._jobs.get(job.eval_id) is not job:
            raise LeaseLost
        now = self._clock()
        if now - self._renewed_at[job.eval_id] < self._ledger.lease_seconds - self.interval:
            return
        if await self._ledger.extend([job]):
            raise LeaseLost
        self._renewed_at[job.eval_id] = now

    async def renew(self) -> None:
        """Extend every lease, and forget those that were lost to another worker."""
        extended, began = dict(self._jobs), self._clock()
        lost = await self._ledger.extend(extended.values())
        self._renewed_at |= dict.fromkeys(self._renewed_at.keys() & extended.keys() - set(lost), began)
        for eval_id in lost:
            job = extended[eval_id]
            # If the job was completed or leased again during the call, its lease was not lost.
            if self._jobs.get(eval_id) is job:
                self.forget(job)
                self._cancel(eval_id)
                with log_events.bind_evaluation(job):
                    log_events.lease_lost()
