"""What is asked for in one moment is done in one step; the moment ends when the loop comes round to it."""

import asyncio
from collections.abc import Sequence

import pytest

from tasks.ledger.batcher import Batcher


class Doubling:
    """Doubles figures, as many at once as it is asked for; some it cannot."""

    def __init__(self, seconds: float = 0.0, enough: int = 100) -> None:
        self.steps: list[list[int]] = []
        self.together = Batcher(self.do, seconds, enough)

    async def do(self, figures: Sequence[int]) -> list[int]:
        self.steps.append(list(figures))
        if 0 in figures:
            raise ValueError("nought")
        return [2 * figure for figure in figures]

    def ask(self, figure: int) -> "asyncio.Task[int]":
        return asyncio.create_task(self.together.submit(figure))


async def test_what_many_ask_for_at_once_is_done_in_one_step_and_each_has_its_own_answer() -> None:
    doubling = Doubling()
    assert await asyncio.gather(*map(doubling.ask, range(1, 6))) == [2, 4, 6, 8, 10]
    assert doubling.steps == [[1, 2, 3, 4, 5]]


async def test_who_comes_later_has_a_step_of_his_own() -> None:
    doubling = Doubling()
    assert (await doubling.ask(1), await doubling.ask(2)) == (2, 4)
    assert doubling.steps == [[1], [2]]


async def test_once_enough_have_asked_nobody_waits_for_the_clock() -> None:
    doubling = Doubling(seconds=3600, enough=2)
    assert await asyncio.gather(*map(doubling.ask, range(1, 5))) == [2, 4, 6, 8]
    assert doubling.steps == [[1, 2, 3, 4]]


async def test_a_step_that_fails_fails_for_everybody_in_it_and_for_nobody_after() -> None:
    doubling = Doubling()
    ends = await asyncio.gather(doubling.ask(0), doubling.ask(1), return_exceptions=True)
    assert [type(end) for end in ends] == [ValueError, ValueError]
    assert await doubling.ask(1) == 2


async def test_who_is_told_to_stop_before_it_begins_takes_no_part_and_stops_nobody() -> None:
    doubling = Doubling()
    stopped, other = doubling.ask(1), doubling.ask(2)
    await asyncio.sleep(0)
    stopped.cancel()
    assert await other == 4
    assert (doubling.steps, stopped.cancelled()) == ([[2]], True)


async def test_when_the_process_ends_nobody_waits_for_ever() -> None:
    doubling = Doubling()
    waiting = doubling.ask(1)
    await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task(), waiting}:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert doubling.steps == []
