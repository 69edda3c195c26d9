import asyncio
import contextlib
import gc
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

import pytest

from worker.runtime import Draining, Runtime, cancel_requested, freeze_gc

LONG = 3600.0
"""Longer than any test: who returns before did not wait for it."""


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    runtime = Runtime(drain_seconds=LONG)
    yield runtime
    runtime.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Celery's threads."""
    with ThreadPoolExecutor() as threads:
        yield threads


class Work:
    """Work that says when it has begun, goes on until it is let go or cancelled, and cleans up."""

    def __init__(self) -> None:
        self.begun, self.cleaned_up = threading.Event(), threading.Event()
        self._go = asyncio.Event()

    async def __call__(self, answer: str = "done") -> str:
        self.begun.set()
        try:
            await self._go.wait()
        finally:
            await asyncio.sleep(0.01)
            self.cleaned_up.set()
        return answer

    async def let_go(self) -> None:
        self._go.set()


def begun(runtime: Runtime, threads: ThreadPoolExecutor, work: Work) -> "Future[str]":
    future = threads.submit(lambda: runtime.run(work()))
    assert work.begun.wait(10)
    return future


async def is_draining(runtime: Runtime) -> bool:
    """On the loop, behind all that was asked of it before."""
    return runtime.draining


def test_a_thread_gets_the_answer_of_its_coroutine(runtime: Runtime) -> None:
    async def answer() -> str:
        await asyncio.sleep(0)
        return "an answer"

    assert runtime.run(answer()) == "an answer"


def test_a_thread_gets_the_error_of_its_coroutine(runtime: Runtime) -> None:
    async def fail() -> None:
        raise LookupError("what went wrong")

    with pytest.raises(LookupError, match="what went wrong"):
        runtime.run(fail())


def test_all_threads_share_one_loop_in_a_thread_of_its_own(runtime: Runtime, threads: ThreadPoolExecutor) -> None:
    async def where() -> tuple[int, int]:
        return id(asyncio.get_running_loop()), threading.get_ident()

    places = {future.result() for future in [threads.submit(lambda: runtime.run(where())) for _ in range(8)]}

    assert len(places) == 1
    assert places.pop()[1] != threading.get_ident()


def test_a_thread_that_waits_does_not_keep_the_others_waiting(runtime: Runtime, threads: ThreadPoolExecutor) -> None:
    slow, quick = Work(), Work()
    waiting = begun(runtime, threads, slow)
    other = begun(runtime, threads, quick)
    runtime.run(quick.let_go())
    assert other.result(10) == "done"
    assert not waiting.done()
    runtime.run(slow.let_go())
    assert waiting.result(10) == "done"


def test_a_pause_that_is_over_is_no_news(runtime: Runtime) -> None:
    assert runtime.run(runtime.pause(0)) is None
    assert not runtime.draining


def test_a_pause_lasts_as_long_as_it_is_told(runtime: Runtime) -> None:
    async def paused() -> float:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await runtime.pause(0.05)
        return loop.time() - before

    assert 0.04 < runtime.run(paused()) < LONG


def test_draining_is_noticed_and_can_be_asked_for_twice(runtime: Runtime) -> None:
    assert not runtime.run(is_draining(runtime))
    runtime.drain()
    runtime.drain()
    assert runtime.run(is_draining(runtime))
    assert runtime.draining


def test_who_pauses_when_the_process_is_told_to_stop_stops_pausing(
    runtime: Runtime, threads: ThreadPoolExecutor
) -> None:
    async def work() -> str:
        begun.set()
        try:
            await runtime.pause(LONG)
        except Draining:
            return "handed back"
        return "went on"

    begun = threading.Event()
    future = threads.submit(lambda: runtime.run(work()))
    assert begun.wait(10)
    runtime.drain()
    assert future.result(10) == "handed back"


def test_who_wants_to_pause_after_that_does_not_begin(runtime: Runtime) -> None:
    runtime.drain()
    with pytest.raises(CancelledError):
        runtime.run(runtime.pause(LONG))


def test_draining_is_a_cancellation_so_that_nobody_takes_it_for_a_failure() -> None:
    assert issubclass(Draining, asyncio.CancelledError)
    assert not issubclass(Draining, Exception)


