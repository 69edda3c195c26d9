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
from tasks.ledger.leases import LeaseKeeper
from tasks.ledger.ledger import Ledger
from tasks.ledger.rejected_messages import RejectedMessages
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.memory.spool import spooled_bytes
from tasks.model.job import EnqueueOptions, Job, Queue, Trigger
from tasks.pipeline.attempt import attempt
from tasks.queueing.dispatcher import INTERVAL, dispatch
from tasks.queueing.feeder import INTERVAL as FEED_INTERVAL
from tasks.queueing.feeder import Feeder
from tasks.queueing.message import Message
from tasks.queueing.publisher import Backlog, Publisher, backlog
from tasks.resilience.hold_monitor import HoldMonitor
from tasks.resilience.holds import Holds
from tasks.resilience.rate_limiter import RateLimiter
from tasks.storage.open_bucket import open_bucket
from tasks.telemetry import log_events
from worker.broker.rabbitmq import BACKFILL_PLACES
from worker.broker.redis_transport import paused_queues
from worker.config.accounts import Accounts
from worker.config.settings import Settings
from worker.metrics.worker_metrics import WorkerMetrics
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
        figures: who counts what is done.
        serves: the queues that it serves.
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
        figures: WorkerMetrics,
        serves: Collection[Queue] = tuple(Queue),
    ) -> None:
        self._redis = resources.redis
        self._runtime = runtime
        self._watchdog = watchdog
        self._figures = figures
        self._ticked: float | None = None
        self._serves = serves
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        fetched = {Queue.BACKFILL: BACKFILL_PLACES} if settings.broker_url else {}
        self._flight = ConcurrencyLimiter(settings.concurrency, runtime.unless_draining, _rest, fetched)
        figures.watch(lambda: self._flight.aboard, spooled_bytes)
        self._presence = WorkerRegistry(resources.redis)
        self._direct: set[asyncio.Task[bool]] = set()
        # Of a backfill that is archived already all places end within milliseconds; those that ended would wait for the
        # clock, and nobody would use theirs.
        self._ledger = Ledger(
            resources.redis,
            settings.lease_seconds,
            linger=_LINGER,
            enough=max(1, settings.concurrency // 2),
            replicas=settings.redis_replicas,
        )
        self._taking = Batcher(self._take_each, _LINGER / 5)
        self._leases = LeaseKeeper(self._ledger)
        self._refusals = RejectedMessages(resources.redis)
        self._publisher = publisher
        bucket = open_bucket(resources.archive, settings.storage_class, resources.writing)
        self._feeder = Feeder(self._ledger, publisher, bucket, settings.environment, settings.backlog)
        turns = RateLimiter(resources.redis, runtime.pause)
        self._accounts = accounts
        self._lines = AccountContexts(
            settings,
            accounts,
            resources,
            bucket,
            turns,
            figures,
            place=self._flight.place,
            confirm=self._leases.confirm,
        )
        self._standing = HoldMonitor(self._lines.names, Holds(resources.redis), turns, self._lines.gate)
        self._shares = FairShare(settings.concurrency, len(accounts))
        self._strange: set[str] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the loops of this process going for as long as the block lasts."""
        loops = [
            asyncio.create_task(_every(INTERVAL, "tick", self._tick)),
            asyncio.create_task(_every(INTERVAL, "dispatch", self._dispatch)),
            asyncio.create_task(_every(self._leases.interval, "leases", self._leases.beat)),
        ]
        if Queue.BACKFILL in self._serves:
            loops.append(asyncio.create_task(_every(FEED_INTERVAL, "feed", self._feed)))
        try:
            yield
        finally:
            for loop in (*loops, *self._direct):
                loop.cancel()
            await asyncio.gather(*loops, *self._direct, return_exceptions=True)
            with contextlib.suppress(RedisError, OSError):
                await self._presence.leave(self._name)

    def check(self, message: Message) -> None:
        """See that a message may be accepted here.

        Raises:
            BadMessage: it means no account that this process knows.
        """
        if not message.accepted:
            self._account_of(message)

    def work(self, message: Message) -> Coroutine[Any, Any, bool]:
        """Bring every evaluation of a message to its end; return whether none was handed back.

        It is called from any thread, and awaited on the loop; what it will bring counts from the call.

        Raises:
            RedisError: one of them could not be written down; the others have been brought to their end all the same.
        """
        self._flight.expect(message.queue, len(message.eval_ids))
        return self._fetched(message)

    async def refuse(self, cause: str, why: str, source: str, message: str) -> None:
        """Keep what does not fit the contract among the dead letters.

        Args:
            cause: a short fixed word.
            why: our own words.
            source: the queue it came on.
            message: ID that its sender gave it; kept where it is a UUID, for another one may say anything.
        """
        known = message.lower() if _UUID.fullmatch(message.lower()) else None
        log_events.refused(cause, why, source, known)
        # What came is in no queue any more, and a full Redis takes nothing: then the log has to do.
        with contextlib.suppress(OutOfMemoryError):
            await self._refusals.keep(cause=cause, why=why, source=source, message=known)

    async def _fetched(self, message: Message) -> bool:
        self._watchdog.took()
        with self._flight.message(message.queue):
            try:
                entries = await self._taken(message)
            finally:
                self._flight.expect(message.queue, -len(message.eval_ids))
            return await self._ended(entries)

    async def _unpublished(self, message: Message) -> bool:
        return await self._ended(await self._taken(message))

    async def _taken(self, message: Message) -> list[Job]:
        if not message.accepted:
            order = EnqueueOptions(message.queue, self._account_of(message), message.trigger, refresh=message.refresh)
            await self._ledger.accept(message.eval_ids, order)
        # What comes one by one, as live events do, is taken together with what comes at the same time.
        alone = len(message.eval_ids) == 1
        return await (self._taking.ask(message.eval_ids[0]) if alone else self._take(message.eval_ids))

    async def _ended(self, entries: Sequence[Job]) -> bool:
        """Bring evaluations to their end; return whether none was handed back."""
        with self._leases.kept(entries):
            ends = await asyncio.gather(*map(self._end, entries), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return all(ends)

    def _account_of(self, message: Message) -> str:
        found = self._accounts.find(message.account)
        if found is None and message.account is None:
            raise BadMessage("it names no account, and there is none called default")
        if found is None:
            raise BadMessage("its account is none that this worker knows; see DOCV_ACCOUNTS")
        return found.name

    async def _take(self, eval_ids: Sequence[str]) -> list[Job]:
        return await self._ledger.take(eval_ids, token=f"{self._name}:{secrets.token_hex(8)}")

    async def _take_each(self, eval_ids: Sequence[str]) -> list[list[Job]]:
        """Take the evaluations of several messages of one; each belongs to the first message that names it."""
        entries = {entry.eval_id: [entry] for entry in await self._take(tuple(dict.fromkeys(eval_ids)))}
        return [entries.pop(eval_id, []) for eval_id in eval_ids]

    async def _end(self, entry: Job) -> bool:
        """Make an attempt at one evaluation when there is room; return false where it was handed back instead."""
        try:
            means = self._lines.means_of(entry.account)
            if means is None:
                await self._leave(entry)
            elif not self._shares.has_room(entry.account, entry.queue):
                await self._set_aside(entry, AccountBusy())
            else:
                with self._shares.place(entry.account):
                    async with self._flight.at_work(entry.queue):
                        await attempt(entry, means, self._ledger)
        except asyncio.CancelledError:
            return await self._hand_back(entry)
        finally:
            self._leases.drop(entry)
        return True

    async def _leave(self, entry: Job) -> None:
        """Leave an evaluation to a worker that knows its account."""
        unknown = AccountUnknown(entry.account)
        if entry.account not in self._strange:
            self._strange.add(entry.account)
            log_events.account_unknown(unknown)
        self._figures.stopped(unknown.cause)
        await self._set_aside(entry, unknown)

    async def _set_aside(self, entry: Job, why: BlockedError) -> None:
        """Have an evaluation wait with the others of its account; it loses nothing."""
        with log_events.about(entry):
            try:
                await self._ledger.await_hold(entry, cause=why.cause)
            except LeaseLost:
                log_events.lease_lost()
            else:
                log_events.set_aside(why)

    async def _hand_back(self, entry: Job) -> bool:
        """Give it back to the queue; return false, or true where it is somebody else's by now."""
        with log_events.about(entry):
            try:
                await self._ledger.hand_back(entry)
            except LeaseLost:
                log_events.lease_lost()
                return True
            log_events.handed_back()
        return False

    async def _tick(self) -> None:
        self._watchdog.tick()
        now = time.monotonic()
        if self._ticked is not None:
            self._figures.was_late(max(0.0, now - self._ticked - INTERVAL))
        self._ticked = now

    async def _feed(self) -> None:
        while not self._runtime.draining and await self._feeder.feed():
            pass
        await self._feeder.publish()

    async def _dispatch(self) -> None:
        """Do the round of every second: see what stands still, publish what is due, tell how it goes."""
        if self._runtime.draining:
            return
        await self._presence.tell(self._name, self._serves)
        holds = await self._standing.see()
        messages = await self._backlog()
        read = [queue for queue in self._serves if queue not in paused_queues and self._flight.has_room_for(queue)]
        self._watchdog.saw(waiting=any(messages.waiting[queue] for queue in read))
        _, no_room = await dispatch(self._ledger, self._publisher, messages, holds, self._shares.to_fetch)
        for queue, eval_ids in no_room.items():
            self._work_without_message(queue, eval_ids)
        await self._lines.tell()

    async def _backlog(self) -> Backlog:
        waiting = await asyncio.to_thread(self._publisher.waiting)
        # How many of them workers have fetched RabbitMQ does not tell; where some may be, there is patience for them.
        return await backlog(self._redis) if waiting is None else Backlog(waiting, unacknowledged=1)

    def _work_without_message(self, queue: Queue, eval_ids: list[str]) -> None:
        """Work on what could not be published; while that goes on, what else is due has to wait."""
        if not self._direct:
            message = Message(tuple(eval_ids), (), queue, accepted=True, refresh=False, trigger=Trigger("message"))
            task = asyncio.create_task(self._unpublished(message))
            self._direct.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[bool]") -> None:
        self._direct.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            log_events.loop_failed("work", error)


def _rest(enough: bool) -> None:  # noqa: FBT001  # as `Flight` calls it
    """Fetch no more of the backfill while there is enough of it here."""
    if enough:
        paused_queues.begin(Queue.BACKFILL)
    else:
        paused_queues.end(Queue.BACKFILL)


async def _every(seconds: float, name: str, round_: Callable[[], Awaitable[None]]) -> None:
    """Do something again and again; a round that fails is told and does not end the loop."""
    while not cancel_requested():
        try:
            await round_()
        except (RedisError, KombuError, StorageError, OSError) as error:
            log_events.loop_failed(name, error)
        await asyncio.sleep(seconds)
