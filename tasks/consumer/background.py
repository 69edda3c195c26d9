"""The loops that a worker process runs in the background: heartbeats, holds, rates, and the queues."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from redis.exceptions import RedisError

from tasks.consumer.consumer import Consumer
from tasks.consumer.loop import Loop, run_loop
from tasks.consumer.parts import ConsumerParts
from tasks.ledger.cancellation import Cancellation
from tasks.model.job import Queue
from tasks.notifications.notifier import INTERVAL as NOTIFY_INTERVAL
from tasks.notifications.notifier import LONGEST_PAUSE
from tasks.queueing.dispatcher import INTERVAL, dispatch
from tasks.queueing.feeder import INTERVAL as FEED_INTERVAL
from tasks.queueing.publisher import Backlog, count_backlog
from tasks.telemetry import log_events
from worker.broker.redis_transport import paused_queues
from worker.clients.primary import check_writable
from worker.metrics.worker_metrics import observe_loop_lag

_NOTIFY_SECONDS = 5.0


class BackgroundLoops:
    """Runs the loops of one worker process.

    Args:
        parts: the parts of the process.
        consumer: processes evaluations that could not be published.
    """

    def __init__(self, parts: ConsumerParts, consumer: Consumer) -> None:
        self._parts, self._consumer = parts, consumer
        self._cancellation, self._cancellations = Cancellation(parts.redis), 0
        self._ticked_at: float | None = None
        self._direct_tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the loops for as long as the block lasts."""
        loops = [asyncio.create_task(run_loop(loop, self._parts.watchdog)) for loop in self.loops()]
        try:
            yield
        finally:
            for task in (*loops, *self._direct_tasks):
                task.cancel()
            await asyncio.gather(*loops, *self._direct_tasks, return_exceptions=True)
            paused_queues.is_worker_paused = False
            with contextlib.suppress(RedisError, OSError):
                await self._parts.leftovers.flush()
                await self._parts.workers.deregister(self._parts.name)
                if self._parts.notifier:
                    async with asyncio.timeout(_NOTIFY_SECONDS):
                        await self._parts.notifier.stop()

    def loops(self) -> list[Loop]:
        """Return the loops of this process; they are separate so that one that fails does not delay the others."""
        parts, heartbeat = self._parts, self._parts.leases.interval
        loops = [
            Loop("tick", INTERVAL, self._tick),
            Loop("leases", heartbeat, parts.leases.renew, longest_pause=heartbeat),
            Loop("presence", INTERVAL, self._unless_draining(self._report_presence)),
            Loop("cancellations", INTERVAL, self._unless_draining(self._drop_cancelled)),
            Loop("dispatch", INTERVAL, self._unless_draining(self._dispatch)),
            Loop("rates", INTERVAL, self._unless_draining(parts.contexts.flush)),
            Loop("leftovers", INTERVAL, self._unless_draining(parts.leftovers.flush)),
        ]
        if parts.notifier:
            loops.append(Loop("notify", NOTIFY_INTERVAL, parts.notifier.run_round, longest_pause=LONGEST_PAUSE))
        return [*loops, Loop("feed", FEED_INTERVAL, self._feed)] if Queue.BACKFILL in parts.queues else loops

    def _unless_draining(self, run_round: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            if not self._parts.runtime.draining:
                await run_round()

        return run

    async def _tick(self) -> None:
        self._parts.watchdog.tick()
        self._parts.leases.cancel_stale()
        now = time.monotonic()
        if self._ticked_at is not None:
            observe_loop_lag(max(0.0, now - self._ticked_at - INTERVAL))
        self._ticked_at = now

    async def _report_presence(self) -> None:
        await self._parts.workers.heartbeat(self._parts.name, self._parts.queues)
        await self._parts.pause.update()

    async def _drop_cancelled(self) -> None:
        """Release evaluations that were cancelled before their attempt began; the ledger then ends them."""
        number = await self._cancellation.count()
        if number == self._cancellations:
            return
        for eval_id in await self._cancellation.find_cancelled_in_flight(self._parts.leases.list_waiting()):
            if job := self._parts.leases.take_back(eval_id):
                await self._consumer.release(job)
        self._cancellations = number

    async def _feed(self) -> bool:
        """Feed the ledger once; return whether there may be more to feed at once."""
        if not self._parts.runtime.draining:
            return await self._parts.feeder.feed_once()
        await self._parts.feeder.publish()
        return False

    async def _dispatch(self) -> None:
        """Update the holds, and publish the evaluations that are due."""
        parts = self._parts
        holds = await parts.hold_monitor.refresh()
        paused_queues.is_worker_paused = parts.pause.is_closed
        waiting = await asyncio.to_thread(parts.publisher.count_waiting)
        # RabbitMQ does not report how many messages workers have fetched. Assume one, so that dispatch waits longer.
        messages = await count_backlog(parts.redis) if waiting is None else Backlog(waiting, unacknowledged=1)
        read = [queue for queue in parts.queues if queue not in paused_queues and parts.prefetch.can_fetch(queue)]
        # A replica still counts messages but delivers none. Raise in this case, because this worker has not stalled.
        await check_writable(parts.redis)
        parts.watchdog.observe_queue(waiting=any(messages.waiting[queue] for queue in read))
        _, unpublished = await dispatch(parts.ledger, parts.publisher, messages, holds, parts.fair_share.fetch_limit)
        for eval_ids in unpublished.values():
            self._process_directly(eval_ids)

    def _process_directly(self, eval_ids: Sequence[str]) -> None:
        """Process evaluations that could not be published; until they are done, further ones have to wait."""
        if not self._direct_tasks:
            task = asyncio.create_task(self._consumer.handle_unpublished(eval_ids))
            self._direct_tasks.add(task)
            task.add_done_callback(self._finish_direct)

    def _finish_direct(self, task: "asyncio.Task[None]") -> None:
        self._direct_tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            log_events.loop_failed("work", error)
