"""Small reservations are granted first. A waiting task continues within one iteration of the event loop."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tasks.memory.byte_budget import ByteBudget


class SharedBudget:
    """Tasks that share a budget of 100."""

    def __init__(self) -> None:
        self.budget = ByteBudget(100)
        self.held: dict[str, int] = {}
        self.served: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def reserve(self, name: str, amount: int) -> None:
        self._ends[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._hold(name, amount))
        await self._settle()

    async def release(self, name: str) -> None:
        self._ends[name].set()
        await self._settle()

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        await self._settle()

    async def _hold(self, name: str, amount: int) -> None:
        async with self.budget.reserve(amount):
            self.held[name] = min(amount, 100)
            self.served.append(name)
            assert sum(self.held.values()) <= 100
            await self._ends[name].wait()
            del self.held[name]

    @staticmethod
    async def _settle() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    @asynccontextmanager
    async def release_all(self) -> AsyncIterator[None]:
        yield
        for end in self._ends.values():
            end.set()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


@pytest.fixture
async def shared() -> AsyncIterator[SharedBudget]:
    shared = SharedBudget()
    async with shared.release_all():
        yield shared


async def test_a_reservation_is_granted_at_once_when_it_fits(shared: SharedBudget) -> None:
    for name in "abc":
        await shared.reserve(name, 30)
    assert set(shared.held) == set("abc")


async def test_a_reservation_waits_for_a_release_when_it_does_not_fit(shared: SharedBudget) -> None:
    await shared.reserve("a", 80)
    await shared.reserve("b", 30)
    assert set(shared.held) == {"a"}
    await shared.release("a")
    assert set(shared.held) == {"b"}


async def test_the_smallest_waiting_reservation_is_granted_first(shared: SharedBudget) -> None:
    await shared.reserve("first", 100)
    await shared.reserve("large", 90)
    await shared.reserve("middle", 50)
    await shared.reserve("small", 5)
    await shared.release("first")
    assert shared.served == ["first", "small", "middle"]


async def test_a_large_reservation_is_overtaken_a_limited_number_of_times(shared: SharedBudget) -> None:
    await shared.reserve("first", 100)
    await shared.reserve("large", 100)
    for number in range(200):
        await shared.reserve(f"small {number}", 60)
    await shared.release("first")
    while "large" not in shared.served:
        await shared.release(shared.served[-1])
    assert len(shared.served) <= 70


async def test_a_reservation_gets_the_whole_budget_when_it_is_larger(shared: SharedBudget) -> None:
    await shared.reserve("a", 1)
    await shared.reserve("larger", 10**9)
    assert set(shared.held) == {"a"}
    await shared.release("a")
    await shared.reserve("b", 1)
    assert set(shared.held) == {"larger"}


async def test_a_cancelled_reservation_does_not_delay_the_next(shared: SharedBudget) -> None:
    await shared.reserve("first", 60)
    await shared.reserve("cancelled", 50)
    await shared.reserve("next", 45)
    await shared.cancel("cancelled")
    await shared.release("first")
    assert set(shared.held) == {"next"}


async def test_a_reservation_is_returned_when_it_is_cancelled_while_it_is_granted() -> None:
    budget = ByteBudget(1)
    async with budget.reserve(1):
        waiting = asyncio.create_task(budget.reserve(1).__aenter__())
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(60), budget.reserve(1):
        pass


async def test_reservations_are_all_granted_within_the_budget_when_many_are_cancelled() -> None:
    rng, budget, taken, served = random.Random(7), ByteBudget(1000), 0, 0  # noqa: S311  # no secret depends on it

    async def one(amount: int) -> None:
        nonlocal taken, served
        async with budget.reserve(amount):
            taken += min(amount, 1000)
            try:
                assert taken <= 1000
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                taken -= min(amount, 1000)
        served += 1

    tasks = [asyncio.create_task(one(rng.choice((1, 10, 400, 1000, 5000)))) for _ in range(500)]
    for task in rng.sample(tasks, 100):
        await asyncio.sleep(0)
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert served == ends.count(None)
    assert (taken, budget._left) == (0, 1000)


async def test_a_shrunk_reservation_returns_the_difference_at_once() -> None:
    budget = ByteBudget(100)
    async with budget.reserve(90) as large:
        waiting = asyncio.create_task(_reserve_once(budget, 70))
        large.shrink(31)
        await asyncio.sleep(0)
        assert not waiting.done()
        large.shrink(30)
        large.shrink(40)
        await asyncio.wait_for(waiting, 60)
    await asyncio.wait_for(_reserve_once(budget, 100), 60)


async def _reserve_once(budget: ByteBudget, amount: int) -> None:
    async with budget.reserve(amount):
        pass


async def test_a_reservation_grows_only_when_the_budget_has_enough_left() -> None:
    budget = ByteBudget(100)
    async with budget.reserve(10) as grown, budget.reserve(30):
        assert grown.try_grow(70)
        assert not grown.try_grow(71)
        assert grown.amount == 70
    await asyncio.wait_for(_reserve_once(budget, 100), 60)


async def test_two_growing_reservations_do_not_wait_for_each_other() -> None:
    budget, ended = ByteBudget(100), []

    async def resize_to(amount: int) -> None:
        async with budget.reserve(40) as reservation:
            await asyncio.sleep(0)
            await reservation.resize(amount)
            ended.append(reservation.amount)

    await asyncio.wait_for(asyncio.gather(resize_to(90), resize_to(80)), 60)
    assert sorted(ended) == [80, 90]


async def test_a_reservation_that_is_cancelled_while_it_grows_holds_nothing() -> None:
    budget = ByteBudget(100)
    async with budget.reserve(60):

        async def grow() -> None:
            async with budget.reserve(30) as reservation:
                await reservation.resize(70)

        growing = asyncio.create_task(grow())
        await asyncio.sleep(0.01)
        growing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await growing
        await asyncio.wait_for(_reserve_once(budget, 40), 60)


async def test_urgent_reservations_are_granted_first_from_their_own_part() -> None:
    budget, served = ByteBudget(100, for_urgent=20), []

    async def reserve(name: str, amount: int, *, is_urgent: bool = False) -> None:
        async with budget.reserve(amount, is_urgent=is_urgent):
            served.append(name)

    async with budget.reserve(80):
        small = asyncio.create_task(reserve("small", 1))
        await asyncio.sleep(0)
        await asyncio.wait_for(reserve("live", 20, is_urgent=True), 60)
        large = asyncio.create_task(reserve("large live", 50, is_urgent=True))
        await asyncio.sleep(0)
        assert served == ["live"]
    await asyncio.gather(small, large)
    assert served == ["live", "large live", "small"]


async def test_an_ordinary_reservation_gets_the_whole_budget_when_nothing_is_reserved() -> None:
    budget = ByteBudget(100, for_urgent=20)
    await asyncio.wait_for(_reserve_once(budget, 100), 60)


async def test_a_reservation_returns_the_difference_when_it_is_resized_to_less() -> None:
    budget = ByteBudget(100)
    async with budget.reserve(90) as reservation:
        await reservation.resize(30)
        assert reservation.amount == 30
        await asyncio.wait_for(_reserve_once(budget, 70), 60)
