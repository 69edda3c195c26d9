"""The consumer of one worker process, with a real Redis and a simulated RiskOS."""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis.asyncio import Redis
from redis.exceptions import RedisError
from structlog.testing import capture_logs

from scripts.simulator.bundles import bundle_of, documents_of
from scripts.simulator.options import SimulatorOptions
from scripts.simulator.scenarios import Scenario, eval_id_for
from scripts.simulator.server import Simulator, start_simulator
from tasks.consumer.background import BackgroundLoops
from tasks.consumer.consumer import Consumer
from tasks.consumer.loop import Loop
from tasks.consumer.parts import ConsumerParts, make_consumer_parts
from tasks.consumer.prefetch import PrefetchControl
from tasks.errors import BadMessage
from tasks.ledger.ledger import Ledger
from tasks.ledger.rejected_messages import RejectedMessages
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.memory import buffer_pool
from tasks.memory.spool import Spool
from tasks.model.job import EnqueueOptions, Job, Queue, Trigger
from tasks.model.outcome import Outcome
from tasks.queueing.message import Message
from tasks.queueing.publisher import Publisher
from tasks.resilience.holds import Holds
from tests.faults.in_process_s3 import in_process_s3
from tests.spans import PARENT, PARENT_TRACE, get_trace_id, named, spans  # noqa: F401  # a fixture
from worker.app import make_publishing_app
from worker.broker.redis_transport import paused_queues
from worker.config.accounts import load_accounts
from worker.config.settings import Settings, load_settings
from worker.resources import open_resources
from worker.runtime import Runtime
from worker.watchdog import Watchdog

KEY = "a-key-of-this-test"
_IMAGE_BYTES = 4_000_000


@pytest.fixture
async def riskos() -> AsyncIterator[Simulator]:
    async with await start_simulator(
        SimulatorOptions(api_key=KEY, image_bytes=2_000, slow_seconds=1.0), ["key-of-kyb"]
    ) as simulator:
        yield simulator


@pytest.fixture
def settings(riskos: Simulator, redis_url: str, tmp_path: Path) -> Settings:
    return load_settings(
        api_key=KEY,
        riskos_url=riskos.url,
        redis_url=redis_url,
        archive_url=(tmp_path / "archive").as_uri(),
        rate=500,
        concurrency=4,
    )


def message(*eval_ids: str) -> Message:
    return Message(eval_ids, (), Queue.LIVE, accepted=False, refresh=False, trigger=Trigger("message", run="q3"))


@asynccontextmanager
async def open_parts(settings: Settings, *, drains: bool = False) -> AsyncIterator[ConsumerParts]:
    """Yield the parts of a consumer on the event loop of the test, optionally of a process that drains."""
    runtime, accounts = Runtime(drain_seconds=1), load_accounts(settings)
    if drains:
        runtime.drain()
        while not runtime.draining:  # until its thread has started
            await asyncio.sleep(0)
    try:
        with closing(Publisher(make_publishing_app(settings))) as publisher:
            async with open_resources(settings, accounts) as resources:
                yield make_consumer_parts(settings, accounts, resources, runtime, publisher, Watchdog())
    finally:
        await asyncio.to_thread(runtime.close)


async def handle(settings: Settings, incoming: Message, *, drains: bool = False) -> bool:
    """Handle a message with a consumer on the event loop of the test."""
    async with open_parts(settings, drains=drains) as parts:
        return await Consumer(parts).handle(incoming)


async def test_handle_processes_every_evaluation_of_a_message_with_more_evaluations_than_slots(
    settings: Settings, redis: Redis
) -> None:
    eval_ids = [eval_id_for(Scenario.DOCUMENTED, number) for number in range(20)]
    assert await handle(settings, message(*eval_ids)) is True
    assert (await Ledger(redis).runs.get_counters("q3")).outcomes[Outcome.ARCHIVED] == 20


