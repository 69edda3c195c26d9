import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from scripts.verify.ordered_gather import ordered_gather


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def test_results_keep_their_order_and_concurrent_calls_are_limited() -> None:
    running = most = 0

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (number % 3))
        running -= 1
        return number

    assert [each async for each in ordered_gather(4, work, numbers(50))] == list(range(50))
    assert 1 < most <= 4


async def test_an_error_cancels_all_running_calls() -> None:
    async def work(number: int) -> int:
        if number == 3:
            raise ValueError(number)
        await asyncio.sleep(number)
        return number

    with pytest.raises(ValueError, match="3"):
        async with aclosing(ordered_gather(8, work, numbers(4))) as results:  # type: ignore[type-var]
            _ = [each async for each in results]
    assert len(asyncio.all_tasks()) == 1
