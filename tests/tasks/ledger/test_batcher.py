"""Items submitted together are processed in one step. With zero seconds, that means in one iteration of the loop."""

import asyncio
from collections.abc import Sequence

import pytest

from tasks.ledger.batcher import Batcher


class Doubling:
    """Doubles numbers in batches, and fails for some."""

    def __init__(self, seconds: float = 0.0, max_batch: int = 100) -> None:
        self.steps: list[list[int]] = []
        self.batcher = Batcher(self.double, seconds, max_batch)

    async def double(self, numbers: Sequence[int]) -> list[int]:
        self.steps.append(list(numbers))
        if 0 in numbers:
            raise ValueError("zero")
        return [2 * number for number in numbers]

    def submit_number(self, number: int) -> "asyncio.Task[int]":
        return asyncio.create_task(self.batcher.submit(number))


async def test_items_submitted_together_are_processed_in_one_step_with_a_result_each() -> None:
    doubling = Doubling()
    assert await asyncio.gather(*map(doubling.submit_number, range(1, 6))) == [2, 4, 6, 8, 10]
    assert doubling.steps == [[1, 2, 3, 4, 5]]


async def test_an_item_submitted_later_is_processed_in_its_own_step() -> None:
    doubling = Doubling()
    assert (await doubling.submit_number(1), await doubling.submit_number(2)) == (2, 4)
    assert doubling.steps == [[1], [2]]


async def test_a_full_batch_is_processed_without_waiting() -> None:
    doubling = Doubling(seconds=3600, max_batch=4)
    assert await asyncio.wait_for(asyncio.gather(*map(doubling.submit_number, range(1, 5))), 60) == [2, 4, 6, 8]
    assert doubling.steps == [[1, 2, 3, 4]]


async def test_a_failed_step_fails_all_its_items_and_no_later_ones() -> None:
    doubling = Doubling()
    ends = await asyncio.gather(doubling.submit_number(0), doubling.submit_number(1), return_exceptions=True)
    assert [type(end) for end in ends] == [ValueError, ValueError]
    assert await doubling.submit_number(1) == 2


async def test_a_cancelled_item_is_left_out_and_the_others_are_processed() -> None:
    doubling = Doubling()
    stopped, other = doubling.submit_number(1), doubling.submit_number(2)
    await asyncio.sleep(0)
    stopped.cancel()
    assert await other == 4
    assert (doubling.steps, stopped.cancelled()) == ([[2]], True)


async def test_a_batch_stays_open_when_the_one_before_it_is_processed() -> None:
    doubling, may_end = Doubling(), asyncio.Event()

    async def wait_and_double(numbers: Sequence[int]) -> list[int]:
        await may_end.wait()
        return await doubling.double(numbers)

    doubling.batcher = Batcher(wait_and_double, 3600, 2)
    first = [doubling.submit_number(number) for number in (1, 2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = doubling.submit_number(3)
    await asyncio.sleep(0)
    may_end.set()
    assert await asyncio.gather(*first) == [2, 4]
    assert await asyncio.gather(later, doubling.submit_number(4)) == [6, 8]
    assert doubling.steps == [[1, 2], [3, 4]]


async def test_waiting_items_are_cancelled_with_their_step_and_later_ones_are_processed() -> None:
    doubling = Doubling()
    waiting = doubling.submit_number(1)
    await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task(), waiting}:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await asyncio.wait_for(doubling.submit_number(2), 60) == 4
    assert doubling.steps == [[2]]
