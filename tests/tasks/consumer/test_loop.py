"""A loop survives every error of its rounds, and the watchdog detects a loop that hangs."""

import asyncio
import contextlib
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from scripts.serve.page.rate_history import RateHistory
from tasks.consumer.background import BackgroundLoops
from tasks.consumer.consumer import Consumer
from tasks.consumer.loop import Loop, run_loop
from tasks.consumer.parts import make_consumer_parts
from tasks.consumer.system_metrics import SystemMetrics
from tasks.ledger.ledger import Ledger
from tasks.model.account import Allowance
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.queueing.publisher import Publisher
from tasks.resilience.adaptive_rate import AdaptiveRate
from tasks.resilience.holds import Holds
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.run_list import RunSource, store_run_list
from worker.app import make_publishing_app
from worker.config.accounts import load_accounts
from worker.config.settings import load_settings
from worker.metrics.shared_metrics import SharedGauge
from worker.resources import open_resources
from worker.runtime import Runtime
from worker.watchdog import Watchdog

LOOPS = ("tick", "leases", "presence", "cancellations", "dispatch", "rates", "leftovers", "notify", "feed")
IDS = [f"0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a{number:02x}" for number in range(9)]


class Unforeseen(Exception):
    """An error that no code expects."""


@types.coroutine
def failing_at(number: int, work: Awaitable[Any]) -> Generator[Any, Any, None]:
    """Await something, and raise an error at its N-th suspension, if it has that many."""
    steps = work.__await__()
    with contextlib.suppress(StopIteration):
        waits_for = next(steps)
        for _ in range(number):
            waits_for = steps.send((yield waits_for))
        if waits_for is not None:
            waits_for.cancel()
        waits_for = steps.throw(Unforeseen())
        while True:
            waits_for = steps.send((yield waits_for))


@pytest.fixture
async def loops(redis: Redis, redis_url: str, tmp_path: Path) -> AsyncIterator[list[Loop]]:
    """Return the loops of a worker, each with something to do."""
    settings = load_settings(
        api_key="a-key",
        redis_url=redis_url,
        archive_url=(tmp_path / "archive").as_uri(),
        notify_url="http://127.0.0.1:9/nothing-listens-here",
    )
    ledger, fingerprint = Ledger(redis), "a" * 64
    source = RunSource(name="ids.txt", fingerprint=fingerprint, ids=4, repeated=0, bad=0)
    bucket = LocalBucket(tmp_path / "archive")
    await store_run_list(
        bucket, IDS[:4], run="q3", environment="sandbox", account="default", refresh=False, source=source
    )
    await ledger.runs.begin("q3", total=4, fingerprint=fingerprint)
    await ledger.accept(IDS[4:], EnqueueOptions(Queue.LIVE, "default", Trigger("enqueue")))
    runtime = Runtime(drain_seconds=1)
    with closing(Publisher(make_publishing_app(settings))) as publisher:
        async with open_resources(settings, load_accounts(settings)) as resources:
            parts = make_consumer_parts(settings, load_accounts(settings), resources, runtime, publisher, Watchdog())
            parts.leftovers.add(["sandbox/an-evaluation/selfie/1.jpg"])
            with parts.leases.keep(await ledger.lease(IDS[4:6], token="ours")):  # as if it processed them
                yield BackgroundLoops(parts, Consumer(parts)).loops()
    await asyncio.to_thread(runtime.close)


async def run_twice(loop: Loop, first: Callable[[], Awaitable[Any]]) -> tuple[list[Any], bool]:
    """Run a loop with this first round until its second round ends; return its log, and whether the first failed."""
    rounds = 0
    ended = asyncio.Event()

    async def run_round() -> bool:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            await first()
        else:
            await loop.run_round()
            ended.set()
        return False

    with capture_logs() as log:
        task = asyncio.create_task(run_loop(replace(loop, seconds=0.001, longest_pause=0.01, run_round=run_round)))
        async with asyncio.timeout(30):
            await ended.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    failed = [line for line in log if line["event"] == "loop.failed"]
    return failed, bool(failed)


