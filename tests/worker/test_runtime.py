import asyncio
import contextlib
import gc
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

import pytest

from worker.runtime import Draining, Runtime, cancel_requested, freeze_gc

LONG = 3600.0
"""Longer than any test, so a test that ends did not wait for it."""


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    runtime = Runtime(drain_seconds=LONG)
    yield runtime
    runtime.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Return threads that act like Celery's."""
    with ThreadPoolExecutor() as threads:
        yield threads


class Work:
    """Work that signals its beginning, continues until it is released or cancelled, and cleans up."""

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

    async def release(self) -> None:
        self._go.set()


def begin(runtime: Runtime, threads: ThreadPoolExecutor, work: Work) -> "Future[str]":
    future = threads.submit(lambda: runtime.run(work()))
    assert work.begun.wait(10)
    return future


async def is_draining(runtime: Runtime) -> bool:
    """Read the flag on the loop, after all earlier callbacks."""
    return runtime.draining


def test_run_returns_the_result_of_the_coroutine(runtime: Runtime) -> None:
    async def answer() -> str:
        await asyncio.sleep(0)
        return "an answer"

    assert runtime.run(answer()) == "an answer"


def test_run_raises_the_error_of_the_coroutine(runtime: Runtime) -> None:
    async def fail() -> None:
        raise LookupError("what went wrong")

    with pytest.raises(LookupError, match="what went wrong"):
        runtime.run(fail())


def test_all_threads_share_one_loop_in_its_own_thread(runtime: Runtime, threads: ThreadPoolExecutor) -> None:
    async def current_thread_and_loop() -> tuple[int, int]:
        return id(asyncio.get_running_loop()), threading.get_ident()

    found = {
        future.result() for future in [threads.submit(lambda: runtime.run(current_thread_and_loop())) for _ in range(8)]
    }

    assert len(found) == 1
    assert found.pop()[1] != threading.get_ident()


def test_a_waiting_thread_does_not_block_the_others(runtime: Runtime, threads: ThreadPoolExecutor) -> None:
    slow, quick = Work(), Work()
    waiting = begin(runtime, threads, slow)
    other = begin(runtime, threads, quick)
    runtime.run(quick.release())
    assert other.result(10) == "done"
    assert not waiting.done()
    runtime.run(slow.release())
    assert waiting.result(10) == "done"


def test_a_pause_returns_after_its_time(runtime: Runtime) -> None:
    assert runtime.run(runtime.pause(0)) is None
    assert not runtime.draining


def test_a_pause_lasts_for_its_seconds(runtime: Runtime) -> None:
    async def paused() -> float:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await runtime.pause(0.05)
        return loop.time() - before

    assert 0.04 < runtime.run(paused()) < LONG


def test_draining_is_true_after_one_or_two_calls_of_drain(runtime: Runtime) -> None:
    assert not runtime.run(is_draining(runtime))
    runtime.drain()
    runtime.drain()
    assert runtime.run(is_draining(runtime))
    assert runtime.draining


def test_a_pause_is_cancelled_when_the_process_drains(runtime: Runtime, threads: ThreadPoolExecutor) -> None:
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


def test_a_pause_does_not_begin_while_the_process_drains(runtime: Runtime) -> None:
    runtime.drain()
    with pytest.raises(CancelledError):
        runtime.run(runtime.pause(LONG))


def test_draining_is_a_cancellation_and_not_a_failure() -> None:
    assert issubclass(Draining, asyncio.CancelledError)
    assert not issubclass(Draining, Exception)


def test_a_wait_is_cancelled_when_the_process_drains(runtime: Runtime, threads: ThreadPoolExecutor) -> None:
    waiting = Work()

    async def work() -> None:
        await runtime.cancel_on_drain(waiting())

    future = threads.submit(lambda: runtime.run(work()))
    assert waiting.begun.wait(10)
    runtime.drain()

    with pytest.raises(CancelledError):
        future.result(10)
    assert waiting.cleaned_up.wait(10)


def test_a_wait_during_a_drain_fails_at_once_and_leaves_the_task_uncancelled(runtime: Runtime) -> None:
    async def work() -> tuple[bool, bool]:
        runtime.drain()
        while not runtime.draining:
            await asyncio.sleep(0)
        gate = asyncio.Semaphore(1)
        with contextlib.suppress(Draining):
            await runtime.cancel_on_drain(gate.acquire())
        return gate.locked(), cancel_requested()

    assert runtime.run(work()) == (False, False)


