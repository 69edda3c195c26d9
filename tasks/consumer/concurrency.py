"""Which evaluations are in flight in this process, and which messages are fetched: what is live finds its place."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any

from tasks.model.job import Queue

Wait = Callable[[Coroutine[Any, Any, bool]], Awaitable[bool]]
# A backfill leaves one in so many places to what is live.
_LIVE_PART = 8
# For so many places one more evaluation is at work without any: it looks at its manifest before it needs one, or writes
# it when it needs none any more.
_PLACES_EACH = 2
# For each place so many evaluations of a backfill may wait here. They are some kilobytes each, and other workers could
# have them. But those that are archived already go by the thousand in a second, and a queue that rested is read again
# only 50 ms later.
_WAITING_EACH = 4


class _TieredSemaphore:
    """Room for some, of which a backfill leaves a part to what is live."""

    def __init__(self, most: int, for_live: int) -> None:
        self._all = asyncio.Semaphore(most)
        self._of_backfill = asyncio.Semaphore(most - for_live)

    def doors(self, queue: Queue) -> tuple[asyncio.Semaphore, ...]:
        """Return what has to be passed, in this order."""
        return (self._all,) if queue is Queue.LIVE else (self._of_backfill, self._all)


class ConcurrencyLimiter:
    """The places of a process.

    Args:
        concurrency: evaluations that may be in flight: from when RiskOS may be asked for the bundle until its
            documents are in the archive.
        wait: how to wait for a place; it may refuse to, when the process is about to end.
        enough: called with whether there is enough of the backfill here, so that no more of it need be fetched.
        fetched: messages of a queue that are fetched at a time, where that is bounded.
    """

    def __init__(
        self, concurrency: int, wait: Wait, enough: Callable[[bool], None], fetched: Mapping[Queue, int] | None = None
    ) -> None:
        self._concurrency, self._wait, self._enough = concurrency, wait, enough
        self._fetched = fetched or {}
        for_live = concurrency // _LIVE_PART
        self._places = _TieredSemaphore(concurrency, for_live)
        self._at_work = _TieredSemaphore(concurrency + concurrency // _PLACES_EACH, for_live)
        self._messages = dict.fromkeys(Queue, 0)
        self._expected = 0
        self._waiting = 0
        self._aboard = 0
        # Celery's threads fetch faster than the loop gets to hear of it.
        self._telling = threading.Lock()

    @property
    def aboard(self) -> int:
        """Evaluations that are in flight."""
        return self._aboard

    @property
    def has_room(self) -> bool:
        """Whether another message could be worked on."""
        return sum(self._messages.values()) < self._concurrency

    def has_room_for(self, queue: Queue) -> bool:
        """Whether another message of a queue could be fetched and worked on."""
        return self.has_room and self._messages[queue] < self._fetched.get(queue, self._concurrency)

    def expect(self, queue: Queue, evaluations: int) -> None:
        """Count evaluations that were fetched and are soon to wait here; called from any thread.

        Args:
            evaluations: how many; less than none when they have come, or will not.
        """
        if queue is Queue.BACKFILL:
            with self._telling:
                self._expected += evaluations
            self._tell()

    @contextlib.contextmanager
    def message(self, queue: Queue) -> Iterator[None]:
        """Have a message here for as long as the block lasts."""
        self._messages[queue] += 1
        self._tell()
        try:
            yield
        finally:
            self._messages[queue] -= 1
            self._tell()

    @contextlib.asynccontextmanager
    async def at_work(self, queue: Queue) -> AsyncIterator[None]:
        """Have an evaluation worked on for as long as the block lasts; somewhat more are than are in flight.

        Raises:
            asyncio.CancelledError: ``wait`` refused.
        """
        async with contextlib.AsyncExitStack() as taken:
            with self._counted(queue):
                await self._enter(self._at_work, queue, taken)
            yield

    @contextlib.asynccontextmanager
    async def place(self, queue: Queue) -> AsyncIterator[None]:
        """Have an evaluation that is at work in flight for as long as the block lasts, when there is a place for it.

        Raises:
            asyncio.CancelledError: ``wait`` refused.
        """
        async with contextlib.AsyncExitStack() as taken:
            await self._enter(self._places, queue, taken)
            self._aboard += 1
            taken.callback(self._landed)
            yield

    async def _enter(self, room: _TieredSemaphore, queue: Queue, taken: contextlib.AsyncExitStack) -> None:
        for door in room.doors(queue):
            await self._wait(door.acquire())
            taken.callback(door.release)

    def _landed(self) -> None:
        self._aboard -= 1

    @contextlib.contextmanager
    def _counted(self, queue: Queue) -> Iterator[None]:
        waits = queue is Queue.BACKFILL
        self._waiting += waits
        try:
            yield
        finally:
            self._waiting -= waits
            self._tell()

    def _tell(self) -> None:
        with self._telling:
            here = self._waiting + self._expected
            # Messages hold a thread each.
            messages = self._messages[Queue.BACKFILL]
            self._enough(here >= _WAITING_EACH * self._concurrency or messages >= self._concurrency)
