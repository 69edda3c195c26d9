"""Do in one step what many ask for at about the same time."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Batch(Generic[Item, Result]):
    """Those who have asked for the next step."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self.full = asyncio.Event()


class Batcher(Generic[Item, Result]):
    """Gathers what is asked for a moment, and does it all in one step.

    Args:
        do: does it; answers in the same order.
        seconds: for how long the first one waits for others.
        max_batch: once so many have asked, nobody waits any longer.
    """

    def __init__(
        self, do: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]], seconds: float, max_batch: int = 1000
    ) -> None:
        self._do, self._seconds, self._max_batch = do, seconds, max_batch
        self._open_batch: _Batch[Item, Result] | None = None
        self._tasks: set[asyncio.Task[Sequence[Result]]] = set()

    async def submit(self, item: Item) -> Result:
        """Have it done; return its answer.

        Whoever is cancelled before the step begins takes no part in it. An error of the step is everybody's.
        """
        gathering = self._open_batch or self._open()
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        gathering.waiting.append((item, answer))
        if len(gathering.waiting) >= self._max_batch:
            gathering.full.set()
        return await answer

    def _open(self) -> _Batch[Item, Result]:
        gathering = self._open_batch = _Batch[Item, Result]()
        step = asyncio.create_task(self._run(gathering))
        self._tasks.add(step)
        step.add_done_callback(partial(self._resolve, gathering))
        return gathering

    async def _run(self, gathering: _Batch[Item, Result]) -> Sequence[Result]:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                await gathering.full.wait()
        self._open_batch = None
        gathering.waiting = [each for each in gathering.waiting if not each[1].cancelled()]
        asked = [each for each, _ in gathering.waiting]
        return await self._do(asked) if asked else ()

    def _resolve(self, gathering: _Batch[Item, Result], step: "asyncio.Task[Sequence[Result]]") -> None:
        """Tell everybody who still waits; here, for a step may be cancelled before it has begun."""
        self._tasks.discard(step)
        if self._open_batch is gathering:
            self._open_batch = None
        error = None if step.cancelled() else step.exception()
        for number, (_, future) in enumerate(gathering.waiting):
            if future.done():
                continue
            if step.cancelled():
                future.cancel()
            elif error:
                future.set_exception(error)
            else:
                future.set_result(step.result()[number])
