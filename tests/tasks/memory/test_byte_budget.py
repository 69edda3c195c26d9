"""Who may have his part next? Nobody sleeps: whoever can go on has gone on after a turn of the loop."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tasks.memory.byte_budget import ByteBudget


class Crowd:
    """Many who share a budget of a hundred."""

    def __init__(self) -> None:
        self.budget = ByteBudget(100)
        self.having: dict[str, int] = {}
        self.served: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, amount: int) -> None:
        self._ends[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._have(name, amount))
        await self._settle()

    async def go(self, name: str) -> None:
        self._ends[name].set()
        await self._settle()

    async def give_up(self, name: str) -> None:
        self._tasks[name].cancel()
        await self._settle()

    async def _have(self, name: str, amount: int) -> None:
        async with self.budget.reserve(amount):
            self.having[name] = min(amount, 100)
            self.served.append(name)
            assert sum(self.having.values()) <= 100
            await self._ends[name].wait()
            del self.having[name]

    @staticmethod
    async def _settle() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    @asynccontextmanager
    async def all_gone(self) -> AsyncIterator[None]:
        yield
        for end in self._ends.values():
            end.set()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    crowd = Crowd()
    async with crowd.all_gone():
        yield crowd


async def test_those_who_fit_have_their_part_at_once(crowd: Crowd) -> None:
    for name in "abc":
        await crowd.come(name, 30)
    assert set(crowd.having) == set("abc")


async def test_who_does_not_fit_waits_for_what_is_given_back(crowd: Crowd) -> None:
    await crowd.come("a", 80)
    await crowd.come("b", 30)
    assert set(crowd.having) == {"a"}
    await crowd.go("a")
    assert set(crowd.having) == {"b"}


async def test_of_those_who_wait_the_smallest_goes_first(crowd: Crowd) -> None:
    await crowd.come("first", 100)
    await crowd.come("large", 90)
    await crowd.come("middle", 50)
    await crowd.come("small", 5)
    await crowd.go("first")
    assert crowd.served == ["first", "small", "middle"]


async def test_nobody_is_overtaken_for_ever(crowd: Crowd) -> None:
    await crowd.come("here", 100)
    await crowd.come("large", 100)
    for number in range(200):
        await crowd.come(f"small {number}", 60)
    await crowd.go("here")
    while "large" not in crowd.served:
        await crowd.go(crowd.served[-1])
    assert len(crowd.served) <= 70


async def test_who_wants_more_than_there_is_gets_all_of_it_alone(crowd: Crowd) -> None:
    await crowd.come("a", 1)
    await crowd.come("greedy", 10**9)
    assert set(crowd.having) == {"a"}
    await crowd.go("a")
    await crowd.come("b", 1)
    assert set(crowd.having) == {"greedy"}


async def test_who_gives_up_waiting_is_not_waited_for(crowd: Crowd) -> None:
    await crowd.come("here", 60)
    await crowd.come("tired", 50)
    await crowd.come("next", 45)
    await crowd.give_up("tired")
    await crowd.go("here")
    assert set(crowd.having) == {"next"}


async def test_who_is_cancelled_in_the_moment_of_his_turn_gives_it_back() -> None:
    budget = ByteBudget(1)
    async with budget.reserve(1):
        waiting = asyncio.create_task(budget.reserve(1).__aenter__())
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(5), budget.reserve(1):
        pass


async def test_whatever_happens_everybody_is_served_and_no_more_is_given_than_there_is() -> None:
    dice, budget, taken, served = random.Random(7), ByteBudget(1000), 0, 0  # noqa: S311  # no secret hangs on it

    async def one(amount: int) -> None:
        nonlocal taken, served
        async with budget.reserve(amount):
            taken += min(amount, 1000)
            try:
                assert taken <= 1000
                for _ in range(dice.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                taken -= min(amount, 1000)
        served += 1

    tasks = [asyncio.create_task(one(dice.choice((1, 10, 400, 1000, 5000)))) for _ in range(500)]
    for task in dice.sample(tasks, 100):
        await asyncio.sleep(0)
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert served == ends.count(None)
    assert (taken, budget._left) == (0, 1000)
