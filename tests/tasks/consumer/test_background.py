"""The background loops of one worker process, with a real Redis. `test_loop` tests how a loop fails."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, Mock
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, RedisError
from structlog.testing import capture_logs

from tasks.consumer import background as module
from tasks.consumer.background import BackgroundLoops
from tasks.consumer.parts import ConsumerParts, make_consumer_parts
from tasks.ledger.cancellation import Cancellation
from tasks.ledger.ledger import Ledger
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.job import EnqueueOptions, Job, Queue, Trigger
from tasks.queueing.publisher import Publisher, enqueue
from tests.counting import MetricGrowth
from worker.app import make_publishing_app
from worker.broker.redis_transport import paused_queues
from worker.config.accounts import load_accounts
from worker.config.settings import load_settings
from worker.resources import open_resources
from worker.runtime import Runtime
from worker.watchdog import Watchdog


class FailingConsumer:
    """A consumer that records the evaluations without a message, and fails when it may go on."""

    def __init__(self) -> None:
        self.unpublished: list[str] = []
        self.released: list[str] = []
        self.may_go_on = asyncio.Event()

    async def handle_unpublished(self, eval_ids: Sequence[str]) -> None:
        self.unpublished += eval_ids
        await self.may_go_on.wait()
        raise ValueError

    async def release(self, job: Job) -> bool:
        self.released.append(job.eval_id)
        return False


@pytest.fixture
async def parts(redis: Redis, redis_url: str, tmp_path: Path) -> AsyncIterator[ConsumerParts]:
    settings = load_settings(
        api_key="a-key",
        redis_url=redis_url,
        archive_url=(tmp_path / "archive").as_uri(),
        notify_url="http://127.0.0.1:9/nothing-listens-here",
    )
    runtime, accounts = Runtime(drain_seconds=1), load_accounts(settings)
    with closing(Publisher(make_publishing_app(settings))) as publisher:
        async with open_resources(settings, accounts) as resources:
            yield make_consumer_parts(settings, accounts, resources, runtime, publisher, Watchdog())
    await asyncio.to_thread(runtime.close)


def make_loops(parts: ConsumerParts, consumer: Any = None) -> BackgroundLoops:
    return BackgroundLoops(parts, consumer or FailingConsumer())


async def drain(parts: ConsumerParts) -> None:
    parts.runtime.drain()
    while not parts.runtime.draining:  # until its thread has started
        await asyncio.sleep(0)


async def run_round(loops: BackgroundLoops, name: str) -> None:
    await next(loop for loop in loops.loops() if loop.name == name).run_round()


async def test_running_records_leftovers_deregisters_and_notifies_when_the_worker_ends(
    parts: ConsumerParts, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = AsyncMock()
    monkeypatch.setattr(parts.notifier, "stop", stop)
    async with make_loops(parts).running():
        await parts.workers.heartbeat(parts.name, parts.queues)
        paused_queues.is_worker_paused = True
        # Added last: no loop may run before the worker ends.
        parts.leftovers.add(["sandbox/an-evaluation/selfie/1.jpg"])
    assert await parts.leftovers.list_all() == ["sandbox/an-evaluation/selfie/1.jpg"]
    assert await WorkerRegistry(redis).count() == dict.fromkeys(Queue, 0)
    assert not paused_queues
    stop.assert_awaited_once()


async def test_dispatch_processes_evaluations_directly_when_redis_refuses_their_messages(
    parts: ConsumerParts, redis: Redis, eval_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OutOfMemoryError

    monkeypatch.setattr(parts.publisher, "publish", refuse)
    consumer = FailingConsumer()
    loops = make_loops(parts, consumer)
    await Ledger(redis).accept([eval_id], EnqueueOptions(Queue.LIVE, "default", Trigger("enqueue")))
    with capture_logs() as log:
        for _ in range(2):
            await redis.zadd("docv:ledger:queued:live", {eval_id: 1})
            await run_round(loops, "dispatch")
        consumer.may_go_on.set()
        await asyncio.wait(loops._direct_tasks)
    assert consumer.unpublished == [eval_id], "the second round waits for the first"
    assert [(each["loop"], each["error"]) for each in log if each["event"] == "loop.failed"] == [("work", "ValueError")]
    await redis.zadd("docv:ledger:queued:live", {eval_id: 1})
    await run_round(loops, "dispatch")
    await asyncio.wait(loops._direct_tasks)
    assert consumer.unpublished == [eval_id] * 2


@pytest.mark.parametrize(("paused", "is_waiting"), [((), True), ((Queue.BACKFILL,), False)])
async def test_dispatch_reports_to_the_watchdog_only_messages_that_the_worker_may_fetch(
    parts: ConsumerParts,
    redis: Redis,
    eval_id: str,
    monkeypatch: pytest.MonkeyPatch,
    paused: tuple[Queue, ...],
    *,
    is_waiting: bool,
) -> None:
    observed: list[bool] = []
    monkeypatch.setattr(parts.watchdog, "observe_queue", lambda *, waiting: observed.append(waiting))
    order = EnqueueOptions(Queue.BACKFILL, "default", Trigger("enqueue"))
    await enqueue(Ledger(redis), parts.publisher, [eval_id], order)
    for queue in paused:
        paused_queues.pause(queue)
    try:
        await run_round(make_loops(parts), "dispatch")
    finally:
        for queue in paused:
            paused_queues.resume(queue)
    assert observed == [is_waiting]


async def test_loops_do_nothing_when_the_worker_drains(parts: ConsumerParts, redis: Redis) -> None:
    parts.leftovers.add(["sandbox/an-evaluation/selfie/1.jpg"])
    await drain(parts)
    for name in ("presence", "leftovers"):
        await run_round(make_loops(parts), name)
    assert await WorkerRegistry(redis).count() == dict.fromkeys(Queue, 0)
    assert await parts.leftovers.count() == 0


async def test_dispatch_fails_without_reporting_messages_to_the_watchdog_when_redis_is_not_writable(
    parts: ConsumerParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    observed: list[bool] = []
    monkeypatch.setattr(parts.watchdog, "observe_queue", lambda *, waiting: observed.append(waiting))
    monkeypatch.setattr(module, "check_writable", AsyncMock(side_effect=RedisError))
    with pytest.raises(RedisError):
        await run_round(make_loops(parts), "dispatch")
    assert observed == []


async def test_tick_calls_the_watchdog_and_observes_the_lag_of_the_event_loop(
    parts: ConsumerParts, counted: MetricGrowth, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, ticks, loops = iter((10.0, 13.5, 14.25)), Mock(), make_loops(parts)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(parts.watchdog, "tick", ticks)
    for _ in range(3):
        await run_round(loops, "tick")
    assert ticks.call_count == 3
    assert counted["docv_event_loop_lag_seconds_count"] == 2
    assert counted["docv_event_loop_lag_seconds_sum"] == pytest.approx(2.5)


async def test_cancelled_evaluations_are_released_only_if_their_attempt_has_not_begun(
    parts: ConsumerParts, redis: Redis
) -> None:
    eval_ids = [str(uuid4()) for _ in range(3)]
    await parts.ledger.accept(eval_ids, EnqueueOptions(Queue.LIVE, "default", Trigger("enqueue")))
    jobs = await parts.ledger.lease(eval_ids, token="ours")
    consumer = FailingConsumer()
    loops = make_loops(parts, consumer)
    with parts.leases.keep(jobs):
        parts.leases.begin(jobs[0])
        await run_round(loops, "cancellations")
        assert consumer.released == []
        await Cancellation(redis).cancel_evaluations(eval_ids[:2])
        for _ in range(2):
            await run_round(loops, "cancellations")
    assert consumer.released == [eval_ids[1]]


async def test_feed_only_publishes_when_the_worker_drains(
    parts: ConsumerParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed, publish = AsyncMock(return_value=True), AsyncMock()
    monkeypatch.setattr(parts.feeder, "feed_once", feed)
    monkeypatch.setattr(parts.feeder, "publish", publish)
    loop = next(loop for loop in make_loops(parts).loops() if loop.name == "feed")
    assert await loop.run_round() is True
    publish.assert_not_awaited()
    await drain(parts)
    assert await loop.run_round() is False
    assert (feed.await_count, publish.await_count) == (1, 1)
