"""Which evaluations are in flight in this process, and which messages are fetched: what is live finds its place."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any

from tasks.entry import Queue

Wait = Callable[[Coroutine[Any, Any, bool]], Awaitable[bool]]
# A backfill leaves one in so many places to what is live.
_LIVE_PART = 8


class Flight:
    """The places of a process.

    Args:
        concurrency: evaluations that may be in flight.
        wait: how to wait for a place; it may refuse to, when the process is about to end.
        enough: called with whether there is enough of the backfill here, so that no more of it need be fetched.
        fetched: messages of a queue that are fetched at a time, where that is bounded.
    """

    def __init__(
        self, concurrency: int, wait: Wait, enough: Callable[[bool], None], fetched: Mapping[Queue, int] | None = None
    ) -> None:
        self._concurrency, self._wait, self._enough = concurrency, wait, enough
        self._fetched = fetched or {}
        self._all = asyncio.Semaphore(concurrency)
        self._of_backfill = asyncio.Semaphore(concurrency - concurrency // _LIVE_PART)
        self._messages = dict.fromkeys(Queue, 0)
        self._waiting = 0
        self._aboard = 0

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
    async def place(self, queue: Queue) -> AsyncIterator[None]:
        """Have an evaluation in flight for as long as the block lasts, when there is a place for it.

        Raises:
            asyncio.CancelledError: ``wait`` refused.
        """
        rooms = [self._all] if queue is Queue.LIVE else [self._of_backfill, self._all]
        async with contextlib.AsyncExitStack() as taken:
            with self._counted(queue):
                for room in rooms:
                    # Where there is room nobody waits, and waiting costs two tasks.
                    await (self._wait(room.acquire()) if room.locked() else room.acquire())
                    taken.callback(room.release)
            self._aboard += 1
            taken.callback(self._landed)
            yield

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
        # Messages hold a thread each, and a hundred evaluations; more of either than is in flight only lies about here.
        self._enough(max(self._waiting, self._messages[Queue.BACKFILL]) >= self._concurrency)
