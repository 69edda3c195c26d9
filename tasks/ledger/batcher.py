"""Collect items that are submitted at about the same time, and process them in one step."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Batch(Generic[Item, Result]):
    """The items of the next step, each with the future of its result."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self.full = asyncio.Event()


class Batcher(Generic[Item, Result]):
    """Collects items for a short time, and processes them in one step.

    Args:
        process: processes a batch, and returns the results in the same order.
        seconds: how long the first item of a batch waits for others.
        max_batch: number of items that are processed without waiting for more.
    """

    def __init__(
        self, process: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]], seconds: float, max_batch: int = 1000
    ) -> None:
        self._process, self._seconds, self._max_batch = process, seconds, max_batch
        self._open_batch: _Batch[Item, Result] | None = None
        self._tasks: set[asyncio.Task[Sequence[Result]]] = set()

    async def submit(self, item: Item) -> Result:
        """Process an item with others, and return its result.

        An item whose caller is cancelled before the step begins is left out. If the step fails, all its callers get the
        error.
        """
        batch = self._open_batch or self._open()
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        batch.waiting.append((item, result))
        if len(batch.waiting) >= self._max_batch:
            batch.full.set()
        return await result

    def _open(self) -> _Batch[Item, Result]:
        batch = self._open_batch = _Batch[Item, Result]()
        task = asyncio.create_task(self._run(batch))
        self._tasks.add(task)
        task.add_done_callback(partial(self._resolve, batch))
        return batch

    async def _run(self, batch: _Batch[Item, Result]) -> Sequence[Result]:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                await batch.full.wait()
        self._open_batch = None
        batch.waiting = [each for each in batch.waiting if not each[1].cancelled()]
        items = [item for item, _ in batch.waiting]
        return await self._process(items) if items else ()

    def _resolve(self, batch: _Batch[Item, Result], task: "asyncio.Task[Sequence[Result]]") -> None:
        """Resolve the futures of a batch. This is a callback because the task may be cancelled before it has begun."""
        self._tasks.discard(task)
        if self._open_batch is batch:
            self._open_batch = None
        error = None if task.cancelled() else task.exception()
        for number, (_, future) in enumerate(batch.waiting):
            if future.done():
                continue
            if task.cancelled():
                future.cancel()
            elif error:
                future.set_exception(error)
            else:
                future.set_result(task.result()[number])