async def test_handle_releases_every_evaluation_when_the_process_drains(
    settings: Settings, redis: Redis, riskos: Simulator
) -> None:
    eval_ids = [eval_id_for(Scenario.DOCUMENTED, number) for number in range(20)]
    with capture_logs() as logs:
        assert await handle(settings, replace(message(*eval_ids), queue=Queue.BACKFILL), drains=True) is False
    assert [each["event"] for each in logs].count("evaluation.released") == 20
    assert await Ledger(redis).locate(eval_ids) == [("queued", None)] * 20
    assert riskos.stats().requests == 0
    assert Queue.BACKFILL not in paused_queues


async def test_check_refuses_a_message_of_an_unknown_account_unless_it_was_accepted(
    settings: Settings, redis: Redis
) -> None:
    parts: Any = SimpleNamespace(redis=redis, accounts=load_accounts(settings))
    consumer, unknown = Consumer(parts), replace(message("any"), account="aml")
    consumer.check(message("any"))
    consumer.check(replace(unknown, accepted=True))
    with pytest.raises(BadMessage, match="does not have its account"):
        consumer.check(unknown)


def test_handle_expects_the_evaluations_of_a_message_before_it_is_awaited() -> None:
    paused: list[bool] = []
    parts: Any = SimpleNamespace(redis=None, prefetch=PrefetchControl(1, paused.append))
    Consumer(parts).handle(replace(message(*"abcd"), queue=Queue.BACKFILL)).close()
    assert paused == [True]


async def test_the_lease_of_an_ended_evaluation_is_not_kept_while_its_message_is_being_handled(
    settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, lasting = (eval_id_for(Scenario.DOCUMENTED, number) for number in range(2))
    began, may_end, jobs = asyncio.Event(), asyncio.Event(), dict[str, Job]()

    async def attempt(job: Job, *_: object) -> bool:
        jobs[job.eval_id] = job
        if job.eval_id == lasting:
            began.set()
            await may_end.wait()
        return True

    monkeypatch.setattr("tasks.consumer.consumer.attempt", attempt)
    async with open_parts(settings) as parts:
        handling = asyncio.create_task(Consumer(parts).handle(message(ended, lasting)))
        await began.wait()
        await asyncio.sleep(0)
        assert [parts.leases.is_fresh(jobs[eval_id]) for eval_id in (ended, lasting)] == [False, True]
        may_end.set()
        assert await handling is True


async def test_an_evaluation_waits_in_the_ledger_when_its_account_has_its_share_of_the_slots(
    settings: Settings, redis: Redis, riskos: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 1)
    async with open_parts(settings) as parts:
        monkeypatch.setattr(parts.fair_share, "can_start", lambda *_: False)
        assert await Consumer(parts).handle(message(eval_id)) is True
    assert await Ledger(redis).locate([eval_id]) == [("held", "account_busy")]
    assert riskos.stats().requests == 0


async def test_release_returns_true_when_the_lease_was_lost(redis: Redis, eval_id: str) -> None:
    ledger = Ledger(redis)
    await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "default", Trigger("enqueue")))
    (job,) = await ledger.lease([eval_id], token="ours")
    await ledger.complete(job, Outcome.ARCHIVED)
    parts: Any = SimpleNamespace(redis=redis, ledger=ledger)
    with capture_logs() as logs:
        assert await Consumer(parts).release(job) is True
    assert [each["event"] for each in logs] == ["evaluation.lease_lost"]


async def test_reject_keeps_and_logs_the_id_of_a_message_only_if_it_is_a_uuid(redis: Redis, eval_id: str) -> None:
    parts: Any = SimpleNamespace(redis=redis)
    with capture_logs() as logs:
        for message_id in (eval_id.upper(), "any text"):
            await Consumer(parts).reject("bad_message", "it names no account", "live", message_id)
    assert [(each["event"], each["message"]) for each in logs] == [
        ("message.rejected", eval_id),
        ("message.rejected", None),
    ]
    assert {each.message async for each in RejectedMessages(redis).iterate()} == {eval_id, None}


