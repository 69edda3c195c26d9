"""What one worker process is made of: a message's evaluations are taken out of the ledger and brought to an end."""

import asyncio
import contextlib
import os
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any

from kombu.exceptions import KombuError
from redis.exceptions import OutOfMemoryError, RedisError

from tasks.consumer.concurrency import ConcurrencyLimiter
from tasks.consumer.context import AccountContexts
from tasks.consumer.fair_share import FairShare
from tasks.errors import AccountBusy, AccountUnknown, BadMessage, BlockedError, LeaseLost, StorageError
from tasks.ledger.batcher import Batcher
from tasks.ledger.cancellation import Cancellation
from tasks.ledger.leases import LeaseKeeper
from tasks.ledger.ledger import Ledger
from tasks.ledger.rejected_messages import RejectedMessages
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.memory.spool import spooled_bytes
from tasks.model.job import EnqueueOptions, Job, Queue
from tasks.pipeline.attempt import attempt
from tasks.queueing.dispatcher import INTERVAL, dispatch
from tasks.queueing.feeder import INTERVAL as FEED_INTERVAL
from tasks.queueing.feeder import Feeder
from tasks.queueing.message import Message
from tasks.queueing.publisher import Backlog, Publisher, count_backlog
from tasks.resilience.hold_monitor import HoldMonitor
from tasks.resilience.holds import Holds
from tasks.resilience.rate_limiter import RateLimiter
from tasks.storage.open_bucket import open_bucket
from tasks.telemetry import log_events
from worker.broker.rabbitmq import BACKFILL_PREFETCH
from worker.broker.redis_transport import paused_queues
from worker.config.accounts import Accounts
from worker.config.settings import Settings
from worker.metrics.worker_metrics import IN_FLIGHT, SPOOLED, count_failed_attempt, observe_loop_lag
from worker.resources import Resources
from worker.runtime import Runtime, cancel_requested
from worker.watchdog import Watchdog

# An evaluation takes half a second and more. Where they come by the dozen, so many seconds are enough to write many
# of them down in one step, and a fifth of that to take several.
_LINGER = 0.025
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