def test_what_was_waited_for_is_cancelled_when_the_process_drains(
    runtime: Runtime, threads: ThreadPoolExecutor
) -> None:
    waiting = Work()

    async def work() -> None:
        await runtime.cancel_on_drain(waiting())

    future = threads.submit(lambda: runtime.run(work()))
    assert waiting.begun.wait(10)
    runtime.drain()

    with pytest.raises(CancelledError):
        future.result(10)
    assert waiting.cleaned_up.wait(10)


def test_who_begins_to_wait_after_that_is_told_at_once_and_was_not_cancelled_for_good(runtime: Runtime) -> None:
    async def work() -> tuple[bool, bool]:
        runtime.drain()
        while not runtime.draining:
            await asyncio.sleep(0)
        gate = asyncio.Semaphore(1)
        with contextlib.suppress(Draining):
            await runtime.cancel_on_drain(gate.acquire())
        return gate.locked(), cancel_requested()

    assert runtime.run(work()) == (False, False)


def test_whose_waiting_was_called_off_may_still_clean_up_at_leisure(
    runtime: Runtime, threads: ThreadPoolExecutor
) -> None:
    async def work() -> bool:
        with contextlib.suppress(Draining):
            begun.set()
            await runtime.pause(LONG)
        await asyncio.sleep(0.01)
        return cancel_requested()

    begun = threading.Event()
    future = threads.submit(lambda: runtime.run(work()))
    assert begun.wait(10)
    runtime.drain()
    assert future.result(10) is False


def test_what_was_waited_for_is_cancelled_with_who_waits(runtime: Runtime) -> None:
    waiting = Work()

    async def work() -> None:
        waiter = asyncio.create_task(runtime.cancel_on_drain(waiting()))
        while not waiting.begun.is_set():
            await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)

    runtime.run(work())
    assert waiting.cleaned_up.wait(10)
    assert not runtime.draining


def test_who_waits_gets_the_answer_or_the_error_of_what_it_waits_for(runtime: Runtime) -> None:
    async def fail() -> None:
        raise LookupError

    async def answer() -> int:
        return 7

    assert runtime.run(runtime.cancel_on_drain(answer())) == 7
    with pytest.raises(LookupError):
        runtime.run(runtime.cancel_on_drain(fail()))


def test_a_place_that_was_won_while_the_process_began_to_drain_is_not_lost(runtime: Runtime) -> None:
    async def work() -> bool:
        gate = asyncio.Semaphore(1)
        runtime.drain()
        try:
            await runtime.cancel_on_drain(gate.acquire())
        except Draining:
            return not gate.locked()
        return gate.locked()

    assert runtime.run(work()), "whoever is told that it waits in vain does not hold the place"


def test_work_under_way_may_go_on_while_the_process_drains(runtime: Runtime, threads: ThreadPoolExecutor) -> None:
    work = Work()
    future = begun(runtime, threads, work)
    runtime.drain()
    assert runtime.run(is_draining(runtime))
    assert not future.done()
    runtime.run(work.let_go())
    assert future.result(10) == "done"


def test_work_that_takes_longer_than_the_drain_time_is_cancelled_and_cleans_up(threads: ThreadPoolExecutor) -> None:
    runtime, work = Runtime(drain_seconds=0.01), Work()
    future = begun(runtime, threads, work)

    runtime.drain()

    with pytest.raises(CancelledError):
        future.result(10)
    assert work.cleaned_up.is_set()
    runtime.close()


def test_closing_cancels_what_still_runs_and_waits_until_it_has_cleaned_up(threads: ThreadPoolExecutor) -> None:
    runtime, work = Runtime(LONG), Work()
    future = begun(runtime, threads, work)

    runtime.close()

    assert work.cleaned_up.is_set()
    with pytest.raises(CancelledError):
        future.result(10)


def test_closing_waits_for_the_threads_that_unpack() -> None:
    runtime = Runtime(LONG)
    begun, ended = threading.Event(), threading.Event()

    def unpack() -> None:
        begun.set()
        threading.Event().wait(0.05)
        ended.set()

    async def work() -> None:
        asyncio.get_running_loop().run_in_executor(None, unpack)

    runtime.run(work())
    assert begun.wait(10)
    runtime.close()
    assert ended.is_set()


