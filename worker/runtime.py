"""One event loop per process, in a thread of its own, and its drain.

Celery has no asyncio pool: its threads hand their coroutine to this loop and wait for it.
"""

import asyncio
import gc
import sys
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")
_THREADS = 16
_SWITCH_SECONDS = 0.0005
_CANCEL_SECONDS = 0.2


def cancel_requested() -> bool:
    """Return whether the current task was cancelled, also when nobody noticed.

    On Python 3.11 a cancellation may get lost: ``asyncio.wait_for``, with which redis-py sends, swallows one that
    arrives together with its result (CPython issue 81839). Whoever loops for ever asks here.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def freeze_gc() -> None:
    """Have the collector of garbage look no more at what is there by now: modules, classes, settings.

    It would do so every few seconds, for a tenth of a second each time, in which the loop is late for everything.
    """
    gc.collect()
    gc.freeze()


class Draining(asyncio.CancelledError):
    """The process is about to end: what only waits is cancelled now, what works may go on for the drain time."""


class Runtime:
    """The event loop of this process.

    Args:
        drain_seconds: how long transfers under way may take once the process is told to stop.
    """

    def __init__(self, drain_seconds: float) -> None:
        self._drain_seconds = drain_seconds
        self._loop = uvloop.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="work"))
        self._draining = False
        self._work: set[asyncio.Task[Any]] = set()
        # Who waits, until called off. A task and an event for each of them would cost more than most waiting does.
        self._cancellable: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="loop", daemon=True)
        self._thread.start()

    @property
    def draining(self) -> bool:
        """Whether the process is about to end."""
        return self._draining

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it; called from any other thread."""
        return asyncio.run_coroutine_threadsafe(self._tracked(work), self._loop).result()

    async def cancel_on_drain(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for something, but not longer than the process lives.

        Raises:
            Draining: the process is about to end; the waiting was cancelled.
        """
        if self.draining:
            work.close()
            raise Draining
        task = asyncio.current_task()
        assert task  # noqa: S101  # only tasks wait
        self._cancellable.add(task)
        try:
            return await work
        except asyncio.CancelledError:
            if task in self._cancellable:
                raise
            task.uncancel()
            raise Draining from None
        finally:
            self._cancellable.discard(task)

    async def pause(self, seconds: float) -> None:
        """Sleep.

        Raises:
            Draining: the process is about to end.
        """
        await self.cancel_on_drain(asyncio.sleep(seconds))

    def drain(self) -> None:
        """Begin to end: who pauses stops now, who works may go on for the drain time. Returns at once.

        Told a second time, nobody may go on.
        """
        self._loop.call_soon_threadsafe(self._drain)

    def close(self) -> None:
        """Stop the loop; what still runs on it is cancelled and may clean up."""
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        # Celery's threads and those that unpack hold the interpreter for 5 ms at a time; the loop has turns to keep.
        sys.setswitchinterval(_SWITCH_SECONDS)
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _tracked(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task  # noqa: S101  # whatever is run is a task
        self._work.add(task)
        try:
            return await work
        finally:
            self._work.discard(task)

    def _drain(self) -> None:
        if self.draining:
            self._cancel_work()
        else:
            self._draining = True
            while self._cancellable:
                self._cancellable.pop().cancel()
            self._loop.call_later(self._drain_seconds, self._cancel_work)

    def _cancel_work(self) -> None:
        """Cancel what works, again and again until it has ended: see ``cancel_requested``."""
        for task in tuple(self._work):
            task.cancel()
        if self._work:
            self._loop.call_later(_CANCEL_SECONDS, self._cancel_work)

    async def _cancel_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        left = others
        while left:
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=_CANCEL_SECONDS)
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_default_executor()