class Consumer:
    """What one worker process is made of: made when it starts, closed when it ends.

    Args:
        settings: of this process.
        accounts: that it knows.
        resources: what is open.
        runtime: the loop it works on.
        publisher: what puts evaluations back on their queue.
        watchdog: what is told that this process is alive.
        queues: the queues that it serves.
    """

    def __init__(
        self,
        settings: Settings,
        accounts: Accounts,
        resources: Resources,
        runtime: Runtime,
        publisher: Publisher,
        watchdog: Watchdog,
        *,
        queues: Collection[Queue] = tuple(Queue),
    ) -> None:
        self._redis = resources.redis
        self._runtime = runtime
        self._watchdog = watchdog
        self._ticked_at: float | None = None
        self._queues = queues
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        fetched = {Queue.BACKFILL: BACKFILL_PREFETCH} if settings.broker_url else {}
        self._concurrency = ConcurrencyLimiter(settings.concurrency, runtime.cancel_on_drain, _pause_backfill, fetched)
        IN_FLIGHT.set_function(lambda: self._concurrency.in_flight)
        SPOOLED.set_function(spooled_bytes)
        self._workers = WorkerRegistry(resources.redis)
        self._direct_tasks: set[asyncio.Task[bool]] = set()
        # If a backfill is archived already, its evaluations all end within milliseconds. Those that ended would wait
        # for the clock, and their slots would stay unused.
        self._ledger = Ledger(
            resources.redis,
            settings.lease_seconds,
            linger_seconds=_LINGER,
            max_batch=max(1, settings.concurrency // 2),
            replicas=settings.redis_replicas,
        )
        self._lease_batcher = Batcher(self._lease_each, _LINGER / 5)
        self._leases = LeaseKeeper(self._ledger)
        self._cancellation, self._cancellations = Cancellation(resources.redis), 0
        self._rejected = RejectedMessages(resources.redis)
        self._publisher = publisher
        bucket = open_bucket(resources.archive, settings.storage_class, resources.write_client)
        self._feeder = Feeder(self._ledger, publisher, bucket, settings.environment, settings.backlog)
        rate_limiter = RateLimiter(resources.redis, runtime.pause)
        self._accounts = accounts
        self._contexts = AccountContexts(
            settings,
            accounts,
            resources,
            bucket,
            rate_limiter,
            acquire_slot=self._concurrency.slot,
            confirm_lease=self._leases.confirm,
        )
        self._hold_monitor = HoldMonitor(
            self._contexts.names, Holds(resources.redis), resources.redis, rate_limiter, self._contexts.gate
        )
        self._fair_share = FairShare(settings.concurrency, len(accounts))
        self._unknown_accounts: set[str] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the loops of this process going for as long as the block lasts."""
        loops = [
            asyncio.create_task(_run_every(INTERVAL, "tick", self._tick)),
            asyncio.create_task(_run_every(INTERVAL, "dispatch", self._dispatch)),
            asyncio.create_task(_run_every(self._leases.interval, "leases", self._leases.renew)),
        ]
        if Queue.BACKFILL in self._queues:
            loops.append(asyncio.create_task(_run_every(FEED_INTERVAL, "feed", self._feed)))
        try:
            yield
        finally:
            for loop in (*loops, *self._direct_tasks):
                loop.cancel()
            await asyncio.gather(*loops, *self._direct_tasks, return_exceptions=True)
            with contextlib.suppress(RedisError, OSError):
                await self._workers.deregister(self._name)

    def check(self, message: Message) -> None:
        """See that a message may be accepted here.

        Raises:
            BadMessage: it names no account that this process knows.
        """
        if not message.accepted:
            self._get_account(message)

    def handle(self, message: Message) -> Coroutine[Any, Any, bool]:
        """Bring every evaluation of a message to its end; return whether none was handed back.

        It is called from any thread, and awaited on the loop; what it will bring counts from the call.

        Raises:
            RedisError: one of them could not be written down; the others have been brought to their end all the same.
        """
        self._concurrency.expect_evaluations(message.queue, len(message.eval_ids))
        return self._handle_fetched(message)

    async def reject(self, cause: str, why: str, source: str, message: str) -> None:
        """Keep what does not fit the contract among the dead letters.

        Args:
            cause: a short fixed word.
            why: our own words.
            source: the queue it came on.
            message: ID that its sender gave it; kept where it is a UUID, for another one may say anything.
        """
        known = message.lower() if _UUID.fullmatch(message.lower()) else None
        log_events.message_rejected(cause, why, source, known)
        # What came is in no queue any more, and a full Redis takes nothing: then the log has to do.
        with contextlib.suppress(OutOfMemoryError):
            await self._rejected.add(cause=cause, why=why, source=source, message=known)

    async def _handle_fetched(self, message: Message) -> bool:
        self._watchdog.message_handled()
        with self._concurrency.track_message(message.queue):
            try:
                jobs = await self._lease_message(message)
            finally:
                self._concurrency.expect_evaluations(message.queue, -len(message.eval_ids))
            return await self._process_all(jobs)

    async def _handle_unpublished(self, eval_ids: Sequence[str]) -> bool:
        return await self._process_all(await self._lease(eval_ids))

    async def _lease_message(self, message: Message) -> list[Job]:
        if not message.accepted:
            account = self._get_account(message)
            options = EnqueueOptions(
                message.queue,
                account,
                message.trigger,
                refresh=message.refresh,
                delay=message.settle_seconds,
                facts=message.facts,
            )
            await self._ledger.accept(message.eval_ids, options)
        # What comes one by one, as live events do, is taken together with what comes at the same time.
        alone = len(message.eval_ids) == 1
        return await (self._lease_batcher.submit(message.eval_ids[0]) if alone else self._lease(message.eval_ids))

    async def _process_all(self, jobs: Sequence[Job]) -> bool:
        """Bring evaluations to their end; return whether none was handed back."""
        with self._leases.keep(jobs):
            ends = await asyncio.gather(*map(self._process, jobs), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return all(ends)

    def _get_account(self, message: Message) -> str:
        found = self._accounts.find(message.account)
        if found is None and message.account is None:
            raise BadMessage("it names no account, and there is none called default")
        if found is None:
            raise BadMessage("its account is none that this worker knows; see DOCV_ACCOUNTS")
        return found.name

    async def _lease(self, eval_ids: Sequence[str]) -> list[Job]:
        return await self._ledger.lease(eval_ids, token=f"{self._name}:{secrets.token_hex(8)}")

    async def _lease_each(self, eval_ids: Sequence[str]) -> list[list[Job]]:
        """Lease the evaluations of messages that name one each; each belongs to the first message that names it."""
        jobs = {job.eval_id: [job] for job in await self._lease(tuple(dict.fromkeys(eval_ids)))}
        return [jobs.pop(eval_id, []) for eval_id in eval_ids]

    async def _process(self, job: Job) -> bool:
        """Make an attempt at one evaluation when there is room; return false where it was handed back instead."""
        try:
            ctx = self._contexts.get(job.account)
            if ctx is None:
                await self._defer_unknown_account(job)
            elif not self._fair_share.can_start(job.account, job.queue):
                await self._defer(job, AccountBusy())
            else:
                with self._fair_share.slot(job.account):
                    async with self._concurrency.admit(job.queue):
                        if self._leases.begin(job):
                            await attempt(job, ctx, self._ledger)
        except asyncio.CancelledError:
            return await self._release(job)
        finally:
            self._leases.forget(job)
        return True

    async def _defer_unknown_account(self, job: Job) -> None:
        """Leave an evaluation to a worker that knows its account."""
        unknown = AccountUnknown(job.account)
        if job.account not in self._unknown_accounts:
            self._unknown_accounts.add(job.account)
            log_events.account_unknown(unknown)
        count_failed_attempt(unknown.cause)
        await self._defer(job, unknown)

    async def _defer(self, job: Job, error: BlockedError) -> None:
        """Have an evaluation wait with the others of its account; it loses nothing."""
        with log_events.bind_evaluation(job):
            try:
                await self._ledger.await_hold(job, cause=error.cause)
            except LeaseLost:
                log_events.lease_lost()
            else:
                log_events.evaluation_deferred(error)

    async def _release(self, job: Job) -> bool:
        """Give it back to the queue; return false, or true where it is somebody else's by now."""
        with log_events.bind_evaluation(job):
            try:
                await self._ledger.release(job)
            except LeaseLost:
                log_events.lease_lost()
                return True
            log_events.evaluation_released()
        return False

    async def _tick(self) -> None:
        self._watchdog.tick()
        now = time.monotonic()
        if self._ticked_at is not None:
            observe_loop_lag(max(0.0, now - self._ticked_at - INTERVAL))
        self._ticked_at = now

    async def _feed(self) -> None:
        while not self._runtime.draining and await self._feeder.feed_once():
            pass
        await self._feeder.publish()

    async def _dispatch(self) -> None:
        """Do the round of every second: see what stands still, publish what is due, tell how it goes."""
        if self._runtime.draining:
            return
        await self._workers.heartbeat(self._name, self._queues)
        await self._drop_cancelled()
        holds = await self._hold_monitor.refresh()
        waiting = await asyncio.to_thread(self._publisher.count_waiting)
        # RabbitMQ does not say how many messages workers have fetched. Where some may be, there is patience for them.
        messages = await count_backlog(self._redis) if waiting is None else Backlog(waiting, unacknowledged=1)
        read = [queue for queue in self._queues if queue not in paused_queues and self._concurrency.can_fetch(queue)]
        self._watchdog.queue_observed(waiting=any(messages.waiting[queue] for queue in read))
        _, no_room = await dispatch(self._ledger, self._publisher, messages, holds, self._fair_share.fetch_limit)
        for eval_ids in no_room.values():
            self._handle_without_message(eval_ids)
        await self._contexts.flush()

    async def _drop_cancelled(self) -> None:
        """Put back evaluations that have not begun and were cancelled: that ends them."""
        number = await self._cancellation.count()
        if number == self._cancellations:
            return
        for eval_id in await self._cancellation.find_unwanted(self._leases.list_waiting()):
            if job := self._leases.take_back(eval_id):
                await self._release(job)
        self._cancellations = number

    def _handle_without_message(self, eval_ids: Sequence[str]) -> None:
        """Work on what could not be published; while that goes on, what else is due has to wait."""
        if not self._direct_tasks:
            task = asyncio.create_task(self._handle_unpublished(eval_ids))
            self._direct_tasks.add(task)
            task.add_done_callback(self._finish_direct)

    def _finish_direct(self, task: "asyncio.Task[bool]") -> None:
        self._direct_tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            log_events.loop_failed("work", error)


def _pause_backfill(has_enough: bool) -> None:  # noqa: FBT001  # as ConcurrencyLimiter calls it
    """Fetch no more of the backfill while there is enough of it here."""
    if has_enough:
        paused_queues.pause(Queue.BACKFILL)
    else:
        paused_queues.resume(Queue.BACKFILL)


async def _run_every(seconds: float, name: str, round_: Callable[[], Awaitable[None]]) -> None:
    """Do something again and again; a round that fails is told and does not end the loop."""
    while not cancel_requested():
        try:
            await round_()
        except (RedisError, KombuError, StorageError, OSError) as error:
            log_events.loop_failed(name, error)
        await asyncio.sleep(seconds)