def test_a_closed_runtime_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    runtime = Runtime(LONG)

    async def work() -> None:
        await asyncio.to_thread(int)

    runtime.run(work())
    assert set(threading.enumerate()) > before
    runtime.close()
    assert set(threading.enumerate()) == before


def test_what_was_done_is_not_remembered(runtime: Runtime) -> None:
    async def work() -> int:
        return len(runtime._work)

    assert {runtime.run(work()) for _ in range(5)} == {1}, "only itself"


# Told twice, and cancellations that get lost


def test_told_to_drain_twice_what_works_is_cancelled_at_once_and_cleans_up(
    runtime: Runtime, threads: ThreadPoolExecutor
) -> None:
    works = [Work() for _ in range(3)]
    futures = [begun(runtime, threads, work) for work in works]
    runtime.drain()
    assert runtime.run(is_draining(runtime))
    assert not any(future.done() for future in futures)

    runtime.drain()

    for work, future in zip(works, futures, strict=True):
        with pytest.raises(CancelledError):
            future.result(10)
        assert work.cleaned_up.is_set()


class LosesCancellations(Work):
    """Work to which cancellations get lost."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.lost: list[bool] = []
        self._times = times

    async def __call__(self, answer: str = "done") -> str:
        self.begun.set()
        for _ in range(self._times):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.lost.append(cancel_requested())
        await asyncio.Event().wait()
        return answer


def test_who_did_not_notice_the_first_cancellation_is_cancelled_again(
    runtime: Runtime, threads: ThreadPoolExecutor
) -> None:
    work = LosesCancellations(times=2)
    future = begun(runtime, threads, work)
    for _ in range(2):
        runtime.drain()
    with pytest.raises(CancelledError):
        future.result(10)
    assert work.lost == [True, True], "who asks knows it all the same"


def test_who_does_not_notice_it_when_the_drain_time_is_over_is_cancelled_again(threads: ThreadPoolExecutor) -> None:
    runtime, work = Runtime(drain_seconds=0.0), LosesCancellations(times=1)
    future = begun(runtime, threads, work)
    runtime.drain()
    with pytest.raises(CancelledError):
        future.result(10)
    runtime.close()


def test_closing_cancels_again_who_did_not_notice(threads: ThreadPoolExecutor) -> None:
    runtime, work = Runtime(LONG), LosesCancellations(times=2)
    future = begun(runtime, threads, work)
    runtime.close()
    assert len(work.lost) == 2
    with pytest.raises(CancelledError):
        future.result(10)


def test_nobody_is_told_to_end_unless_cancelled(runtime: Runtime) -> None:
    async def asks() -> bool:
        return cancel_requested()

    assert runtime.run(asks()) is False


async def test_who_loops_for_ever_learns_that_a_cancellation_was_lost() -> None:
    rounds = 0

    async def loop() -> None:
        nonlocal rounds
        while not cancel_requested():
            rounds += 1
            begun.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    begun = asyncio.Event()
    task = asyncio.create_task(loop())
    await begun.wait()
    task.cancel()
    async with asyncio.timeout(10):
        await task
    assert rounds == 1


async def test_who_takes_back_a_cancellation_is_not_told_to_end() -> None:
    async def work() -> bool:
        task = asyncio.current_task()
        assert task
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        task.uncancel()
        return cancel_requested()

    assert await asyncio.create_task(work()) is False


async def test_outside_of_a_task_nobody_is_told_to_end() -> None:
    answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: answer.set_result(cancel_requested()))
    assert await answer is False


@pytest.fixture
def collecting() -> Iterator[None]:
    """Have the collector look at everything again afterwards."""
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("collecting")
def test_the_collector_looks_at_nothing_that_stays_and_at_all_that_comes() -> None:
    before = len(gc.get_objects())
    freeze_gc()
    later = [[] for _ in range(10)]
    looked_at = gc.get_objects()
    assert len(looked_at) < before / 10
    assert all(any(each is one for one in looked_at) for each in later)
