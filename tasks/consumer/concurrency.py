"""Hand out the slots of a process, so that live evaluations get one even during a backfill."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from tasks.consumer.prefetch import PrefetchControl
from tasks.model.job import Queue

Wait = Callable[[Coroutine[Any, Any, bool]], Awaitable[bool]]
# A backfill leaves one in N slots to live evaluations.
_LIVE_RESERVE_DIVISOR = 8
# For every N slots, one more evaluation is admitted without a slot: it reads its manifest before it needs the slot, or
# writes it after it has released the slot.
_SLOTS_PER_EXTRA_ADMISSION = 2


class _TieredSemaphore:
    """A semaphore that keeps a part of its permits for live evaluations."""

    def __init__(self, size: int, live_reserve: int) -> None:
        self._all = asyncio.Semaphore(size)
        self._backfill = asyncio.Semaphore(size - live_reserve)

    def semaphores(self, queue: Queue) -> tuple[asyncio.Semaphore, ...]:
        """Return the semaphores that an evaluation acquires, in this order."""
        return (self._all,) if queue is Queue.LIVE else (self._backfill, self._all)


class ConcurrencyLimiter:
    """Limits how many evaluations are admitted, and how many of them have a slot.

    An evaluation has a slot from before its request to RiskOS until its documents are in the archive.

    Args:
        concurrency: slots of the process.
        wait: waits for a semaphore; it may refuse to while the process drains.
        prefetch: counts the evaluations that wait to be admitted.
    """

    def __init__(self, concurrency: int, wait: Wait, prefetch: PrefetchControl) -> None:
        self._wait, self._prefetch = wait, prefetch
        live_reserve = concurrency // _LIVE_RESERVE_DIVISOR
        self._slots = _TieredSemaphore(concurrency, live_reserve)
        self._admissions = _TieredSemaphore(concurrency + concurrency // _SLOTS_PER_EXTRA_ADMISSION, live_reserve)
        self.in_flight = 0
        """Evaluations that have a slot."""

    @contextlib.asynccontextmanager
    async def admit(self, queue: Queue) -> AsyncIterator[None]:
        """Admit an evaluation for as long as the block lasts; some more are admitted than there are slots.

        Raises:
            asyncio.CancelledError: ``wait`` refused.
        """
        async with contextlib.AsyncExitStack() as acquired:
            with self._prefetch.track_waiting(queue):
                await self._acquire(self._admissions, queue, acquired)
            yield

    @contextlib.asynccontextmanager
    async def slot(self, queue: Queue) -> AsyncIterator[None]:
        """Wait for a slot for an admitted evaluation, and occupy it for as long as the block lasts.

        Raises:
            asyncio.CancelledError: ``wait`` refused.
        """
        async with contextlib.AsyncExitStack() as acquired:
            await self._acquire(self._slots, queue, acquired)
            self.in_flight += 1
            try:
                yield
            finally:
                self.in_flight -= 1

    async def _acquire(self, semaphore: _TieredSemaphore, queue: Queue, acquired: contextlib.AsyncExitStack) -> None:
        for each in semaphore.semaphores(queue):
            await self._wait(each.acquire())
            acquired.callback(each.release)
