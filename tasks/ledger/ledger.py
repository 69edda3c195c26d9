"""Record every accepted evaluation until it has an outcome, so that none is lost.

A message in a queue may be lost or delivered twice. The ledger knows which evaluations were accepted, which worker has
each, and when each is due; ``dispatch`` publishes the due ones again.

    accept ──▶ queued ──lease──▶ leased ──complete────▶ removed: it has an outcome
                 ▲                 ├─────dead_letter──▶ dead letter
                 ├─────release─────┤
                 ├─claim── parked ◀┤ retry_later        until its retry is due
                 └─claim─── held ◀─┘ await_hold         until the hold on its account, or on the archive, ends
"""

from collections.abc import Iterable, Mapping, Sequence

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tasks.errors import LeaseLost
from tasks.ledger.batcher import Batcher
from tasks.ledger.counters import LedgerStats
from tasks.ledger.dead_letters import DeadLetters
from tasks.ledger.runs import Runs
from tasks.ledger.script import LedgerScript
from tasks.ledger.serialization import format_ending, format_failure, options_as_json, parse_jobs, select_published
from tasks.ledger.stats import read_stats
from tasks.model.job import EnqueueOptions, Failure, Job, Queue
from tasks.model.outcome import ManifestOutcome, Outcome
from tasks.telemetry import tracing

_CHUNK = 1000