def test_a_task_whose_wait_was_cancelled_may_still_await_its_cleanup(
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


def test_a_wait_is_cancelled_with_its_task(runtime: Runtime) -> None:
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


def test_a_wait_returns_the_result_or_raises_the_error(runtime: Runtime) -> None:
    async def fail() -> None:
        raise LookupError

    async def answer() -> int:
        return 7

    assert runtime.run(runtime.cancel_on_drain(answer())) == 7
    with pytest.raises(LookupError):
        runtime.run(runtime.cancel_on_drain(fail()))


def test_a_slot_acquired_as_the_drain_begins_is_not_lost(runtime: Runtime) -> None:
    async def work() -> bool:
        gate = asyncio.Semaphore(1)
        runtime.drain()
        try:
            await runtime.cancel_on_drain(gate.acquire())
        except Draining:
            return not gate.locked()
        return gate.locked()

    assert runtime.run(work()), "a task that gets Draining does not hold the slot"


def test_work_in_progress_continues_while_the_process_drains(runtime: Runtime, threads: ThreadPoolExecutor) -> None:
    work = Work()
    future = begin(runtime, threads, work)
    runtime.drain()
    assert runtime.run(is_draining(runtime))
    assert not future.done()
    runtime.run(work.release())
    assert future.result(10) == "done"


def test_work_that_takes_longer_than_the_drain_time_is_cancelled_and_cleans_up(threads: ThreadPoolExecutor) -> None:
    runtime, work = Runtime(drain_seconds=0.01), Work()
    future = begin(runtime, threads, work)

    runtime.drain()

    with pytest.raises(CancelledError):
        future.result(10)
    assert work.cleaned_up.is_set()
    runtime.close()


def test_closing_cancels_running_work_and_waits_for_its_cleanup(threads: ThreadPoolExecutor) -> None:
    runtime, work = Runtime(LONG), Work()
    future = begin(runtime, threads, work)

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


def test_finished_work_is_forgotten(runtime: Runtime) -> None:
    async def work() -> int:
        return len(runtime._work)

    assert {runtime.run(work()) for _ in range(5)} == {1}, "only itself"


# A second drain, and lost cancellations


def test_a_second_drain_cancels_work_at_once(runtime: Runtime, threads: ThreadPoolExecutor) -> None:
    works = [Work() for _ in range(3)]
    futures = [begin(runtime, threads, work) for work in works]
    runtime.drain()
    assert runtime.run(is_draining(runtime))
    assert not any(future.done() for future in futures)

    runtime.drain()

    for work, future in zip(works, futures, strict=True):
        with pytest.raises(CancelledError):
            future.result(10)
        assert work.cleaned_up.is_set()


class CancellationLosingWork(Work):
    """Work that loses cancellations."""

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


def test_work_that_lost_a_cancellation_is_cancelled_again(runtime: Runtime, threads: ThreadPoolExecutor) -> None:
    work = CancellationLosingWork(times=2)
    future = begin(runtime, threads, work)
    for _ in range(2):
        runtime.drain()
    with pytest.raises(CancelledError):
        future.result(10)
    assert work.lost == [True, True], "cancel_requested() is still true"


def test_work_that_lost_the_cancellation_after_the_drain_time_is_cancelled_again(threads: ThreadPoolExecutor) -> None:
    runtime, work = Runtime(drain_seconds=0.0), CancellationLosingWork(times=1)
    future = begin(runtime, threads, work)
    runtime.drain()
    with pytest.raises(CancelledError):
        future.result(10)
    runtime.close()


def test_closing_cancels_again_if_a_cancellation_was_lost(threads: ThreadPoolExecutor) -> None:
    runtime, work = Runtime(LONG), CancellationLosingWork(times=2)
    future = begin(runtime, threads, work)
    runtime.close()
    assert len(work.lost) == 2
    with pytest.raises(CancelledError):
        future.result(10)


def test_cancel_requested_is_false_without_a_cancellation(runtime: Runtime) -> None:
    async def read_request() -> bool:
        return cancel_requested()

    assert runtime.run(read_request()) is False


async def test_cancel_requested_is_true_after_a_lost_cancellation() -> None:
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
    async with asyncio.timeout(60):
        await task
    assert rounds == 1


async def test_cancel_requested_is_false_after_uncancel() -> None:
    async def work() -> bool:
        task = asyncio.current_task()
        assert task
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        task.uncancel()
        return cancel_requested()

    assert await asyncio.create_task(work()) is False


async def test_cancel_requested_is_false_outside_of_a_task() -> None:
    answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: answer.set_result(cancel_requested()))
    assert await answer is False


@pytest.fixture
def _unfreeze() -> Iterator[None]:
    """Unfreeze all objects afterwards."""
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("_unfreeze")
def test_frozen_objects_are_not_collected_and_new_ones_are() -> None:
    before = len(gc.get_objects())
    freeze_gc()
    later = [[] for _ in range(10)]
    tracked = gc.get_objects()
    assert len(tracked) < before / 10
    assert all(any(each is one for one in tracked) for each in later)
