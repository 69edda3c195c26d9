"""Do in one step what many ask for at about the same time."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
_ENOUGH = 1000


class _Gathering(Generic[Asked, Answer]):
    """Those who have asked for the next step."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Asked, asyncio.Future[Answer]]] = []
        self.enough = asyncio.Event()


class Batcher(Generic[Asked, Answer]):
    """Gathers what is asked for a moment, and does it all in one step.

    Args:
        do: does it; answers in the same order.
        seconds: for how long the first one waits for others.
        enough: once so many have asked, nobody waits any longer.
    """

    def __init__(
        self, do: Callable[[Sequence[Asked]], Awaitable[Sequence[Answer]]], seconds: float, enough: int = _ENOUGH
    ) -> None:
        self._do, self._seconds, self._enough = do, seconds, enough
        self._gathering: _Gathering[Asked, Answer] | None = None
        self._steps: set[asyncio.Task[Sequence[Answer]]] = set()

    async def ask(self, asked: Asked) -> Answer:
        """Have it done; return its answer.

        Whoever is cancelled before the step begins takes no part in it. An error of the step is everybody's.
        """
        gathering = self._gathering or self._begin()
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        gathering.waiting.append((asked, answer))
        if len(gathering.waiting) >= self._enough:
            gathering.enough.set()
        return await answer

    def _begin(self) -> _Gathering[Asked, Answer]:
        gathering = self._gathering = _Gathering[Asked, Answer]()
        step = asyncio.create_task(self._step(gathering))
        self._steps.add(step)
        step.add_done_callback(partial(self._tell, gathering))
        return gathering

    async def _step(self, gathering: _Gathering[Asked, Answer]) -> Sequence[Answer]:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                await gathering.enough.wait()
        self._gathering = None
        gathering.waiting = [each for each in gathering.waiting if not each[1].cancelled()]
        asked = [each for each, _ in gathering.waiting]
        return await self._do(asked) if asked else ()

    def _tell(self, gathering: _Gathering[Asked, Answer], step: "asyncio.Task[Sequence[Answer]]") -> None:
        """Tell everybody who still waits; here, for a step may be cancelled before it has begun."""
        self._steps.discard(step)
        if self._gathering is gathering:
            self._gathering = None
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
