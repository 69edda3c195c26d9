"""Which evaluations are in flight in this process, and which messages are fetched: live evaluations get slots."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any

from tasks.model.job import Queue

Wait = Callable[[Coroutine[Any, Any, bool]], Awaitable[bool]]
# A backfill leaves one in N slots to live evaluations.
_LIVE_RESERVE_DIVISOR = 8
# For every N slots one more evaluation is at work without a slot: it reads its manifest before it needs the slot, or
# writes it after it has released the slot.
_SLOTS_PER_EXTRA_ADMISSION = 2
# For each slot, N evaluations of a backfill may wait here. They are some kilobytes each, and other workers could
# have them. But those that are archived already go by the thousand in a second, and a queue that rested is read again
# only 50 ms later.
_PREFETCH_PER_SLOT = 4


class _TieredSemaphore:
    """A semaphore of which a backfill leaves a part to live evaluations."""

    def __init__(self, most: int, for_live: int) -> None:
        self._all = asyncio.Semaphore(most)
        self._of_backfill = asyncio.Semaphore(most - for_live)

    def semaphores(self, queue: Queue) -> tuple[asyncio.Semaphore, ...]:
        """Return what has to be passed, in this order."""
        return (self._all,) if queue is Queue.LIVE else (self._of_backfill, self._all)


class ConcurrencyLimiter:
    """Hands out the slots of a process.

    Args:
        concurrency: evaluations that may be in flight: from when RiskOS may be asked for the bundle until its
            documents are in the archive.
        wait: how to wait for a slot; it may refuse to, when the process is about to end.
        set_paused: called with whether there is enough of the backfill here, so that no more of it need be fetched.
        prefetch_limits: messages of a queue that are fetched at a time, where that is bounded.
    """

    def __init__(
        self,
        concurrency: int,
        wait: Wait,
        set_paused: Callable[[bool], None],
        prefetch_limits: Mapping[Queue, int] | None = None,
    ) -> None:
        self._concurrency, self._wait, self._set_paused = concurrency, wait, set_paused
        self._prefetch_limits = prefetch_limits or {}
        for_live = concurrency // _LIVE_RESERVE_DIVISOR
        self._slots = _TieredSemaphore(concurrency, for_live)
        self._admissions = _TieredSemaphore(concurrency + concurrency // _SLOTS_PER_EXTRA_ADMISSION, for_live)
        self._messages = dict.fromkeys(Queue, 0)
        self._expected = 0
        self._waiting = 0
        self.in_flight = 0
        """Evaluations that are in flight."""
        # Celery's threads fetch faster than the loop gets to hear of it.
        self._pause_lock = threading.Lock()

    @property
    def can_accept(self) -> bool:
        """Whether another message could be worked on."""
        return sum(self._messages.values()) < self._concurrency

    def can_fetch(self, queue: Queue) -> bool:
        """Whether another message of a queue could be fetched and worked on."""
        return self.can_accept and self._messages[queue] < self._prefetch_limits.get(queue, self._concurrency)

    def expect_evaluations(self, queue: Queue, evaluations: int) -> None:
        """Count evaluations that were fetched and are soon to wait here; called from any thread.

        Args:
            evaluations: how many; less than none when they have come, or will not.
        """
        if queue is Queue.BACKFILL:
            with self._pause_lock:
                self._expected += evaluations
            self._update_paused()

    @contextlib.contextmanager
    def track_message(self, queue: Queue) -> Iterator[None]:
        """Have a message here for as long as the block lasts."""
        self._messages[queue] += 1
        self._update_paused()
        try:
            yield
        finally:
            self._messages[queue] -= 1
            self._update_paused()

    @contextlib.asynccontextmanager
    async def admit(self, queue: Queue) -> AsyncIterator[None]:
        """Have an evaluation worked on for as long as the block lasts; somewhat more are than are in flight.

        Raises:
            asyncio.CancelledError: ``wait`` refused.
        """
        is_backfill = queue is Queue.BACKFILL
        async with contextlib.AsyncExitStack() as taken:
            self._waiting += is_backfill
            try:
                await self._acquire(self._admissions, queue, taken)
            finally:
                self._waiting -= is_backfill
                self._update_paused()
            yield

    @contextlib.asynccontextmanager
    async def slot(self, queue: Queue) -> AsyncIterator[None]:
        """Have an evaluation that is at work in flight for as long as the block lasts, when there is a slot for it.

        Raises:
            asyncio.CancelledError: ``wait`` refused.
        """
        async with contextlib.AsyncExitStack() as taken:
            await self._acquire(self._slots, queue, taken)
            self.in_flight += 1
            try:
                yield
            finally:
                self.in_flight -= 1

    async def _acquire(self, semaphore: _TieredSemaphore, queue: Queue, taken: contextlib.AsyncExitStack) -> None:
        for each in semaphore.semaphores(queue):
            await self._wait(each.acquire())
            taken.callback(each.release)

    def _update_paused(self) -> None:
        with self._pause_lock:
            here = self._waiting + self._expected
            # Messages hold a thread each.
            messages = self._messages[Queue.BACKFILL]
            self._set_paused(here >= _PREFETCH_PER_SLOT * self._concurrency or messages >= self._concurrency)
