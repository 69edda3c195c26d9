"""Process the evaluations of a message: lease them from the ledger, and make an attempt at each."""

import asyncio
import contextlib
import re
import secrets
from collections.abc import Coroutine, Sequence
from typing import Any

from redis.exceptions import OutOfMemoryError

from tasks.consumer.parts import LINGER_SECONDS, ConsumerParts
from tasks.errors import AccountBusy, AccountUnknown, BadMessage, BlockedError, LeaseLost
from tasks.ledger.batcher import Batcher
from tasks.ledger.rejected_messages import RejectedMessages
from tasks.model.job import EnqueueOptions, Job
from tasks.pipeline.attempt import attempt
from tasks.pipeline.pipeline import PipelineContext
from tasks.queueing.message import Message, parse_eval_ids
from tasks.telemetry import log_events, tracing
from worker.metrics.worker_metrics import count_failed_attempt

_PAUSED_SECONDS = 1.0
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


class Consumer:
    """Processes the messages that a worker process fetches."""

    def __init__(self, parts: ConsumerParts) -> None:
        self._parts = parts
        self._rejected = RejectedMessages(parts.redis)
        self._lease_batcher = Batcher(self._lease_each, LINGER_SECONDS / 5)
        self._unknown_accounts: set[str] = set()

    def check(self, message: Message) -> None:
        """Check that a message may be accepted here.

        Raises:
            BadMessage: it names no account that this process knows.
        """
        if not message.accepted:
            self._get_account(message)

    def handle(self, message: Message) -> Coroutine[Any, Any, bool]:
        """Process every evaluation of a message; return False if some were released to their queue.

        Call this from any thread, and await the result on the loop. The evaluations count as expected from the call on.

        Raises:
            RedisError: the result of one evaluation could not be recorded; the others have been processed anyway.
        """
        self._parts.prefetch.expect_evaluations(message.queue, len(message.eval_ids))
        return self._handle_fetched(message)

    async def handle_unpublished(self, eval_ids: Sequence[str]) -> None:
        """Process evaluations without a message."""
        good, _ = parse_eval_ids(eval_ids)  # checked like those of a message
        await self._process_all(await self._lease(good))

    async def reject(self, cause: str, why: str, source: str, message: str) -> None:
        """Keep a message that does not fit the contract among the dead letters.

        Args:
            cause: a short fixed word.
            why: a sentence by this program; never a part of the message.
            source: the queue that it came from.
            message: the ID that its sender gave it; kept only if it is a UUID, because any other ID may hold anything.
        """
        known = message.lower() if _UUID.fullmatch(message.lower()) else None
        log_events.message_rejected(cause, why, source, known)
        # The message has left its queue. If Redis is full, only the log line records it.
        with contextlib.suppress(OutOfMemoryError):
            await self._rejected.add(cause=cause, why=why, source=source, message=known)

    async def release(self, job: Job) -> bool:
        """Release an evaluation to its queue; return False, or True if another worker has it by now."""
        with log_events.bind_evaluation(job):
            try:
                await self._parts.ledger.release(job)
            except LeaseLost:
                log_events.lease_lost()
                return True
            log_events.evaluation_released()
        return False

    async def _handle_fetched(self, message: Message) -> bool:
        parts = self._parts
        parts.watchdog.record_message()
        with parts.prefetch.track_message(message.queue):
            try:
                if parts.pause.is_closed:
                    # RabbitMQ would deliver the message again at once.
                    await parts.runtime.pause(_PAUSED_SECONDS)
                    return False
                jobs = await self._lease_message(message)
            finally:
                parts.prefetch.expect_evaluations(message.queue, -len(message.eval_ids))
            return await self._process_all(jobs)

    async def _lease_message(self, message: Message) -> list[Job]:
        if not message.accepted:
            await self._accept(message)
        # Evaluations of messages with one ID, such as live events, are leased together with others that arrive then.
        if len(message.eval_ids) == 1:
            return await self._lease_batcher.submit(message.eval_ids[0])
        return await self._lease(message.eval_ids)

    async def _accept(self, message: Message) -> None:
        options = EnqueueOptions(
            message.queue,
            self._get_account(message),
            message.trigger,
            refresh=message.refresh,
            delay=message.settle_seconds,
            facts=message.facts,
        )
        with tracing.process_message(message.traceparent, queue=message.queue.value, evaluations=len(message.eval_ids)):
            await self._parts.ledger.accept(message.eval_ids, options)

    def _get_account(self, message: Message) -> str:
        found = self._parts.accounts.find(message.account)
        if found is None and message.account is None:
            raise BadMessage("it names no account, and no account is called default")
        if found is None:
            raise BadMessage("this worker does not have its account; check DOCV_ACCOUNTS")
        return found.name

    async def _lease(self, eval_ids: Sequence[str]) -> list[Job]:
        return await self._parts.ledger.lease(eval_ids, token=f"{self._parts.name}:{secrets.token_hex(8)}")

    async def _lease_each(self, eval_ids: Sequence[str]) -> list[list[Job]]:
        """Lease the evaluations of messages with one ID each; the first message with an ID gets its job."""
        jobs = {job.eval_id: [job] for job in await self._lease(tuple(dict.fromkeys(eval_ids)))}
        return [jobs.pop(eval_id, []) for eval_id in eval_ids]

    async def _process_all(self, jobs: Sequence[Job]) -> bool:
        """Process evaluations; return False if some were released to their queue."""
        with self._parts.leases.keep(jobs):
            results = await asyncio.gather(*map(self._process, jobs), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return all(results)

    async def _process(self, job: Job) -> bool:
        """Make an attempt at an evaluation once it is admitted; return False if it was released to its queue."""
        parts = self._parts
        try:
            ctx = parts.contexts.get(job.account)
            if ctx is None:
                await self._defer_unknown_account(job)
            elif not parts.fair_share.can_start(job.account, job.queue):
                await self._defer(job, AccountBusy())
            else:
                with parts.fair_share.slot(job.account):
                    async with parts.concurrency.admit(job.queue):
                        if parts.leases.begin(job):
                            return await self._attempt(job, ctx)
        except asyncio.CancelledError:
            return await self.release(job)
        finally:
            parts.leases.forget(job)
        return True

    async def _attempt(self, job: Job, ctx: PipelineContext) -> bool:
        with self._parts.pause.attempt() as may_begin:
            return await (attempt(job, ctx, self._parts.ledger) if may_begin else self.release(job))

    async def _defer_unknown_account(self, job: Job) -> None:
        """Leave an evaluation to a worker that knows its account."""
        unknown = AccountUnknown(job.account)
        if job.account not in self._unknown_accounts:
            self._unknown_accounts.add(job.account)
            log_events.account_unknown(unknown)
        count_failed_attempt(unknown.cause)
        await self._defer(job, unknown)

    async def _defer(self, job: Job, error: BlockedError) -> None:
        """Let an evaluation wait with the others of its account; it costs no attempt."""
        with log_events.bind_evaluation(job):
            try:
                await self._parts.ledger.await_hold(job, cause=error.cause)
            except LeaseLost:
                log_events.lease_lost()
            else:
                log_events.evaluation_deferred(error)
