"""A backfill fills what places it may have, and what is live finds one all the same."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tasks.consumer.concurrency import ConcurrencyLimiter
from tasks.model.job import Queue


class Plane:
    """Evaluations that are in flight until they are told to land."""

    def __init__(self, concurrency: int) -> None:
        self.told: list[bool] = []
        self.flight = ConcurrencyLimiter(concurrency, self.wait, self.told.append)
        self.aboard: list[Queue] = []
        self.land = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    @staticmethod
    async def wait(place: Coroutine[Any, Any, bool]) -> bool:
        return await place

    async def board(self, queue: Queue, count: int = 1) -> None:
        self.tasks += [asyncio.create_task(self._fly(queue)) for _ in range(count)]
        for _ in range(5):
            await asyncio.sleep(0)

    async def _fly(self, queue: Queue) -> None:
        async with self.flight.admit(queue), self.flight.slot(queue):
            self.aboard.append(queue)
            await self.land.wait()

    async def done(self) -> None:
        self.land.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def test_of_a_queue_that_is_fetched_in_small_parts_no_more_is_expected() -> None:
    flight = ConcurrencyLimiter(16, Plane.wait, lambda _: None, {Queue.BACKFILL: 1})
    assert flight.can_fetch(Queue.BACKFILL)
    with flight.track_message(Queue.BACKFILL):
        assert not flight.can_fetch(Queue.BACKFILL)
        assert flight.can_fetch(Queue.LIVE)
    assert flight.can_fetch(Queue.BACKFILL)


async def test_no_more_are_in_flight_than_may_be() -> None:
    plane = Plane(16)
    await plane.board(Queue.LIVE, 20)
    assert len(plane.aboard) == 16
    await plane.done()
    assert len(plane.aboard) == 20


async def test_a_backfill_leaves_places_to_what_is_live() -> None:
    plane = Plane(16)
    await plane.board(Queue.BACKFILL, 40)
    assert plane.aboard == [Queue.BACKFILL] * 14
    await plane.board(Queue.LIVE, 3)
    assert plane.aboard[14:] == [Queue.LIVE] * 2
    await plane.done()
    assert len(plane.aboard) == 43


async def test_a_process_with_few_places_serves_a_backfill_as_well() -> None:
    plane = Plane(1)
    await plane.board(Queue.BACKFILL, 2)
    assert plane.aboard == [Queue.BACKFILL]
    await plane.done()
    assert len(plane.aboard) == 2


async def test_enough_of_a_backfill_is_here_when_four_times_as_many_wait_as_may_be_in_flight() -> None:
    plane = Plane(8)
    await plane.board(Queue.BACKFILL, 11 + 31)
    with plane.flight.track_message(Queue.LIVE):
        assert not plane.told[-1]
    await plane.board(Queue.BACKFILL)
    with plane.flight.track_message(Queue.LIVE):
        assert plane.told[-1]
    await plane.done()
    assert not plane.told[-1]


async def test_what_was_fetched_counts_before_the_loop_has_heard_of_it() -> None:
    plane = Plane(8)
    await asyncio.to_thread(plane.flight.expect_evaluations, Queue.LIVE, 100)
    await asyncio.to_thread(plane.flight.expect_evaluations, Queue.BACKFILL, 31)
    assert plane.told == [False]
    await asyncio.to_thread(plane.flight.expect_evaluations, Queue.BACKFILL, 1)
    assert plane.told[-1]
    plane.flight.expect_evaluations(Queue.BACKFILL, -32)
    assert not plane.told[-1]


async def test_enough_of_a_backfill_is_here_when_its_messages_are_that_many() -> None:
    plane = Plane(2)
    with plane.flight.track_message(Queue.BACKFILL):
        assert (plane.told[-1], plane.flight.can_accept) == (False, True)
        with plane.flight.track_message(Queue.BACKFILL):
            assert (plane.told[-1], plane.flight.can_accept) == (True, False)
    assert (plane.told[-1], plane.flight.can_accept) == (False, True)


async def test_somewhat_more_are_at_work_than_in_flight() -> None:
    plane, at_work = Plane(16), []

    async def work() -> None:
        async with plane.flight.admit(Queue.LIVE):
            at_work.append(plane.flight.in_flight)
            await plane.land.wait()

    tasks = [asyncio.create_task(work()) for _ in range(30)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert at_work == [0] * 24
    plane.land.set()
    await asyncio.gather(*tasks)
    assert len(at_work) == 30


async def test_what_is_live_finds_room_to_work_beside_a_backfill_that_waits_for_places() -> None:
    plane = Plane(16)
    await plane.board(Queue.BACKFILL, 60)
    await plane.board(Queue.LIVE, 2)
    assert plane.aboard == [*[Queue.BACKFILL] * 14, *[Queue.LIVE] * 2]
    await plane.done()


@pytest.mark.parametrize("queue", list(Queue))
async def test_who_is_told_not_to_wait_takes_no_place_along(queue: Queue) -> None:
    plane = Plane(1)
    await plane.board(Queue.BACKFILL)
    await plane.board(queue)
    plane.tasks[-1].cancel()
    await asyncio.wait(plane.tasks[-1:])
    await plane.done()
    plane.land.clear()
    await plane.board(queue)
    assert plane.aboard == [Queue.BACKFILL, queue]
    await plane.done()


async def test_what_is_in_flight_is_counted_and_no_more_when_it_has_landed() -> None:
    plane = Plane(4)
    await plane.board(Queue.LIVE, 6)
    assert plane.flight.in_flight == 4
    plane.land.set()
    await asyncio.gather(*plane.tasks)
    assert plane.flight.in_flight == 0
