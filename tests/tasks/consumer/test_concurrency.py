"""Slots and admissions of one process, for both queues."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tasks.consumer.concurrency import ConcurrencyLimiter
from tasks.consumer.prefetch import PrefetchControl
from tasks.model.job import Queue


class Evaluations:
    """Evaluations that occupy their slots until they are released."""

    def __init__(self, concurrency: int) -> None:
        self.prefetch = PrefetchControl(concurrency, lambda _: None)
        self.limiter = ConcurrencyLimiter(concurrency, self.wait, self.prefetch)
        self.in_slots: list[Queue] = []
        self.released = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    @staticmethod
    async def wait(acquire: Coroutine[Any, Any, bool]) -> bool:
        return await acquire

    async def start(self, queue: Queue, count: int = 1) -> None:
        self.tasks += [asyncio.create_task(self._occupy(queue)) for _ in range(count)]
        for _ in range(5):
            await asyncio.sleep(0)

    async def _occupy(self, queue: Queue) -> None:
        async with self.limiter.admit(queue), self.limiter.slot(queue):
            self.in_slots.append(queue)
            await self.released.wait()

    async def finish(self) -> None:
        self.released.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_slots_are_limited_to_the_concurrency() -> None:
    evaluations = Evaluations(16)
    await evaluations.start(Queue.LIVE, 20)
    assert len(evaluations.in_slots) == 16
    await evaluations.finish()
    assert len(evaluations.in_slots) == 20


async def test_a_backfill_leaves_slots_to_live_evaluations() -> None:
    evaluations = Evaluations(16)
    await evaluations.start(Queue.BACKFILL, 40)
    assert evaluations.in_slots == [Queue.BACKFILL] * 14
    await evaluations.start(Queue.LIVE, 3)
    assert evaluations.in_slots[14:] == [Queue.LIVE] * 2
    await evaluations.finish()
    assert len(evaluations.in_slots) == 43


async def test_a_backfill_gets_a_slot_when_the_process_has_only_one() -> None:
    evaluations = Evaluations(1)
    await evaluations.start(Queue.BACKFILL, 2)
    assert evaluations.in_slots == [Queue.BACKFILL]
    await evaluations.finish()
    assert len(evaluations.in_slots) == 2


async def test_evaluations_are_admitted_up_to_one_and_a_half_times_the_slots() -> None:
    evaluations, admitted = Evaluations(16), []

    async def work() -> None:
        async with evaluations.limiter.admit(Queue.LIVE):
            admitted.append(evaluations.limiter.in_flight)
            await evaluations.released.wait()

    tasks = [asyncio.create_task(work()) for _ in range(30)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert admitted == [0] * 24
    evaluations.released.set()
    await asyncio.gather(*tasks)
    assert len(admitted) == 30


async def test_live_evaluations_are_admitted_while_a_backfill_waits_for_slots() -> None:
    evaluations = Evaluations(16)
    await evaluations.start(Queue.BACKFILL, 60)
    await evaluations.start(Queue.LIVE, 2)
    assert evaluations.in_slots == [*[Queue.BACKFILL] * 14, *[Queue.LIVE] * 2]
    await evaluations.finish()


@pytest.mark.parametrize("queue", list(Queue))
async def test_a_cancelled_evaluation_does_not_keep_a_slot(queue: Queue) -> None:
    evaluations = Evaluations(1)
    await evaluations.start(Queue.BACKFILL)
    await evaluations.start(queue)
    evaluations.tasks[-1].cancel()
    await asyncio.wait(evaluations.tasks[-1:])
    await evaluations.finish()
    evaluations.released.clear()
    await evaluations.start(queue)
    assert evaluations.in_slots == [Queue.BACKFILL, queue]
    await evaluations.finish()


async def test_in_flight_counts_the_occupied_slots() -> None:
    evaluations = Evaluations(4)
    await evaluations.start(Queue.LIVE, 6)
    assert evaluations.limiter.in_flight == 4
    evaluations.released.set()
    await asyncio.gather(*evaluations.tasks)
    assert evaluations.limiter.in_flight == 0


async def test_admit_counts_a_backfill_evaluation_as_waiting_until_it_is_admitted() -> None:
    paused: list[bool] = []
    prefetch = PrefetchControl(8, paused.append)
    limiter = ConcurrencyLimiter(8, Evaluations.wait, prefetch)
    released = asyncio.Event()

    async def work() -> None:
        async with limiter.admit(Queue.BACKFILL), limiter.slot(Queue.BACKFILL):
            await released.wait()

    tasks = [asyncio.create_task(work()) for _ in range(11 + 31)]
    await asyncio.sleep(0)
    with prefetch.track_message(Queue.LIVE):
        assert not paused[-1], "11 are admitted and 31 wait"
    tasks.append(asyncio.create_task(work()))
    await asyncio.sleep(0)
    with prefetch.track_message(Queue.LIVE):
        assert paused[-1], "32 wait, four for each slot"
    released.set()
    await asyncio.gather(*tasks)
    assert not paused[-1]
