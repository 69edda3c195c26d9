"""When a queue is fetched from, and when the backfill is paused."""

import asyncio

from tasks.consumer.prefetch import PrefetchControl
from tasks.model.job import Queue


def test_a_queue_is_not_fetched_from_while_its_limit_of_messages_is_reached() -> None:
    prefetch = PrefetchControl(16, lambda _: None, {Queue.BACKFILL: 1})
    assert prefetch.can_fetch(Queue.BACKFILL)
    with prefetch.track_message(Queue.BACKFILL):
        assert not prefetch.can_fetch(Queue.BACKFILL)
        assert prefetch.can_fetch(Queue.LIVE)
    assert prefetch.can_fetch(Queue.BACKFILL)


async def test_expected_evaluations_pause_the_backfill_before_the_loop_handles_them() -> None:
    paused: list[bool] = []
    prefetch = PrefetchControl(8, paused.append)
    await asyncio.to_thread(prefetch.expect_evaluations, Queue.LIVE, 100)
    await asyncio.to_thread(prefetch.expect_evaluations, Queue.BACKFILL, 31)
    assert paused == [False]
    await asyncio.to_thread(prefetch.expect_evaluations, Queue.BACKFILL, 1)
    assert paused[-1]
    prefetch.expect_evaluations(Queue.BACKFILL, -32)
    assert not paused[-1]


def test_waiting_evaluations_pause_the_backfill_only_if_they_are_its_own() -> None:
    paused: list[bool] = []
    prefetch = PrefetchControl(1, paused.append)
    prefetch.expect_evaluations(Queue.BACKFILL, 3)
    for queue, is_paused in ((Queue.LIVE, False), (Queue.BACKFILL, True)):
        with prefetch.track_waiting(queue):
            prefetch.expect_evaluations(Queue.BACKFILL, 0)
            assert paused[-1] is is_paused
        assert not paused[-1]


def test_the_backfill_is_paused_while_its_messages_occupy_all_threads() -> None:
    paused: list[bool] = []
    prefetch = PrefetchControl(2, paused.append)
    with prefetch.track_message(Queue.BACKFILL):
        assert (paused[-1], prefetch.can_accept) == (False, True)
        with prefetch.track_message(Queue.BACKFILL):
            assert (paused[-1], prefetch.can_accept) == (True, False)
    assert (paused[-1], prefetch.can_accept) == (False, True)