class Ledger:
    """The ledger in Redis. Every change is one atomic step; ``extend`` takes a step for each thousand leases.

    Args:
        redis: the client, with ``decode_responses``.
        lease_seconds: seconds that a lease lasts unless it is extended.
        linger_seconds: seconds that a completed evaluation waits, so that several are completed in one step.
        max_batch: number of completed evaluations that are written without waiting for more.
        replicas: replicas of Redis that must have an accepted evaluation before it counts as accepted. A failover loses
            what they do not have.

    Attributes:
        runs: the runs of the ledger.
        dead_letters: its dead letters.
    """

    def __init__(
        self,
        redis: "Redis",
        lease_seconds: float = 120.0,
        linger_seconds: float = 0.0,
        max_batch: int = _CHUNK,
        replicas: int = 0,
    ) -> None:
        self.lease_seconds = lease_seconds
        self._completions = Batcher(self.complete_all, linger_seconds, max_batch)
        self._redis = redis
        self._script = LedgerScript(redis, replicas)
        self.runs = Runs(redis, self._script)
        self.dead_letters = DeadLetters(redis, self._script)

    @property
    def redis(self) -> "Redis":
        """The Redis client, for plain reads."""
        return self._redis

    async def accept(self, eval_ids: Sequence[str], options: EnqueueOptions) -> list[str]:
        """Accept evaluations, each of which the ledger then keeps until it has an outcome; return those to publish now.

        If the ledger already has an evaluation, the order is merged into its job: the run is added, a refresh is
        remembered, and a live order moves it out of the backfill queue. It keeps the account of its first order. The
        account of the new order counts only if the evaluation has ended or is a dead letter.

        Args:
            eval_ids: canonical IDs, at most a few thousand, because nothing else runs in Redis during the step.
            options: the options of the order.

        Raises:
            NotReplicated: a failover might lose them, so they do not count as accepted even if the ledger has them.
        """
        return select_published(eval_ids, await self.accept_each(eval_ids, options)) if eval_ids else []

    async def accept_event(self, event: str, eval_id: str, options: EnqueueOptions) -> list[str] | None:
        """Accept the evaluation of a webhook event; return it if it is to be published now.

        Event and evaluation are written in one step. A repeated event therefore never counts twice, and a new event is
        never taken for a repeated one.

        Args:
            event: identifies the event, for a week.
            eval_id: the evaluation.
            options: the options of the order.

        Returns:
            None if the event was accepted before.

        Raises:
            NotReplicated: a failover might lose it, so it does not count as accepted even if the ledger has it.
        """
        flags = await self.accept_each([eval_id], options, event)
        return select_published([eval_id], flags) if flags else None

    async def accept_each(self, eval_ids: Sequence[str], options: EnqueueOptions, event: str = "") -> list[int]:
        """Accept evaluations as ``accept`` does; return the ``Acceptance`` of each, or [] for a repeated event."""
        with tracing.accept(options.queue.value, len(eval_ids)):
            order = options_as_json(options, eval_ids, listed=False)
            return [*await self._script.call_replicated("accept", event, order, *eval_ids)]

    async def lease(self, eval_ids: Sequence[str], *, token: str) -> list[Job]:
        """Lease the waiting evaluations of a message; the others are in progress or have ended."""
        found = await self._script.call("lease", self._to_milliseconds(self.lease_seconds), token, *eval_ids)
        return list(parse_jobs(zip(eval_ids, found, strict=True), token))

    async def extend(self, jobs: Iterable[Job]) -> list[str]:
        """Extend the leases; return the IDs whose lease was lost to another worker."""
        lost: list[str] = []
        leases = tuple(jobs)
        for start in range(0, len(leases), _CHUNK):
            pairs = [part for job in leases[start : start + _CHUNK] for part in (job.eval_id, job.token)]
            lost += await self._script.call("extend", self._to_milliseconds(self.lease_seconds), *pairs)
        return lost

    async def complete(
        self, job: Job, outcome: Outcome, unchanged: ManifestOutcome | None = None, answer: Outcome | None = None
    ) -> float:
        """Remove an evaluation and count its outcome for its runs.

        Evaluations that end within ``linger_seconds`` share one step.

        Returns:
            The seconds on Redis's clock since it was accepted, first ordered live, or redriven.

        Raises:
            LeaseLost: another worker has it now and will complete it.
            ResponseError: its entry is damaged.
        """
        age = await self._completions.submit((job, format_ending(outcome, unchanged, answer)))
        if age < 0:
            raise ResponseError("the entry of an evaluation is damaged")
        self._check_lease(age)
        return age / 1000

    async def complete_all(self, ends: Sequence[tuple[Job, str]]) -> list[int]:
        """Complete at most a few thousand evaluations in one step.

        Args:
            ends: the jobs, each with its ending as ``format_ending`` writes it.

        Returns:
            For each the milliseconds since it was accepted, first ordered live, or redriven, at least 1. It is 0 if
            another worker has the evaluation, and -1 if its entry is damaged.
        """
        parts = [part for job, ending in ends for part in (job.token, job.eval_id, ending)]
        ages: list[int] = await self._script.call("complete", *parts)
        return ages

    async def retry_later(self, job: Job, *, wait: float, attempts: int, failure: Failure) -> None:
        """Park an evaluation for ``wait`` seconds.

        Raises:
            LeaseLost: another worker has it now.
        """
        milliseconds = self._to_milliseconds(wait)
        self._check_lease(
            await self._script.call(
                "retry_later", job.token, job.eval_id, milliseconds, attempts, *format_failure(failure)
            )
        )

    async def await_hold(self, job: Job, *, cause: str, suspect: bool = False) -> None:
        """Hold an evaluation until the hold on its account, or on the archive, ends. Holding costs no attempt.

        Held evaluations are kept in one set for each account.

        Args:
            suspect: whether it failed itself because of a service, so that its next failure is not counted as new
                evidence against that service.

        Raises:
            LeaseLost: another worker has it now.
        """
        self._check_lease(await self._script.call("await_hold", job.token, job.eval_id, cause, int(suspect)))

    async def refund_attempts(self, eval_ids: Sequence[str]) -> None:
        """Refund the attempt that an outage cost these if they are parked, and hold them until the outage ends."""
        if eval_ids:
            await self._script.call("refund_attempts", *eval_ids)

    async def release(self, job: Job, *, excused: bool = False) -> None:
        """Put an evaluation back into the queued state. Its message is in the queue again, or soon will be.

        Args:
            excused: whether it failed because of a service, so that the failure does not count against it.

        Raises:
            LeaseLost: another worker has it now.
        """
        self._check_lease(await self._script.call("release", job.token, job.eval_id, int(excused)))

    async def dead_letter(self, job: Job, *, attempts: int, failure: Failure) -> None:
        """Make a dead letter of an evaluation that has no attempts left, and count it as failed for its runs.

        Raises:
            LeaseLost: another worker has it now.
        """
        self._check_lease(
            await self._script.call(
                "dead_letter", job.token, job.eval_id, Outcome.FAILED, attempts, *format_failure(failure)
            )
        )

    async def claim(
        self, *, patience: Mapping[Queue, float], of_held: Mapping[str, Mapping[Queue, int]], limit: int = 1000
    ) -> dict[Queue, list[str]]:
        """Move due evaluations into the queued state and return them, to be published by the caller.

        Evaluations are due if

        * their lease ran out,
        * their retry is due,
        * they wait for a hold to end, as many for each account and queue as ``of_held`` allows (none by default),
        * their message was lost: they have been queued for longer than the ``patience`` of their queue (seconds), or a
          worker has taken one that was queued a minute later.

        If the caller dies before it publishes them, they are claimed again once that patience ends.
        """
        flat = await self._script.call(
            "claim",
            limit,
            self._to_milliseconds(patience[Queue.LIVE]),
            self._to_milliseconds(patience[Queue.BACKFILL]),
            *(part for name, most in of_held.items() for part in (name, most[Queue.LIVE], most[Queue.BACKFILL])),
        )
        claimed: dict[Queue, list[str]] = {}
        for queue, eval_id in zip(flat[::2], flat[1::2], strict=True):
            claimed.setdefault(Queue(queue), []).append(eval_id)
        return claimed

    async def end_leases(self) -> int:
        """End every lease, and return how many there were. Call it only if no worker is alive."""
        return int(await self._script.call("end_leases"))

    async def get_stats(self) -> LedgerStats:
        """Count the evaluations by their state."""
        return await read_stats(self._redis)

    async def locate(self, eval_ids: Sequence[str]) -> list[tuple[str | None, str | None]]:
        """Return the state of each evaluation and the cause of that state, or None for either.

        The state is ``queued``, ``leased``, ``parked``, ``held``, ``dead`` or ``damaged``, or None if the evaluation is
        unknown. The answers for each thousand evaluations describe one moment.
        """
        found = await self._script.call_in_chunks("locate", eval_ids)
        return [(state or None, cause or None) for state, cause in zip(found[::2], found[1::2], strict=True)]

    async def erase(self, eval_id: str) -> bool:
        """Forget an evaluation in any state; return False, and do nothing, if a worker has it now.

        Its runs count it as ``unchanged`` with an ``erased`` manifest, so that their counters still add up.
        """
        return bool(await self._script.call("erase", f"{Outcome.UNCHANGED}:{ManifestOutcome.ERASED}", eval_id))

    @staticmethod
    def _to_milliseconds(seconds: float) -> int:
        return max(0, round(seconds * 1000))

    @staticmethod
    def _check_lease(answer: object) -> None:
        if not answer:
            raise LeaseLost