async def fail_everywhere(loop: Loop) -> int:
    """Let a round of a loop fail at each of its awaits in turn; return how many there are."""
    for number in range(1000):

        async def first(at: int = number) -> None:
            await failing_at(at, loop.run_round())

        lines, has_failed = await run_twice(loop, first)
        if not has_failed:
            return number
        assert [(line["loop"], line["error"]) for line in lines] == [(loop.name, "Unforeseen")]
        assert lines[0]["place"].startswith(("tasks.", "worker.", "scripts."))
    raise AssertionError("the round never ends")


async def test_a_worker_runs_the_listed_loops(loops: list[Loop]) -> None:
    assert [loop.name for loop in loops] == list(LOOPS)


@pytest.mark.parametrize("name", LOOPS)
async def test_a_loop_of_a_worker_goes_on_when_an_unforeseen_error_is_raised_at_any_await(
    loops: list[Loop], name: str
) -> None:
    loop = next(loop for loop in loops if loop.name == name)
    waits = await fail_everywhere(loop)
    assert (waits > 0) == (name != "tick"), "a round without an await cannot fail at one"


async def test_the_loop_of_serve_goes_on_when_an_unforeseen_error_is_raised_at_any_await(redis: Redis) -> None:
    rate = AdaptiveRate(redis, "default", Allowance(rate=10.0), Holds(redis))
    history = RateHistory(rate.get_status)
    assert await fail_everywhere(Loop("rate_history", 0.001, history.record)) > 0


async def test_every_loop_goes_on_when_a_hold_has_a_reason_of_a_newer_release(loops: list[Loop], redis: Redis) -> None:
    holds = Holds(redis)
    await holds.place_manual("default", "of a newer release")
    await redis.hset("docv:hold:default", "reason", "maintenance_window")
    for loop in loops:
        await loop.run_round()
    hold = await holds.get("default")
    assert hold
    assert (hold.reason, hold.reason.value, hold.is_manual) == ("maintenance_window", "maintenance_window", False)
    samples = await SystemMetrics(redis, {"default": Allowance(rate=10.0)}).collect()
    shown = {labels for labels, value in samples[SharedGauge.HOLDS].items() if value}
    assert shown == {("default", "account", "other")}


@pytest.mark.parametrize("error", [Unforeseen, asyncio.CancelledError, KeyError, RecursionError])
async def test_run_loop_logs_the_kind_and_the_place_of_any_error(error: type[BaseException]) -> None:
    async def fail() -> None:
        raise error("a name that must not be logged")

    async def succeed() -> None: ...

    lines, _ = await run_twice(Loop("some", 0.001, succeed), fail)
    assert [(line["loop"], line["error"]) for line in lines] == [("some", error.__name__)]
    assert "must not be logged" not in str(lines)


async def test_run_loop_doubles_the_pause_with_each_failure_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    fails = iter([True, True, True, True, True, False, True])
    task = asyncio.current_task()
    assert task

    async def sleep(seconds: float, yield_: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        pauses.append(seconds)
        if len(pauses) == 7:
            task.cancel()
        await yield_(0)

    async def run_round() -> None:
        if next(fails):
            raise Unforeseen

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await run_loop(Loop("some", 0.5, run_round))
    task.uncancel()
    assert pauses == [1.0, 2.0, 4.0, 5.0, 5.0, 0.5, 1.0]


async def test_run_loop_cancels_a_round_that_hangs_and_goes_on() -> None:
    hung, went_on = False, asyncio.Event()

    async def run_round() -> None:
        nonlocal hung
        if not hung:
            hung = True
            await asyncio.Event().wait()
        went_on.set()

    with capture_logs() as log:
        task = asyncio.create_task(run_loop(Loop("some", 0.001, run_round), round_seconds=0.01))
        async with asyncio.timeout(60):
            await went_on.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert [(line["event"], line["error"]) for line in log] == [("loop.failed", "TimeoutError")]


async def test_the_watchdog_detects_within_a_minute_a_loop_that_cannot_be_cancelled() -> None:
    now, began, released = [1_000.0], asyncio.Event(), asyncio.Event()
    watchdog = Watchdog(lambda _: None, clock=lambda: now[0])

    async def run_round() -> None:
        began.set()
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    task = asyncio.create_task(run_loop(Loop("some", 0.001, run_round), watchdog))
    await began.wait()
    problem = None
    for _ in range(60):
        now[0] += 1
        watchdog.tick()
        problem = problem or watchdog.problem()
    assert problem == "its loop some has ended or hangs"
    released.set()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
