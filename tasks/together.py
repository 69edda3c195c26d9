"""Do in one step what many ask for at about the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Together(Generic[Asked, Answer]):
    """Gathers what is asked for a moment, and does it all in one step.

    Args:
        do: does it; answers in the same order.
        seconds: for how long the first one waits for others.
    """

    def __init__(self, do: Callable[[Sequence[Asked]], Awaitable[Sequence[Answer]]], seconds: float) -> None:
        self._do, self._seconds = do, seconds
        self._gathering: list[tuple[Asked, asyncio.Future[Answer]]] | None = None
        self._steps: set[asyncio.Task[Sequence[Answer]]] = set()

    async def ask(self, asked: Asked) -> Answer:
        """Have it done; return its answer.

        Whoever is cancelled before the step begins takes no part in it. An error of the step is everybody's.
        """
        gathering = self._begin() if self._gathering is None else self._gathering
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        gathering.append((asked, answer))
        return await answer

    def _begin(self) -> list[tuple[Asked, "asyncio.Future[Answer]"]]:
        gathering: list[tuple[Asked, asyncio.Future[Answer]]] = []
        self._gathering = gathering
        step = asyncio.create_task(self._step(gathering))
        self._steps.add(step)
        step.add_done_callback(partial(self._tell, gathering))
        return gathering

    async def _step(self, gathering: list[tuple[Asked, "asyncio.Future[Answer]"]]) -> Sequence[Answer]:
        await asyncio.sleep(self._seconds)
        self._gathering = None
        gathering[:] = [each for each in gathering if not each[1].cancelled()]
        return await self._do([asked for asked, _ in gathering]) if gathering else ()

    def _tell(
        self, gathering: list[tuple[Asked, "asyncio.Future[Answer]"]], step: "asyncio.Task[Sequence[Answer]]"
    ) -> None:
        """Tell everybody who still waits; here, for a step may be cancelled before it has begun."""
        self._steps.discard(step)
        if self._gathering is gathering:
            self._gathering = None
        error = None if step.cancelled() else step.exception()
        for number, (_, future) in enumerate(gathering):
            if future.done():
                continue
            if step.cancelled():
                future.cancel()
            elif error:
                future.set_exception(error)
            else:
                future.set_result(step.result()[number])
