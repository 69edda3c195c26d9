"""What was accepted and has no outcome yet: the promise that nothing is lost.

The queue is only how an evaluation travels; a message may get lost or come twice. The ledger knows what
was accepted, who works on it and when it is due, and ``dispatch`` publishes again what is due.

    accept ──▶ queued ──lease──▶ leased ──complete────▶ gone: it has an outcome
                 ▲                 ├─────dead_letter──▶ dead letter
                 ├─────release─────┤
                 ├─claim── parked ◀┤ retry_later        until its time
                 └─claim─── held ◀─┘ await_hold         until its account, or the archive, is well again
"""

import enum
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tasks.errors import LeaseLost
from tasks.ledger.batcher import Batcher
from tasks.ledger.counters import LedgerStats, RunCounters
from tasks.ledger.entries import KEY_PREFIX as _PREFIX
from tasks.ledger.script import LedgerScript
from tasks.ledger.serialization import (
    failure_fields,
    format_ending,
    options_as_json,
    parse_counters,
    parse_dead_letter,
    parse_jobs,
    select_published,
)
from tasks.ledger.stats import read_stats
from tasks.model.account import DEFAULT_ACCOUNT
from tasks.model.job import DeadLetter, EnqueueOptions, Failure, Job, Queue
from tasks.model.outcome import ManifestOutcome, Outcome
from tasks.telemetry.tracing import span

_CHUNK = 1000


class BeginResult(enum.StrEnum):
    """What came of beginning a run with a list."""

    CREATED = "begun"
    RESUMED = "known"
    CONFLICT = "taken"
    CANCELLED = "cancelled"


