"""Run the event loop of a process in its own thread, and drain it.

Celery has no asyncio pool, so its threads submit coroutines to this loop and wait for them.
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
    """Return whether the current task was cancelled, even if ``CancelledError`` was lost.

    On Python 3.11, ``asyncio.wait_for`` swallows a cancellation that arrives together with its result (CPython issue
    81839), and redis-py uses it to send. Endless loops must therefore check this.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def freeze_gc() -> None:
    """Exclude existing objects (modules, classes, settings) from garbage collection.

    Every few seconds, a full collection would block the event loop for 0.1 s.
    """
    gc.collect()
    gc.freeze()


class Draining(asyncio.CancelledError):
    """A wait was cancelled because the process is draining. Attempts in progress may still use the drain time."""


class Runtime:
    """The event loop of this process.

    Args:
        drain_seconds: how long transfers in progress may take after the process was told to stop.
    """

    def __init__(self, drain_seconds: float) -> None:
        self._drain_seconds = drain_seconds
        self._loop = uvloop.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="work"))
        self._draining = False
        self._work: set[asyncio.Task[Any]] = set()
        # The tasks to cancel on a drain. An additional task and event for each wait would cost more than most waits.
        self._cancellable: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="loop", daemon=True)
        self._thread.start()

    @property
    def draining(self) -> bool:
        """Whether the process is draining."""
        return self._draining

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for its result; call this from other threads only."""
        return asyncio.run_coroutine_threadsafe(self._track(work), self._loop).result()

    async def cancel_on_drain(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for a coroutine, and cancel it if the process begins to drain.

        Raises:
            Draining: the process is draining.
        """
        if self.draining:
            work.close()
            raise Draining
        task = asyncio.current_task()
        assert task  # noqa: S101  # a coroutine that awaits this runs in a task
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
        """Sleep for some seconds, unless the process drains.

        Raises:
            Draining: the process is draining.
        """
        await self.cancel_on_drain(asyncio.sleep(seconds))

    def drain(self) -> None:
        """Begin to drain, and return at once: waits are cancelled now, and work after the drain time.

        A second call cancels all work now.
        """
        self._loop.call_soon_threadsafe(self._drain)

    def close(self) -> None:
        """Stop the loop, after cancelling the tasks that still run on it."""
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        # By default, another thread may hold the interpreter for 5 ms, which delays the requests of the loop.
        sys.setswitchinterval(_SWITCH_SECONDS)
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _track(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task  # noqa: S101  # run() wraps it in a task
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
        """Cancel all work, repeatedly until it has ended, because a cancellation may be lost: ``cancel_requested``."""
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
