"""Keep the leases of the evaluations that this process works on."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from tasks.errors import LeaseLost
from tasks.ledger.ledger import Ledger
from tasks.model.job import Job
from tasks.telemetry import log_events

_PARTS = 4


class LeaseKeeper:
    """The evaluations under way in this process, and the heartbeat that keeps them ours.

    Args:
        ledger: where the leases are.
        clock: seconds of a clock that never goes back.
    """

    def __init__(self, ledger: Ledger, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger, self._clock = ledger, clock
        self._jobs: dict[str, Job] = {}
        self._renewed_at: dict[str, float] = {}
        self._begun: set[str] = set()

    @property
    def interval(self) -> float:
        """Seconds between two heartbeats: several may fail before a lease runs out."""
        return self._ledger.lease_seconds / _PARTS

    @contextlib.contextmanager
    def keep(self, jobs: Sequence[Job]) -> Iterator[None]:
        """Keep these leases for as long as the block lasts."""
        self._jobs |= {job.eval_id: job for job in jobs}
        self._renewed_at |= dict.fromkeys((job.eval_id for job in jobs), self._clock())
        try:
            yield
        finally:
            for job in jobs:
                self.forget(job)

    def forget(self, job: Job) -> None:
        """Let go of an evaluation that has been written into the ledger."""
        if self._jobs.get(job.eval_id) is job:
            del self._jobs[job.eval_id], self._renewed_at[job.eval_id]
            self._begun.discard(job.eval_id)

    def begin(self, job: Job) -> bool:
        """Begin with an evaluation; return whether it is still ours."""
        is_ours = self._jobs.get(job.eval_id) is job
        if is_ours:
            self._begun.add(job.eval_id)
        return is_ours

    def take_back(self, eval_id: str) -> Job | None:
        """Let go of an evaluation that has not begun, and return it; None if it has, or is not here."""
        job = None if eval_id in self._begun else self._jobs.get(eval_id)
        if job:
            self.forget(job)
        return job

    def list_waiting(self) -> list[str]:
        """Return the evaluations that have not begun."""
        return [eval_id for eval_id in self._jobs if eval_id not in self._begun]

    async def confirm(self, job: Job) -> None:
        """See that an evaluation is still ours, before something is written that nobody would take away again.

        Redis is asked only where the last heartbeat was so long ago that the lease may have run out: this process stood
        still, or Redis was away. The evaluation may have been erased since then.

        Raises:
            LeaseLost: it is not ours any more.
            RedisError: Redis does not tell.
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
        """Extend every lease; let go of those that another worker has."""
        extended, began = dict(self._jobs), self._clock()
        lost = await self._ledger.extend(extended.values())
        self._renewed_at |= dict.fromkeys(self._renewed_at.keys() & extended.keys() - set(lost), began)
        for eval_id in lost:
            job = extended[eval_id]
            # Written into the ledger, or taken anew, while we asked: then it was not lost.
            if self._jobs.get(eval_id) is job:
                self.forget(job)
                with log_events.bind_evaluation(job):
                    log_events.lease_lost()