class Ledger:
    """The ledger in Redis. Every method is one atomic step.

    Args:
        redis: the client, with ``decode_responses``.
        lease_seconds: seconds a lease lasts unless it is extended.
        linger_seconds: seconds that what ends waits for others, to be written down with them in one step.
        max_batch: once so many have ended, none of them waits for more.
        replicas: of Redis, which must have what is accepted before it counts: a failover forgets what they have not.
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

    async def accept(self, eval_ids: Sequence[str], options: EnqueueOptions) -> list[str]:
        """Promise to bring each evaluation to an outcome; return those to publish now.

        An evaluation that is in the ledger already is merged: it joins the run, a refresh is remembered,
        and what is wanted live does not wait behind a backfill. It stays with the account that it was first accepted
        for, whatever account the new order names; of one that has ended, dead letters included, the new order's counts.

        Args:
            eval_ids: canonical IDs, at most some thousand: the step is atomic, nothing else runs meanwhile.
            options: how they are wanted.

        Raises:
            NotReplicated: a failover might forget them; so they do not count as accepted, though they may be.
        """
        return select_published(eval_ids, await self.accept_each(eval_ids, options)) if eval_ids else []

    async def accept_event(self, event: str, eval_id: str, options: EnqueueOptions) -> list[str] | None:
        """Accept the evaluation of a webhook's event; return it if it is to be published now.

        Event and evaluation are written down in one step, so that neither a repeated event counts twice nor a new one
        is taken for a repeated one.

        Args:
            event: what the event is known by for a week.
            eval_id: the evaluation.
            options: how they are wanted.

        Returns:
            None where the event has been accepted before.

        Raises:
            NotReplicated: a failover might forget it; so it does not count as accepted, though it may be.
        """
        flags = await self.accept_each([eval_id], options, event)
        return select_published([eval_id], flags) if flags else None

    async def accept_each(self, eval_ids: Sequence[str], options: EnqueueOptions, event: str = "") -> list[int]:
        """Accept evaluations, as ``accept`` does; return the ``Acceptance`` of each, or none for a repeated event."""
        with span("accept", queue=options.queue.value, evaluations=len(eval_ids)):
            order = options_as_json(options, eval_ids, listed=False)
            return [*await self._script.call_replicated("accept", event, order, *eval_ids)]

    async def begin_run(
        self, run: str, *, total: int, fingerprint: str, account: str = DEFAULT_ACCOUNT, again: bool = False
    ) -> BeginResult:
        """Begin a run that has a list, or go on with it: from now on it is fed to the ledger.

        Args:
            total: how many IDs the list has.
            fingerprint: what the list is known by.
            account: name of the account that its evaluations are asked for with.
            again: if the run was cancelled, begin it from the start of its list.

        Raises:
            NotReplicated: a failover might forget it; begin it again.
        """
        return BeginResult(await self._script.call_replicated("begin", run, total, fingerprint, account, int(again)))

    async def accept_refusals(self, run: str) -> bool:
        """Do not put a run on hold for its refusals; if it is on hold, let the rest of it go on.

        Returns:
            Whether it was on hold.
        """
        return bool(await self._script.call("accept_refusals", run))

    async def list_feeding(self) -> list[str]:
        """Return the names of the runs that are fed from their lists, the oldest first."""
        return [str(name) for name in await self._redis.zrange(f"{_PREFIX}feeding", 0, -1)]

    async def stop_feeding(self, run: str) -> None:
        """Feed no more of a run; what is in the ledger comes to its end. ``begin_run`` goes on with it."""
        await self._redis.zrem(f"{_PREFIX}feeding", run)

    async def get_fingerprint(self, run: str) -> str | None:
        """Return what the list of a run is known by; None where it has none."""
        found = await self._redis.hget(f"{_PREFIX}run:{run}", "listed")
        return None if found is None else str(found)

    async def get_position(self, run: str) -> int:
        """Return how many of a run's list have been accepted."""
        return int(await self._redis.hget(f"{_PREFIX}run:{run}", "fed") or 0)

    async def feed(
        self, run: str, eval_ids: Sequence[str], options: EnqueueOptions, *, position: int, backlog: int
    ) -> list[str] | None:
        """Accept the next evaluations of a run's list; return those to publish now.

        Args:
            run: its name.
            eval_ids: canonical IDs, at most some thousand.
            options: how they are wanted.
            position: how many of the list come before them.
            backlog: evaluations that the ledger may hold for this to be done at all.

        Returns:
            None where nothing was done: the ledger is full enough, or somebody else has fed these.
        """
        order = options_as_json(options, eval_ids, listed=True)
        flags = await self._script.call("feed", run, position, backlog, order, *eval_ids)
        return select_published(eval_ids, flags) if flags else None

    async def lease(self, eval_ids: Sequence[str], *, token: str) -> list[Job]:
        """Lease those evaluations of a message that are waiting; the others are under way or have ended."""
        found = await self._script.call("lease", self._to_milliseconds(self.lease_seconds), token, *eval_ids)
        return list(parse_jobs(zip(eval_ids, found, strict=True), token))

    async def extend(self, jobs: Iterable[Job]) -> list[str]:
        """Extend the leases; return the IDs whose lease another worker has by now."""
        lost: list[str] = []
        leases = tuple(jobs)
        for start in range(0, len(leases), _CHUNK):
            pairs = [part for job in leases[start : start + _CHUNK] for part in (job.eval_id, job.token)]
            lost += await self._script.call("extend", self._to_milliseconds(self.lease_seconds), *pairs)
        return lost

    async def complete(
        self, job: Job, outcome: Outcome, unchanged: ManifestOutcome | None = None, answer: Outcome | None = None
    ) -> float:
        """Remove it and count its outcome for its runs, in one step that others share which end at about the same time.

        Returns:
            For how many seconds it was waited for, on Redis's clock: since it was accepted, wanted live, or redriven.

        Raises:
            LeaseLost: another worker has it now and will settle it.
            ResponseError: its entry is damaged.
        """
        age = await self._completions.submit((job, format_ending(outcome, unchanged, answer)))
        if age < 0:
            raise ResponseError("the entry of an evaluation is damaged")
        self._check_lease(age)
        return age / 1000

    async def complete_all(self, ends: Sequence[tuple[Job, str]]) -> list[int]:
        """Settle several, at most some thousand, in one step: as ``format_ending`` writes it.

        Returns:
            For each the milliseconds it was waited for, at least 1; 0 if another worker has it, -1 if it is damaged.
        """
        parts = [part for job, outcome in ends for part in (job.token, job.eval_id, outcome)]
        settled: list[int] = await self._script.call("complete", *parts)
        return settled

    async def retry_later(self, job: Job, *, wait: float, attempts: int, failure: Failure) -> None:
        """Come back to it in ``wait`` seconds.

        Raises:
            LeaseLost: another worker has it now.
        """
        milliseconds = self._to_milliseconds(wait)
        self._check_lease(
            await self._script.call(
                "retry_later", job.token, job.eval_id, milliseconds, attempts, *failure_fields(failure)
            )
        )

    async def await_hold(self, job: Job, *, cause: str, suspect: bool = False) -> None:
        """Keep it until its account, or the archive, is well again; that costs no attempt and no work meanwhile.

        What waits for one account is kept apart from what waits for another.

        Args:
            suspect: whether it failed itself, so that its next failure says nothing of the service.

        Raises:
            LeaseLost: another worker has it now.
        """
        self._check_lease(await self._script.call("await_hold", job.token, job.eval_id, cause, int(suspect)))

    async def refund_attempts(self, eval_ids: Sequence[str]) -> None:
        """Give those that are parked the attempt back that an outage cost them; they wait for its end."""
        if eval_ids:
            await self._script.call("refund_attempts", *eval_ids)

    async def release(self, job: Job) -> None:
        """Put it back among the queued: its message is, or will be, in the queue again.

        Raises:
            LeaseLost: another worker has it now.
        """
        self._check_lease(await self._script.call("release", job.token, job.eval_id))

    async def dead_letter(self, job: Job, *, attempts: int, failure: Failure) -> None:
        """Its attempts are used up: make it a dead letter, and count it as failed for its runs.

        Raises:
            LeaseLost: another worker has it now.
        """
        self._check_lease(
            await self._script.call(
                "dead_letter", job.token, job.eval_id, Outcome.FAILED, attempts, *failure_fields(failure)
            )
        )

    async def claim(
        self, *, patience: Mapping[Queue, float], of_held: Mapping[str, Mapping[Queue, int]], limit: int = 1000
    ) -> dict[Queue, list[str]]:
        """Move what is due to the queued and return it, to be published by the caller.

        Due are leases that ran out, what was parked until now, at most ``of_held`` of those of each account that wait
        for a hold to end (none of an account that is not in it), and what has been queued for longer than the
        ``patience`` (seconds) with its queue, or was overtaken by what was queued a minute later: its message was lost.
        Whoever dies between this and publishing has only made it queued; patience ends there, too.
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
        """End every lease; only for who knows that no worker is alive. Return how many there were."""
        return int(await self._script.call("end_leases"))

    async def get_run(self, name: str) -> RunCounters:
        """Return the counters of a run; all zero where nobody has heard of it."""
        return parse_counters(await self._redis.hgetall(f"{_PREFIX}run:{name}"))

    async def get_counters(self, names: Sequence[str]) -> dict[str, RunCounters]:
        """Return the counters of several runs, at most some hundred, in one go."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(f"{_PREFIX}run:{name}")
            return dict(zip(names, map(parse_counters, await pipe.execute()), strict=True))

    async def get_run_age(self, name: str) -> float | None:
        """Return for how many seconds a run has been going on, or went on; None where nobody has heard of it."""
        began = await self._redis.zscore(f"{_PREFIX}runs", name)
        if began is None:
            return None
        if not (await self.get_run(name)).pending:
            changed = await self._redis.hget(f"{_PREFIX}run:{name}", "changed")
            return (float(changed or began) - began) / 1000
        seconds, micro = await self._redis.time()
        return float(seconds) + int(micro) / 1e6 - began / 1000

    async def list_runs(self, newest: int = 20, *, skip: int = 0) -> list[str]:
        """Return the names of the newest runs, the newest first; ``skip`` leaves out so many before them."""
        return [str(name) for name in await self._redis.zrevrange(f"{_PREFIX}runs", skip, skip + newest - 1)]

    async def count_runs(self) -> int:
        """Return how many runs there are."""
        return int(await self._redis.zcard(f"{_PREFIX}runs"))

    async def get_stats(self) -> LedgerStats:
        """Count the evaluations by their state."""
        return await read_stats(self._redis)

    async def locate(self, eval_ids: Sequence[str]) -> list[tuple[str | None, str | None]]:
        """Return for each evaluation its state and the cause of it, as far as there are any.

        The state is ``queued``, ``leased``, ``parked``, ``held`` or ``dead``, None for what the ledger does not know.
        The answers are those of one moment for a thousand each.
        """
        found = await self._script.call_in_chunks("locate", eval_ids)
        return [(state or None, cause or None) for state, cause in zip(found[::2], found[1::2], strict=True)]

    async def iterate_dead_letters(self) -> AsyncIterator[DeadLetter]:
        """Yield the dead letters, in no order, a few hundred at a time: there may be very many."""
        async for eval_id, text in self._redis.hscan_iter(f"{_PREFIX}dead", count=_CHUNK):
            yield parse_dead_letter(eval_id, text)

    async def count_causes(self, most: int = 100) -> dict[str, int]:
        """Return how many dead letters there are for each cause, the most frequent first."""
        found: Any = await self._redis.zrevrange(f"{_PREFIX}causes", 0, most - 1, withscores=True)
        return {str(cause): int(count) for cause, count in found}

    async def count_dead_letters(self, cause: str) -> int:
        """Return how many dead letters have a cause."""
        return int(await self._redis.zscore(f"{_PREFIX}causes", cause) or 0)

    async def list_dead_letters(self, cause: str, count: int, *, skip: int = 0) -> list[str]:
        """Return the evaluations that died of a cause, at most ``count``, those that failed last first."""
        return [str(each) for each in await self._redis.zrevrange(f"{_PREFIX}dead:{cause}", skip, skip + count - 1)]

    async def get_dead_letters(self, eval_ids: Sequence[str]) -> list[DeadLetter]:
        """Return the dead letters of these evaluations, at most some hundred; of those that have one."""
        found: Any = await self._redis.hmget(f"{_PREFIX}dead", list(eval_ids)) if eval_ids else []
        return [parse_dead_letter(each, text) for each, text in zip(eval_ids, found, strict=True) if text]

    async def redrive_dead_letters(self, eval_ids: Sequence[str]) -> list[str]:
        """Try dead letters anew, with all their attempts; return those that were there.

        Their runs count them as pending again.
        """
        return await self._script.call_in_chunks("redrive", eval_ids, Outcome.FAILED)

    async def drop_dead_letters(self, eval_ids: Sequence[str]) -> list[str]:
        """Forget dead letters; return those that were there. Their runs go on counting them as failed."""
        return await self._script.call_in_chunks("drop", eval_ids)

    async def is_leased(self, eval_id: str) -> bool:
        """Return whether a worker has the evaluation now."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.time()
            pipe.zscore(f"{_PREFIX}leased", eval_id)
            (seconds, micro), ends = await pipe.execute()
        return ends is not None and bool(ends / 1000 > seconds + micro / 1e6)

    async def erase(self, eval_id: str) -> bool:
        """Forget an evaluation, whatever its state; return False where a worker has it now, and nothing was done.

        Its runs count it as ``unchanged``, with a manifest that says ``erased``, so that they still add up.
        """
        return bool(await self._script.call("erase", f"{Outcome.UNCHANGED}:{ManifestOutcome.ERASED}", eval_id))

    @staticmethod
    def _to_milliseconds(seconds: float) -> int:
        return max(0, round(seconds * 1000))

    @staticmethod
    def _check_lease(answer: object) -> None:
        if not answer:
            raise LeaseLost