async def test_a_message_is_processed_within_its_producer_s_trace(
    settings: Settings,
    redis: Redis,
    spans: InMemorySpanExporter,  # noqa: F811
) -> None:
    eval_ids = [eval_id_for(Scenario.DOCUMENTED, number) for number in range(300, 302)]
    assert await handle(settings, replace(message(*eval_ids), traceparent=PARENT)) is True
    process, accept = named(spans, "process"), named(spans, "accept")
    attempts = [span for span in spans.get_finished_spans() if span.name == "attempt"]
    assert {get_trace_id(span) for span in (process, accept, *attempts)} == {PARENT_TRACE}
    assert len(attempts) == 2


async def test_handle_processes_the_other_evaluations_when_one_cannot_be_recorded(
    settings: Settings, redis: Redis, riskos: Simulator
) -> None:
    broken, slow = eval_id_for(Scenario.SLOW_HEADERS, 99), eval_id_for(Scenario.SLOW_HEADERS, 100)
    working = asyncio.create_task(handle(settings, message(broken, slow)))
    while {broken, slow} - riskos.stats().by_evaluation.keys():
        await asyncio.sleep(0.01)
    await redis.hset("docv:ledger:entries", broken, "no entry")
    with pytest.raises(RedisError):
        await working
    counters = await Ledger(redis).runs.get_counters("q3")
    assert (counters.outcomes[Outcome.ARCHIVED], counters.pending) == (1, 1)


async def test_handle_requests_an_evaluation_once_when_its_message_is_delivered_twice(
    settings: Settings, redis: Redis, riskos: Simulator
) -> None:
    eval_id = eval_id_for(Scenario.SLOW_HEADERS, 200)
    await asyncio.gather(handle(settings, message(eval_id)), handle(settings, message(eval_id)))
    assert riskos.stats().by_evaluation == {eval_id: 1}
    assert (await Ledger(redis).runs.get_counters("q3")).total == 1


async def test_workers_are_counted_separately_when_they_share_host_name_and_process_id(
    settings: Settings, redis: Redis
) -> None:
    runtime = Runtime(drain_seconds=1)
    accounts = load_accounts(settings)
    with closing(Publisher(make_publishing_app(settings))) as publisher:
        async with open_resources(settings, accounts) as resources:
            for _ in range(2):
                parts = make_consumer_parts(settings, accounts, resources, runtime, publisher, Watchdog())
                presence = next(loop for loop in background_loops(parts) if loop.name == "presence")
                await presence.run_round()
                await presence.run_round()
    await asyncio.to_thread(runtime.close)
    assert await WorkerRegistry(redis).count() == {Queue.LIVE: 2, Queue.BACKFILL: 2}


# Round trips, which do not depend on the speed of the machine


async def test_handle_hashes_and_copies_a_bundle_of_12_mb_once_and_does_not_write_it_to_disk(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed, borrowed, spooled = Counter[str](), list[int](), list[object]()
    real_hash, real_borrow = hashlib.sha256, buffer_pool.borrow

    class CountingHash:
        def __init__(self, data: bytes = b"") -> None:
            self._hash = real_hash()
            self.update(data)

        def update(self, data: bytes) -> None:
            hashed["bytes"] += len(data)
            self._hash.update(data)

        def digest(self) -> bytes:
            return self._hash.digest()

        def hexdigest(self) -> str:
            return self._hash.hexdigest()

    def borrow(size: int) -> memoryview:
        borrowed.append(size)
        return real_borrow(size)

    monkeypatch.setattr(hashlib, "sha256", CountingHash)
    monkeypatch.setattr(buffer_pool, "borrow", borrow)
    monkeypatch.setattr(Spool, "put", lambda *arguments: spooled.append(arguments))

    eval_id = eval_id_for(Scenario.DOCUMENTED, 1)
    documents = sum(map(len, documents_of(eval_id, _IMAGE_BYTES).values()))
    bundle = len(bundle_of(eval_id, _IMAGE_BYTES))
    assert bundle > 11_500_000
    hashed.clear()
    async with await start_simulator(SimulatorOptions(api_key=KEY, image_bytes=_IMAGE_BYTES), []) as simulator:
        assert await handle(settings.model_copy(update={"riskos_url": simulator.url}), message(eval_id))
    assert spooled == []
    assert borrowed == [bundle, documents]
    assert hashed["bytes"] < 1.01 * (bundle + documents)


async def test_handle_makes_at_most_two_round_trips_to_redis_for_each_evaluation_of_a_batch(
    settings: Settings, redis: Redis
) -> None:
    costs = [cost / 50 async for cost in round_trips(settings, redis, Queue.BACKFILL, batch=50, batches=3)]
    assert min(costs) <= 2


async def test_handle_makes_three_round_trips_to_redis_for_a_live_evaluation(settings: Settings, redis: Redis) -> None:
    costs = [cost async for cost in round_trips(settings, redis, Queue.LIVE, batch=1, batches=5)]
    assert min(costs) == 3  # lease, permit, complete


async def test_handle_sends_s3_one_request_for_each_document_and_two_for_the_manifest(
    settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 1)
    async with in_process_s3() as s3:
        for name, value in s3.settings.items():
            monkeypatch.setenv(name, value)
        in_s3 = {"archive_url": s3.settings["DOCV_ARCHIVE_URL"], "s3_endpoint": s3.server.url}
        assert await handle(settings.model_copy(update=in_s3), message(eval_id)) is True
        documents = len(json.loads(s3.read(f"sandbox/{eval_id}/manifest.json"))["documents"])
        requests = Counter((each.method, each.path.endswith("manifest.json")) for each in s3.server.requests[2:])
    assert requests == {("GET", True): 1, ("PUT", False): documents, ("PUT", True): 1}


def background_loops(parts: ConsumerParts) -> list[Loop]:
    return BackgroundLoops(parts, Consumer(parts)).loops()


async def round_trips(
    settings: Settings, redis: Redis, queue: Queue, *, batch: int, batches: int
) -> AsyncIterator[int]:
    """Yield the round trips of each message except the first, which opens the connections."""
    runtime = Runtime(drain_seconds=1)
    fast = settings.model_copy(update={"concurrency": 64, "rate": 10_000.0})
    async with open_resources(fast, load_accounts(fast)) as resources:
        with closing(Publisher(make_publishing_app(fast))) as publisher:
            parts = make_consumer_parts(fast, load_accounts(fast), resources, runtime, publisher, Watchdog())
            consumer = Consumer(parts)
            for number in range(batches + 1):
                eval_ids = [eval_id_for(Scenario.NOT_FOUND, number * batch + each) for each in range(batch)]
                await Ledger(redis).accept(eval_ids, EnqueueOptions(queue, "default", Trigger("enqueue")))
                before = await count_reads(redis)
                assert await consumer.handle(replace(message(*eval_ids), queue=queue, accepted=True)) is True
                if number:
                    yield await count_reads(redis) - before - 1  # without the request that counts them
    await asyncio.to_thread(runtime.close)


async def count_reads(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_reads_processed"])


KYB = """
[kyb]
api_key = "key-of-kyb"
environment = "production"
"""


def with_kyb(settings: Settings, folder: Path) -> Settings:
    file = folder / "accounts.toml"
    file.write_text(KYB)
    return settings.model_copy(update={"accounts": file})


async def test_an_evaluation_of_an_unknown_account_costs_no_attempt_and_is_logged_once(
    settings: Settings, redis: Redis, riskos: Simulator
) -> None:
    eval_ids = [eval_id_for(Scenario.DOCUMENTED, number) for number in range(300, 303)]
    await Ledger(redis).accept(eval_ids, EnqueueOptions(Queue.LIVE, "kyb", Trigger("enqueue", run="q3")))
    with capture_logs() as logs:
        assert await handle(settings, replace(message(*eval_ids), accepted=True)) is True
    assert riskos.stats().requests == 0
    assert await Ledger(redis).locate(eval_ids) == [("held", "account_unknown")] * 3
    entries = [json.loads(text) for text in await redis.hvals("docv:ledger:entries")]
    assert {(entry["attempts"], entry.get("suspect")) for entry in entries} == {(0, None)}
    assert [(each["event"], each["account"]) for each in logs if each["log_level"] == "error"] == [
        ("account.unknown", "kyb")
    ]
    assert [each["event"] for each in logs].count("evaluation.deferred") == 3


async def test_a_worker_releases_all_and_accepts_no_more_when_its_disk_fails_and_another_worker_runs(
    settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    eval_ids = [eval_id_for(Scenario.DOCUMENTED, number) for number in range(20)]
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "sandbox").write_text("not a folder")
    await WorkerRegistry(redis).heartbeat("another", list(Queue))
    runtime = Runtime(drain_seconds=1)
    with closing(Publisher(make_publishing_app(settings))) as publisher:
        async with open_resources(settings, load_accounts(settings)) as resources:
            parts = make_consumer_parts(settings, load_accounts(settings), resources, runtime, publisher, Watchdog())
            consumer = Consumer(parts)
            assert await consumer.handle(message(*eval_ids)) is False
            assert await consumer.handle(message(eval_id_for(Scenario.DOCUMENTED, 20))) is False
            await next(loop for loop in background_loops(parts) if loop.name == "dispatch").run_round()
            assert all(queue in paused_queues for queue in Queue)
            paused_queues.is_worker_paused = False
    await asyncio.to_thread(runtime.close)
    entries = [json.loads(text) for text in await redis.hvals("docv:ledger:entries")]
    assert len(entries) == 20, "the second message was not accepted"
    assert {entry["attempts"] for entry in entries} == {0}
    assert 0 < sum("excused" in entry for entry in entries) < 20, "most attempts never began"
    assert await Ledger(redis).locate(eval_ids) == [("queued", None)] * 20
    assert await Holds(redis).list_all() == []


async def test_an_evaluation_is_parked_before_its_first_request_when_its_message_has_a_delay(
    settings: Settings, redis: Redis, riskos: Simulator
) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 402)
    assert await handle(settings, replace(message(eval_id), settle_seconds=60)) is True
    seconds, _ = await redis.time()
    due = await redis.zscore("docv:ledger:parked", eval_id)
    assert due is not None
    assert due / 1000 - seconds == pytest.approx(60, abs=10)
    assert riskos.stats().requests == 0


async def test_handle_accepts_an_evaluation_for_the_account_that_its_message_names(
    settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 400)
    assert await handle(with_kyb(settings, tmp_path), replace(message(eval_id), account="kyb")) is True
    manifest = json.loads((tmp_path / "archive" / "production" / eval_id / "manifest.json").read_text())
    assert (manifest["account"], manifest["environment"]) == ("kyb", "production")


@pytest.mark.parametrize(
    ("account", "why"), [("aml", "this worker does not have its account"), (None, "it names no account")]
)
async def test_handle_refuses_a_message_when_its_account_is_unknown_or_not_named(
    settings: Settings, redis: Redis, tmp_path: Path, account: str | None, why: str
) -> None:
    both = with_kyb(settings, tmp_path).model_copy(update={"api_key": None})
    (tmp_path / "accounts.toml").write_text(KYB + '[another]\napi_key = "key-of-another"')
    incoming = replace(message(eval_id_for(Scenario.DOCUMENTED, 401)), account=account)
    with pytest.raises(BadMessage, match=why):
        await handle(both, incoming)
    assert (await Ledger(redis).runs.get_counters("q3")).total == 0
