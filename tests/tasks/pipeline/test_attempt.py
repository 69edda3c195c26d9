import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from unittest.mock import AsyncMock
from uuid import uuid4

import aiohttp
import pytest
import structlog
from obstore.store import MemoryStore
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.contextvars import merge_contextvars
from typing_extensions import Buffer

from scripts.simulator.expected import expected_outcome
from scripts.simulator.options import SimulatorOptions
from scripts.simulator.scenarios import Scenario, eval_id_for
from scripts.simulator.server import Simulator, start_simulator
from tasks.bundle.unpacker import BundleUnpacker
from tasks.bundle.zip import Limits
from tasks.errors import Fault, LeaseLost, StorageError
from tasks.ledger.leases import LeaseKeeper
from tasks.ledger.ledger import Ledger
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.evaluation import Evaluation
from tasks.model.evidence import EvaluationFacts
from tasks.model.job import EnqueueOptions, Job, Queue, Trigger
from tasks.model.outcome import ArchiveResult, Evidence, ManifestOutcome, Outcome
from tasks.pipeline import erased_meanwhile
from tasks.pipeline.attempt import attempt
from tasks.pipeline.manifest_builder import build_tombstone_without_request
from tasks.pipeline.pipeline import LeaseWatch, PipelineContext
from tasks.pipeline.retention import RetentionPolicy
from tasks.pipeline.upload import UploadTarget
from tasks.resilience.archive_gate import ArchiveGate
from tasks.resilience.circuit_breaker import CircuitBreaker
from tasks.resilience.holds import ARCHIVE, OUTAGE_BACKOFF, Holds, Reason, failures_key, hold_key
from tasks.resilience.rate_limiter import RateLimiter
from tasks.resilience.retry import RetryPolicy
from tasks.resilience.worker_pause import WorkerPause
from tasks.riskos.client import RiskOSClient
from tasks.riskos.download import DownloadOptions
from tasks.storage.bucket import Bucket, ListedObject, ObjectAttributes, S3Bucket, StoredObject
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.manifest import StoredManifest, read_manifest, utc_now
from tasks.storage.manifest_records import ErasedKindRecord, ErasedRecord
from tasks.telemetry import log_events
from tests.counting import MetricGrowth
from tests.disposals import dispose_in_store, make_schedule
from tests.riskos import KEY, Clock
from worker.config.settings import Settings
from worker.logs import with_about
from worker.metrics.worker_metrics import Step

RUN = "2026-q3"
LEASE = 3600.0
ATTEMPTS = 3
_PARKED = "docv:ledger:parked"


@dataclass
class AttemptHarness:
    """A ledger, and the context in which its evaluations are archived.

    Attributes:
        ledger: the ledger in the test's Redis.
        context: the context of an attempt.
        clock: advances instead of waiting.
    """

    ledger: Ledger
    context: PipelineContext
    clock: Clock

    async def accept(self, *eval_ids: str) -> None:
        await self.ledger.accept(eval_ids, EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run=RUN)))

    async def lease(self, *eval_ids: str, worker: str = "one") -> list[Job]:
        return await self.ledger.lease(eval_ids, token=worker)

    async def accept_and_lease(self, scenario: Scenario) -> Job:
        """Accept and lease one evaluation."""
        await self.accept(eval_id_for(scenario, 7))
        (job,) = await self.lease(eval_id_for(scenario, 7))
        return job

    async def attempt(self, job: Job) -> bool:
        return await attempt(job, self.context, self.ledger)

    async def claim(self) -> list[str]:
        """Return due evaluations, as the loop of a worker publishes them."""
        of_held = {"default": dict.fromkeys(Queue, 1000)}
        claimed = await self.ledger.claim(patience=dict.fromkeys(Queue, LEASE), of_held=of_held)
        return [eval_id for eval_ids in claimed.values() for eval_id in eval_ids]

    async def make_due(self) -> list[str]:
        """Let time pass until all holds are over and all parked evaluations are due. Return the due evaluations."""
        await self.clock.let_time_pass()
        parked = await self.clock.redis.zrange(_PARKED, 0, -1)
        if parked:
            await self.clock.redis.zadd(_PARKED, dict.fromkeys(parked, 0))
        return await self.claim()

    async def lease_again(self, job: Job) -> Job:
        """Return the job as the next worker leases it when it is due."""
        assert await self.make_due() == [job.eval_id]
        (again,) = await self.lease(job.eval_id, worker="another")
        return again

    async def outcomes(self) -> dict[Outcome, int]:
        counters = await self.ledger.runs.get_counters(RUN)
        return {outcome: count for outcome, count in counters.outcomes.items() if count}

    async def manifest_outcome(self, eval_id: str) -> Outcome | None:
        found = await read_manifest(self.context.manifests, Evaluation(eval_id, "sandbox"))
        return found.manifest.outcome if found else None


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with await start_simulator(SimulatorOptions(api_key=KEY, image_bytes=1_000, slow_seconds=0.1)) as simulator:
        yield simulator


def _make_context(client: RiskOSClient) -> PipelineContext:
    bucket = S3Bucket(MemoryStore())
    return PipelineContext(
        client, ArchiveGate(client.holds, client.breaker), UploadTarget(bucket), bucket, BundleUnpacker(Limits())
    )


@pytest.fixture
async def harness(simulator: Simulator, redis: "Redis") -> AsyncIterator[AttemptHarness]:
    clock = Clock(redis)
    options = DownloadOptions(no_documents_texts=Settings().no_documents_texts)
    async with aiohttp.ClientSession() as http:
        client = clock.make_client(
            simulator.url, http, options, RetryPolicy(attempts=ATTEMPTS, quick_attempts=2, quick_pause=0.0)
        )
        yield AttemptHarness(Ledger(redis, LEASE), _make_context(client), clock)


@pytest.fixture(autouse=True)
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Yield the logged events. Each test has its own logger, because others may already be configured."""
    with structlog.testing.capture_logs(processors=[merge_contextvars, with_about]) as events:
        monkeypatch.setattr(log_events, "_log", structlog.get_logger("docv.archive"))
        yield events


# A whole run


async def test_every_scenario_reaches_its_outcome_and_the_counters_add_up(harness: AttemptHarness) -> None:
    scenarios = {eval_id_for(scenario, 7): scenario for scenario in Scenario}
    await harness.accept(*scenarios)
    waiting = list(scenarios)
    for _ in range(30):  # more rounds than any scenario needs
        for job in await harness.lease(*waiting):
            await harness.attempt(job)
        waiting = await harness.make_due()

    expected = Counter(map(expected_outcome, Scenario))
    assert await harness.outcomes() == expected
    counters = await harness.ledger.runs.get_counters(RUN)
    assert (counters.total, counters.pending) == (len(Scenario), 0)
    for eval_id, scenario in scenarios.items():
        outcome = expected_outcome(scenario)
        assert await harness.manifest_outcome(eval_id) == (None if outcome is Outcome.FAILED else outcome)
    stats = await harness.ledger.get_stats()
    assert stats.dead_letters == expected[Outcome.FAILED]
    assert (stats.leased, stats.parked, *stats.queued.values()) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("scenario", "outcome", "level"),
    [
        (Scenario.DOCUMENTED, ManifestOutcome.ARCHIVED, "info"),
        (Scenario.NO_DOCUMENTS, ManifestOutcome.NO_DOCUMENTS, "info"),
        (Scenario.NOT_FOUND, ManifestOutcome.NOT_FOUND, "warning"),
        (Scenario.REJECTED, ManifestOutcome.REJECTED, "warning"),
        (Scenario.GARBAGE_ALWAYS, ManifestOutcome.UNREADABLE, "warning"),
    ],
)
async def test_an_unchanged_evaluation_is_counted_and_logged_with_its_manifest_outcome(
    harness: AttemptHarness, events: list[dict[str, Any]], scenario: Scenario, outcome: ManifestOutcome, level: str
) -> None:
    for _ in range(2):
        await harness.attempt(await harness.accept_and_lease(scenario))
    counters = await harness.ledger.runs.get_counters(RUN)
    assert counters.outcomes[Outcome.UNCHANGED] == 1
    assert {each: count for each, count in counters.unchanged_outcomes.items() if count} == {outcome: 1}
    assert counters.errors == (0 if outcome.ok else 2)
    event = events[-1]
    assert (event["event"], event["manifest_outcome"], event["log_level"]) == ("evaluation.unchanged", outcome, level)


async def test_a_disposed_evaluation_stays_disposed_and_counts_as_unchanged_after_redis_is_restored(
    harness: AttemptHarness, redis: Redis, simulator: Simulator, events: list[dict[str, Any]], counted: MetricGrowth
) -> None:
    store = MemoryStore()
    bucket = S3Bucket(store)
    harness.context = replace(harness.context, target=UploadTarget(bucket), manifests=bucket)
    eval_id = eval_id_for(Scenario.DOCUMENTED, 7)
    await harness.accept(eval_id)
    for key in await redis.keys():
        await redis.copy(key, key, destination_db=1)
    await harness.attempt((await harness.lease(eval_id))[0])
    evaluation = Evaluation(eval_id, "sandbox")
    before = await read_manifest(bucket, evaluation)
    assert before
    await dispose_in_store(store, evaluation, [each.name for each in before.manifest.documents])
    kept = {str(each["path"]) for batch in store.list() for each in batch}

    await redis.swapdb(0, 1)
    await harness.attempt((await harness.lease(eval_id))[0])
    await harness.attempt(await harness.accept_and_lease(Scenario.DOCUMENTED))

    assert simulator.stats().requests == 1
    assert {str(each["path"]) for batch in store.list() for each in batch} == kept
    counters = await harness.ledger.runs.get_counters(RUN)
    assert (counters.unchanged_outcomes[ManifestOutcome.DISPOSED], counters.errors) == (2, 0)
    assert counted['docv_evaluations_total{outcome="unchanged",queue="backfill"}'] == 2
    event = events[-1]
    assert (event["event"], event["manifest_outcome"], event["log_level"]) == (
        "evaluation.unchanged",
        ManifestOutcome.DISPOSED,
        "info",
    )


async def test_an_evaluation_is_counted_and_logged_as_withheld_when_all_its_documents_are_due(
    harness: AttemptHarness, events: list[dict[str, Any]], counted: MetricGrowth
) -> None:
    due = make_schedule({"keep_for": "1d", "clock": "archived"})
    harness.context = replace(harness.context, retention=RetentionPolicy(due, today=lambda: date(2999, 1, 1)))
    await harness.attempt(await harness.accept_and_lease(Scenario.DOCUMENTED))
    assert await harness.outcomes() == {Outcome.WITHHELD: 1}
    assert (await harness.ledger.runs.get_counters(RUN)).errors == 0
    assert counted['docv_evaluations_total{outcome="withheld",queue="backfill"}'] == 1
    assert counted["docv_uploaded_bytes_total"] == 0
    assert (events[-1]["event"], events[-1]["log_level"]) == ("evaluation.withheld", "info")


# One attempt


async def test_an_attempt_observes_each_step(
    harness: AttemptHarness, counted: MetricGrowth, events: list[dict[str, Any]]
) -> None:
    await harness.attempt(await harness.accept_and_lease(Scenario.DOCUMENTED))
    assert counted['docv_evaluations_total{outcome="archived",queue="backfill"}'] == 1
    assert counted['docv_riskos_requests_total{status="2xx"}'] == 1
    assert counted["docv_downloaded_bytes_total"] > counted["docv_uploaded_bytes_total"] / 2 > 0
    assert {step: counted[f'docv_step_seconds_count{{step="{step}"}}'] for step in Step} == dict.fromkeys(Step, 1)
    assert 0 < counted['docv_step_seconds_sum{step="total"}'] < 600
    assert 0 <= events[-1]["seconds"] < 600
    assert counted["docv_live_lag_seconds_count"] == 0


async def test_withheld_images_are_counted_by_reason(harness: AttemptHarness, counted: MetricGrowth) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 7)
    facts = {eval_id: EvaluationFacts((Evidence.UNDER_AGE,))}
    await harness.ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "default", Trigger("webhook"), facts=facts))
    (job,) = await harness.lease(eval_id)
    await harness.attempt(job)
    assert counted['docv_restricted_total{reason="minor",handling="withheld"}'] == 1


async def test_a_success_is_recorded_for_riskos_and_the_archive_only_if_both_were_used(harness: AttemptHarness) -> None:
    redis, breaker = harness.clock.redis, harness.context.client.breaker
    windows = [failures_key(scope) for scope in ("default", ARCHIVE)]
    for window in windows:
        await redis.rpush(window, "one-that-failed")
    for _ in range(2):  # the second attempt finds the manifest
        await harness.attempt(await harness.accept_and_lease(Scenario.DOCUMENTED))
        await breaker.flush()
    assert [await redis.lrange(window, 0, -1) for window in windows] == [["one-that-failed", "+"]] * 2


async def test_a_tombstone_without_a_request_is_counted_by_reason_but_not_as_a_success_of_riskos(
    harness: AttemptHarness, counted: MetricGrowth, events: list[dict[str, Any]]
) -> None:
    eval_id = eval_id_for(Scenario.NO_DOCUMENTS, 7)
    facts = {eval_id: EvaluationFacts((Evidence.NO_DOCV_STEP,))}
    order = EnqueueOptions(Queue.LIVE, "default", Trigger("webhook"), facts=facts, without_request=True)
    await harness.ledger.accept([eval_id], order)
    (job,) = await harness.lease(eval_id)
    await harness.attempt(job)
    assert counted['docv_no_documents_total{reason="no_docv_step"}'] == 1
    assert counted['docv_evaluations_total{outcome="no_documents",queue="live"}'] == 1
    assert sum(counted[f'docv_riskos_requests_total{{status="{status}"}}'] for status in ("2xx", "4xx", "none")) == 0
    assert counted['docv_step_seconds_count{step="rate_limit"}'] == 0
    assert events[-1]["reason"] == "no_docv_step"
    assert not harness.context.client.breaker._successes


async def test_late_evidence_is_counted_by_reason(harness: AttemptHarness, counted: MetricGrowth) -> None:
    job = await harness.accept_and_lease(Scenario.NO_DOCUMENTS)
    await harness.attempt(job)
    facts = {job.eval_id: EvaluationFacts((Evidence.UNDER_AGE,))}
    await harness.ledger.accept([job.eval_id], EnqueueOptions(Queue.LIVE, "default", Trigger("intake"), facts=facts))
    (late,) = await harness.lease(job.eval_id)
    await harness.attempt(late)
    assert counted['docv_no_documents_total{reason="retention_or_unknown"}'] == 1
    assert counted['docv_no_documents_total{reason="minor"}'] == 1
    assert counted['docv_riskos_requests_total{status="4xx"}'] == 1


async def test_a_dead_letter_is_counted_with_its_cause(harness: AttemptHarness, counted: MetricGrowth) -> None:
    options = replace(harness.context.client.options, max_bundle_bytes=10)
    harness.context = replace(harness.context, client=replace(harness.context.client, options=options))
    await harness.attempt(await harness.accept_and_lease(Scenario.DOCUMENTED))
    assert counted['docv_dead_letters_created_total{cause="bundle_too_large"}'] == 1
    assert counted['docv_attempts_failed_total{cause="bundle_too_large"}'] == 1
    assert counted['docv_evaluations_total{outcome="failed",queue="backfill"}'] == 1


@pytest.mark.parametrize(
    ("scenario", "status", "cause"),
    [
        (Scenario.ERROR_500_ALWAYS, "5xx", "service_failed"),
        (Scenario.NOT_FOUND, "4xx", None),
    ],
)
async def test_requests_are_counted_by_status_class(
    harness: AttemptHarness, counted: MetricGrowth, scenario: Scenario, status: str, cause: str | None
) -> None:
    await harness.attempt(await harness.accept_and_lease(scenario))
    assert counted[f'docv_riskos_requests_total{{status="{status}"}}'] >= 1
    assert counted['docv_riskos_requests_total{status="2xx"}'] == 0
    assert cause is None or counted[f'docv_attempts_failed_total{{cause="{cause}"}}'] == 1


async def test_a_live_evaluation_is_timed_from_its_first_live_order(
    harness: AttemptHarness, counted: MetricGrowth, redis: Redis
) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 8)
    await harness.accept(eval_id)
    long_ago = json.loads(await redis.hget("docv:ledger:entries", eval_id) or "") | {"accepted": 1_000}
    await redis.hset("docv:ledger:entries", eval_id, json.dumps(long_ago))
    await harness.ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "default", Trigger("webhook")))
    await harness.attempt(*await harness.lease(eval_id))
    assert counted["docv_live_lag_seconds_count"] == 1
    assert 0 < counted["docv_live_lag_seconds_sum"] < 60


async def test_every_event_during_an_attempt_has_its_context(
    harness: AttemptHarness, events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def log_and_fail(*_: object) -> ArchiveResult:
        await asyncio.to_thread(structlog.get_logger("another.logger").warning, "a message of another library")
        raise StorageError("create", "a reason")

    monkeypatch.setattr("tasks.pipeline.attempt.archive", log_and_fail)
    jobs = [await harness.accept_and_lease(scenario) for scenario in (Scenario.DOCUMENTED, Scenario.NOT_FOUND)]
    await asyncio.gather(*map(harness.attempt, jobs))
    about = [(event["eval_id"], event["run"], event["attempt"], event["account"]) for event in events]
    assert sorted(about) == sorted((job.eval_id, RUN, 1, "default") for job in jobs for _ in range(2))
    log_events.evaluation_released()
    assert "eval_id" not in events[-1]


async def test_an_evaluation_leaves_the_ledger_when_it_has_an_outcome(
    harness: AttemptHarness, events: list[dict[str, Any]]
) -> None:
    job = await harness.accept_and_lease(Scenario.DOCUMENTED)
    await harness.attempt(job)
    assert await harness.outcomes() == {Outcome.ARCHIVED: 1}
    assert await harness.lease(job.eval_id) == []
    assert await harness.make_due() == []
    (event,) = events
    assert (event["event"], event["eval_id"], event["run"]) == ("evaluation.archived", job.eval_id, RUN)
    assert event["attempt"] == 1
    assert event["log_level"] == "info"


async def test_a_failed_attempt_is_parked_and_counted(
    harness: AttemptHarness, events: list[dict[str, Any]], counted: MetricGrowth
) -> None:
    job = await harness.accept_and_lease(Scenario.ERROR_500_ALWAYS)
    assert await harness.attempt(job)
    assert counted['docv_attempts_failed_total{cause="service_failed"}'] == 1
    assert await harness.lease(job.eval_id) == []
    stats = await harness.ledger.get_stats()
    assert (stats.parked, stats.leased) == (1, 0)
    assert stats.next_due
    assert 30 < stats.next_due <= 90
    (event,) = events
    assert (event["event"], event["cause"], event["attempt"]) == ("evaluation.parked", "service_failed", 1)
    again = await harness.lease_again(job)
    assert (again.attempts, again.lost, again.trigger) == (1, 0, job.trigger)


async def test_the_pause_grows_with_each_attempt(harness: AttemptHarness) -> None:
    job = await harness.accept_and_lease(Scenario.ERROR_500_ALWAYS)
    pauses = []
    for _ in range(ATTEMPTS - 1):
        await harness.attempt(job)
        pauses.append((await harness.ledger.get_stats()).next_due)
        job = await harness.lease_again(job)
    assert pauses == pytest.approx([67, 135], rel=0.2)


async def test_an_evaluation_becomes_a_dead_letter_without_a_manifest_when_attempts_are_used_up(
    harness: AttemptHarness, simulator: Simulator, events: list[dict[str, Any]]
) -> None:
    job = await harness.accept_and_lease(Scenario.HTML_ALWAYS)
    for _ in range(ATTEMPTS - 1):
        await harness.attempt(job)
        job = await harness.lease_again(job)
    assert await harness.outcomes() == {}
    await harness.attempt(job)
    assert await harness.outcomes() == {Outcome.FAILED: 1}
    assert (await harness.ledger.get_stats()).dead_letters == 1
    assert await harness.manifest_outcome(job.eval_id) is None
    assert simulator.stats().requests == ATTEMPTS
    assert await harness.make_due() == []
    assert events[-1]["event"] == "evaluation.failed"
    assert (events[-1]["cause"], events[-1]["attempts"]) == ("unexpected_answer", ATTEMPTS)


async def test_the_request_id_of_the_last_answer_is_in_the_log_and_the_dead_letter(
    harness: AttemptHarness, simulator: Simulator, events: list[dict[str, Any]]
) -> None:
    job = await harness.accept_and_lease(Scenario.HTML_ALWAYS)
    for _ in range(ATTEMPTS - 1):
        await harness.attempt(job)
        job = await harness.lease_again(job)
    await harness.attempt(job)
    (letter,) = [each async for each in harness.ledger.dead_letters.iterate()]
    logged = [event["request_id"] for event in events]
    assert len(set(logged)) == ATTEMPTS
    assert letter.failure.request_id == logged[-1]

    await simulator.stop()
    await harness.attempt(await harness.accept_and_lease(Scenario.DOCUMENTED))
    assert "request_id" not in events[-1]


async def test_an_evaluation_becomes_a_dead_letter_at_once_when_its_bundle_is_too_large(
    harness: AttemptHarness, events: list[dict[str, Any]]
) -> None:
    options = replace(harness.context.client.options, max_bundle_bytes=10)
    harness.context = replace(harness.context, client=replace(harness.context.client, options=options))
    await harness.attempt(await harness.accept_and_lease(Scenario.DOCUMENTED))
    assert await harness.outcomes() == {Outcome.FAILED: 1}
    assert [(event["event"], event["cause"]) for event in events] == [("evaluation.failed", "bundle_too_large")]


@pytest.mark.parametrize("scenario", [Scenario.UNAUTHORIZED_ONCE, Scenario.FORBIDDEN_ONCE])
async def test_a_held_account_costs_no_attempts(
    harness: AttemptHarness, simulator: Simulator, scenario: Scenario
) -> None:
    job = await harness.accept_and_lease(scenario)
    for _ in range(ATTEMPTS + 1):
        simulator.change(refuse_with=401)
        await harness.attempt(job)
        assert await harness.lease(job.eval_id) == []
        job = await harness.lease_again(job)
    assert job.attempts == 0
    simulator.change(refuse_with=None)
    await harness.attempt(job)
    await harness.attempt(await harness.lease_again(job))
    assert await harness.outcomes() == {Outcome.ARCHIVED: 1}


async def test_one_request_is_sent_when_the_account_is_refused(harness: AttemptHarness, simulator: Simulator) -> None:
    simulator.change(refuse_with=401)
    eval_ids = [eval_id_for(Scenario.DOCUMENTED, number) for number in range(20)]
    await harness.accept(*eval_ids)
    for job in await harness.lease(*eval_ids):
        await harness.attempt(job)
    assert simulator.stats().requests == 1
    simulator.change(refuse_with=None)
    for job in await harness.lease(*await harness.make_due()):
        await harness.attempt(job)
    assert await harness.outcomes() == {Outcome.ARCHIVED: 20}


# 403


async def test_an_evaluation_answered_403_is_parked_uncharged_and_then_becomes_a_dead_letter(
    harness: AttemptHarness, events: list[dict[str, Any]]
) -> None:
    job = await harness.accept_and_lease(Scenario.FORBIDDEN_ALWAYS)
    await harness.attempt(job)
    job = await harness.lease_again(job)
    assert (job.attempts, job.forbidden_since is None) == (0, False)
    await harness.attempt(await harness.accept_and_lease(Scenario.DOCUMENTED))
    await harness.attempt(job)
    assert await harness.outcomes() == {Outcome.ARCHIVED: 1, Outcome.FAILED: 1}
    ends = [event for event in events if event["event"] in {"evaluation.parked", "evaluation.failed"}]
    assert [(event["event"], event["cause"]) for event in ends] == [
        ("evaluation.parked", "forbidden"),
        ("evaluation.failed", "forbidden"),
    ]
    assert await harness.manifest_outcome(job.eval_id) is None


async def test_evaluations_answered_403_do_not_hold_up_the_others(
    harness: AttemptHarness, simulator: Simulator
) -> None:
    forbidden = [eval_id_for(Scenario.FORBIDDEN_ALWAYS, number) for number in range(15)]
    others = [eval_id_for(Scenario.DOCUMENTED, number) for number in range(15)]
    mixed = [eval_id for pair in zip(forbidden, others, strict=True) for eval_id in pair]
    await harness.accept(*mixed)
    for job in await harness.lease(*mixed):
        await harness.attempt(job)
    assert await harness.outcomes() == {Outcome.ARCHIVED: 15}
    assert await Holds(harness.clock.redis).list_all() == []
    for job in await harness.lease(*await harness.make_due()):
        await harness.attempt(job)
    assert await harness.outcomes() == {Outcome.ARCHIVED: 15, Outcome.FAILED: 15}
    assert await Holds(harness.clock.redis).list_all() == []
    # Two requests for each forbidden evaluation, one for each of the others, and at most one control.
    assert simulator.stats().requests <= 3 * 15 + 1


async def test_an_account_is_held_when_every_evaluation_is_answered_403(
    harness: AttemptHarness, simulator: Simulator
) -> None:
    simulator.change(refuse_with=403)
    eval_ids = [eval_id_for(Scenario.DOCUMENTED, number) for number in range(30)]
    await harness.accept(*eval_ids)
    for job in await harness.lease(*eval_ids):
        await harness.attempt(job)
    assert simulator.stats().requests == 20
    (hold,) = await Holds(harness.clock.redis).list_all()
    assert hold.reason is Reason.FORBIDDEN
    assert eval_ids[0] in hold.note
    for _ in range(ATTEMPTS):
        for job in await harness.lease(*await harness.make_due()):
            await harness.attempt(job)
    assert await harness.outcomes() == {}
    simulator.change(refuse_with=None)
    for job in await harness.lease(*await harness.make_due()):
        assert job.attempts == 0
        await harness.attempt(job)
    assert await harness.outcomes() == {Outcome.ARCHIVED: 30}


async def test_each_probe_of_a_hold_for_403_uses_a_different_evaluation(
    harness: AttemptHarness, simulator: Simulator
) -> None:
    eval_ids = [eval_id_for(Scenario.FORBIDDEN_ALWAYS, number) for number in range(25)]
    await harness.accept(*eval_ids)
    for job in await harness.lease(*eval_ids):
        await harness.attempt(job)
    probes = []
    for _ in range(5):
        await harness.clock.let_time_pass()
        one = await harness.ledger.claim(
            patience=dict.fromkeys(Queue, LEASE), of_held={"default": dict.fromkeys(Queue, 1)}
        )
        for job in await harness.lease(*one[Queue.BACKFILL]):
            await harness.attempt(job)
            probes.append(job.eval_id)
    assert len(set(probes)) == 5


async def test_an_unexpected_exception_is_retried_and_ends_as_a_dead_letter(
    harness: AttemptHarness, events: list[dict[str, Any]]
) -> None:
    nonsense: Any = "a thousand"
    harness.context = replace(harness.context, unpacker=BundleUnpacker(Limits(max_documents=nonsense)))
    job = await harness.accept_and_lease(Scenario.DOCUMENTED)
    for _ in range(ATTEMPTS - 1):
        await harness.attempt(job)
        job = await harness.lease_again(job)
    await harness.attempt(job)
    assert await harness.outcomes() == {Outcome.FAILED: 1}
    assert [event["event"] for event in events] == ["evaluation.parked"] * (ATTEMPTS - 1) + ["evaluation.failed"]
    assert {event["cause"] for event in events} == {"fault_TypeError"}
    assert all(event["exc_info"] for event in events)


async def test_an_evaluation_becomes_a_dead_letter_without_a_request_when_its_workers_died(
    harness: AttemptHarness, simulator: Simulator, events: list[dict[str, Any]]
) -> None:
    job = await harness.accept_and_lease(Scenario.DOCUMENTED)
    for number in range(ATTEMPTS):
        await harness.ledger.end_leases()
        assert await harness.claim() == [job.eval_id]
        (job,) = await harness.lease(job.eval_id, worker=f"number {number}")
    assert job.lost == ATTEMPTS
    await harness.attempt(job)
    assert await harness.outcomes() == {Outcome.FAILED: 1}
    assert events[-1]["cause"] == "workers_lost"
    assert simulator.stats().requests == 0


@pytest.mark.parametrize("scenario", [Scenario.DOCUMENTED, Scenario.ERROR_500_ALWAYS, Scenario.UNAUTHORIZED_ONCE])
async def test_the_ledger_is_unchanged_when_the_lease_was_lost(
    harness: AttemptHarness, events: list[dict[str, Any]], counted: MetricGrowth, scenario: Scenario
) -> None:
    late = await harness.accept_and_lease(scenario)
    await harness.ledger.end_leases()
    await harness.claim()
    (job,) = await harness.lease(late.eval_id, worker="another")
    assert await harness.attempt(late)
    assert counted['docv_attempts_failed_total{cause="lease_lost"}'] == 1
    assert await harness.outcomes() == {}
    assert await harness.ledger.extend([job]) == []
    assert [event["event"] for event in events] == ["evaluation.lease_lost"]


async def test_an_evaluation_is_counted_once_when_it_was_archived_after_its_lease_was_lost(
    harness: AttemptHarness,
) -> None:
    late = await harness.accept_and_lease(Scenario.DOCUMENTED)
    await harness.ledger.end_leases()
    await harness.claim()
    (job,) = await harness.lease(late.eval_id, worker="another")
    await harness.attempt(late)
    await harness.attempt(job)
    assert await harness.outcomes() == {Outcome.UNCHANGED: 1}


async def test_a_cancelled_attempt_keeps_the_lease(harness: AttemptHarness, simulator: Simulator) -> None:
    simulator.change(slow_seconds=600)
    job = await harness.accept_and_lease(Scenario.SLOW_HEADERS)
    attempting = asyncio.create_task(harness.attempt(job))
    while not simulator.stats().requests:  # the simulator has no event for this
        await asyncio.sleep(0.01)
    attempting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempting
    assert await harness.outcomes() == {}
    assert await harness.ledger.extend([job]) == []
    assert (await harness.ledger.get_stats()).leased == 1


async def test_an_attempt_raises_and_loses_nothing_when_redis_cannot_be_reached(harness: AttemptHarness) -> None:
    job = await harness.accept_and_lease(Scenario.DOCUMENTED)
    unreachable = Redis(unix_socket_path="/unreachable/redis.sock", decode_responses=True, retry=Retry(NoBackoff(), 0))
    client = replace(harness.context.client, rate_limiter=RateLimiter(unreachable), holds=Holds(unreachable))
    with pytest.raises(RedisConnectionError):
        await attempt(job, replace(harness.context, client=client), Ledger(unreachable))
    await unreachable.aclose()
    await harness.attempt(job)
    assert await harness.outcomes() == {Outcome.ARCHIVED: 1}


@pytest.mark.parametrize(
    "scenario", [Scenario.DOCUMENTED, Scenario.REJECTED, Scenario.DAMAGED_ALWAYS, Scenario.HTML_ALWAYS]
)
async def test_logs_contain_no_key_no_name_and_no_body(
    harness: AttemptHarness, events: list[dict[str, Any]], scenario: Scenario
) -> None:
    job = await harness.accept_and_lease(scenario)
    for _ in range(ATTEMPTS):
        await harness.attempt(job)
        if not await harness.make_due():
            break
        (job,) = await harness.lease(job.eval_id)
    assert events
    for secret in (KEY, "user_uploaded", "Doc_Front", "cannot be accepted", "Sign in"):
        assert secret not in str(events)


# An outage

MANY = 40
FEW = 3
"""Number of failures that count as an outage if nothing succeeded for an hour."""
CHARGED = 10
"""Maximum number of attempts that an outage costs before it is detected."""


class FailingBucket:
    """A bucket whose operations of some kinds fail until the test repairs it.

    Attributes:
        broken: the kinds of operations that fail.
        fault: the fault of their errors.
        only: part of the key of each affected object.
    """

    def __init__(self, bucket: Bucket, *broken: str, fault: Fault = Fault.UNKNOWN, only: str = "") -> None:
        self._bucket = bucket
        self.broken, self.fault, self.only = set(broken), fault, only

    async def create(self, key: str, data: Buffer, labels: ObjectAttributes) -> None:
        self._check("create", key)
        await self._bucket.create(key, data, labels)

    async def replace(self, key: str, data: bytes, labels: ObjectAttributes, version: str | None) -> None:
        self._check("replace", key)
        await self._bucket.replace(key, data, labels, version)

    async def read(self, key: str, max_bytes: int | None = None) -> StoredObject | None:
        self._check("read", key)
        return await self._bucket.read(key, max_bytes)

    async def digest(self, key: str) -> str | None:
        self._check("read", key)
        return await self._bucket.digest(key)

    async def put_tags(self, key: str, labels: ObjectAttributes) -> None:
        await self._bucket.put_tags(key, labels)

    def _check(self, doing: str, key: str) -> None:
        if doing in self.broken and self.only in key:
            raise StorageError(doing, "PermissionDeniedError", self.fault)


@dataclass
class Outage:
    """Many evaluations, and their attempts during an outage."""

    harness: AttemptHarness
    eval_ids: list[str]

    async def attempt_all(self, due: list[str]) -> None:
        """Make an attempt at each due evaluation, as workers do within one second."""
        self.harness.context.gate.set_hold(await self.harness.context.client.holds.get(ARCHIVE))
        for job in await self.harness.lease(*due):
            await self.harness.attempt(job)

    async def wait_for_probe(self) -> list[str]:
        """Let only the pause pass, and return the claimed evaluations."""
        await self.harness.clock.let_time_pass()
        for hold in await self.harness.context.client.holds.list_all():
            # The next pause lasts until all evaluations are held, even on a slow machine.
            await self.harness.clock.redis.hset(hold_key(hold.scope), "pause", 3_600_000)
        return await self.harness.claim()

    async def count_attempts(self) -> list[int]:
        """Return how many attempts each evaluation in the ledger has been charged."""
        return [job["attempts"] for job in await self._entries()]

    async def count_suspects(self) -> int:
        """Return how many evaluations are suspects, whether or not they were charged an attempt."""
        return sum(job.get("suspect", False) for job in await self._entries())

    async def _entries(self) -> list[dict[str, Any]]:
        return [json.loads(job) for job in await self.harness.clock.redis.hvals("docv:ledger:entries")]

    async def check_all_archived(self) -> None:
        """Make more attempts, and check that all evaluations are archived."""
        for _ in range(ATTEMPTS):
            await self.attempt_all(await self.harness.make_due())
        assert await self.harness.outcomes() == {Outcome.ARCHIVED: MANY}
        assert await self.harness.context.client.holds.list_all() == []


@pytest.fixture
async def outage(harness: AttemptHarness) -> Outage:
    eval_ids = [eval_id_for(Scenario.DOCUMENTED, number) for number in range(MANY)]
    await harness.accept(*eval_ids)
    return Outage(harness, eval_ids)


async def test_an_outage_of_riskos_costs_few_attempts_and_loses_no_evaluation(
    outage: Outage, harness: AttemptHarness, simulator: Simulator
) -> None:
    simulator.change(refuse_with=500)

    await outage.attempt_all(outage.eval_ids)

    assert sum(await outage.count_attempts()) <= CHARGED
    assert FEW <= await outage.count_suspects() < MANY / 2, "evaluations without a request have not failed"
    hold = await harness.context.client.holds.get("default")
    assert hold
    assert (hold.reason, hold.needs_probe) == ("outage", True)
    for _ in range(3):
        charged, requests = sum(await outage.count_attempts()), simulator.stats().requests
        await outage.attempt_all(await outage.wait_for_probe())
        assert simulator.stats().requests == requests + 1, "a probe is one request"
        assert sum(await outage.count_attempts()) <= charged + 1
    assert max(await outage.count_attempts()) <= 1
    stats = await harness.ledger.get_stats()
    assert (stats.dead_letters, stats.leased) == (0, 0)
    assert stats.parked + sum(stats.held.values()) == MANY

    simulator.change(refuse_with=None)
    await outage.check_all_archived()


async def test_the_attempt_is_refunded_when_the_outage_is_detected_while_the_evaluation_is_parked(
    harness: AttemptHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, holds = await harness.accept_and_lease(Scenario.ERROR_500_ALWAYS), harness.context.client.holds
    retry_later = harness.ledger.retry_later

    async def park_and_detect(*arguments: Any, **options: Any) -> None:
        await retry_later(*arguments, **options)
        await holds.place_until_probe("default", Reason.OUTAGE, "", OUTAGE_BACKOFF, probe=False)

    monkeypatch.setattr(harness.ledger, "retry_later", park_and_detect)
    await harness.attempt(job)
    stats = await harness.ledger.get_stats()
    assert (stats.parked, sum(stats.held.values())) == (0, 1)
    (again,) = await harness.lease(*await harness.make_due(), worker="another")
    assert again.attempts == 0


@pytest.mark.parametrize(
    "scenario", [Scenario.GATEWAY_404_ALWAYS, Scenario.GATEWAY_MESSAGE_ALWAYS, Scenario.EMPTY_200_ALWAYS]
)
async def test_answers_of_a_gateway_count_as_an_outage_and_leave_no_tombstone(
    harness: AttemptHarness, simulator: Simulator, scenario: Scenario
) -> None:
    eval_ids = [eval_id_for(scenario, number) for number in range(MANY)]
    await harness.accept(*eval_ids)
    outage = Outage(harness, eval_ids)
    await outage.attempt_all(eval_ids)
    for _ in range(3):
        await outage.attempt_all(await outage.wait_for_probe())
    assert sum(await outage.count_attempts()) == 0
    hold = await harness.context.client.holds.get("default")
    assert hold
    assert (hold.reason, hold.needs_probe) == ("outage", True)
    assert (await harness.ledger.get_stats()).dead_letters == 0
    assert [await harness.manifest_outcome(eval_id) for eval_id in eval_ids] == [None] * MANY

    simulator.change(mended=True)
    await outage.check_all_archived()


async def test_each_evaluation_is_logged_once_and_not_as_failed_during_an_outage(
    outage: Outage, simulator: Simulator, events: list[dict[str, Any]]
) -> None:
    simulator.change(refuse_with=503)
    await outage.attempt_all(outage.eval_ids)
    counts = Counter(event["event"] for event in events)
    assert sum(counts.values()) == MANY
    assert 0 < counts.pop("evaluation.parked") <= CHARGED
    assert "evaluation.failed" not in counts
    assert len(counts) == 1


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (("create", "replace"), Reason.CANNOT_WRITE),
        (("read",), Reason.CANNOT_READ),
        (("replace",), Reason.CANNOT_WRITE),
    ],
)
async def test_an_outage_of_the_archive_costs_few_attempts_and_loses_no_evaluation(
    outage: Outage, harness: AttemptHarness, broken: tuple[str, ...], reason: Reason
) -> None:
    bucket = FailingBucket(harness.context.manifests, *broken)
    harness.context = replace(harness.context, target=UploadTarget(bucket), manifests=bucket)

    await outage.attempt_all(outage.eval_ids)

    assert sum(await outage.count_attempts()) <= CHARGED
    assert await outage.count_suspects() == MANY
    (hold,) = await harness.context.client.holds.list_all()
    assert (hold.scope, hold.reason, hold.needs_probe) == (ARCHIVE, reason, True)
    for _ in range(3):
        charged = sum(await outage.count_attempts())
        await outage.attempt_all(await outage.wait_for_probe())
        assert sum(await outage.count_attempts()) <= charged + 1
        (hold,) = await harness.context.client.holds.list_all()
        assert hold.reason == reason
        assert hold.remaining > 600, "the pause after the probe, not the rest of its lease"
    assert max(await outage.count_attempts()) <= 1
    assert (await harness.ledger.get_stats()).dead_letters == 0

    bucket.broken.clear()
    await outage.check_all_archived()


@pytest.mark.parametrize("count", [1, 3, 9])
@pytest.mark.parametrize("fault", [Fault.SERVICE, Fault.MACHINE])
@pytest.mark.parametrize("broken", ["read", "create", "replace"])
async def test_a_known_fault_of_the_archive_costs_no_attempts(
    harness: AttemptHarness, broken: str, fault: Fault, count: int
) -> None:
    outage = Outage(harness, [eval_id_for(Scenario.DOCUMENTED, number) for number in range(count)])
    await harness.accept(*outage.eval_ids)
    bucket = FailingBucket(harness.context.manifests, broken, fault=fault)
    harness.context = replace(harness.context, target=UploadTarget(bucket), manifests=bucket)
    await outage.attempt_all(outage.eval_ids)
    for _ in range(2 * ATTEMPTS):
        await outage.attempt_all(await outage.wait_for_probe())
        assert await outage.count_attempts() == [0] * count
    (hold,) = await harness.context.client.holds.list_all()
    assert (hold.scope, hold.note) == (ARCHIVE, f"the archive could not {broken} an object: PermissionDeniedError")

    bucket.broken.clear()
    for _ in range(2):
        await outage.attempt_all(await harness.make_due())
    assert await harness.outcomes() == {Outcome.ARCHIVED: count}
    assert await harness.context.client.holds.list_all() == []


@pytest.mark.parametrize("count", [1, 3])
async def test_refused_connections_to_riskos_cost_no_attempts(
    harness: AttemptHarness, simulator: Simulator, count: int
) -> None:
    outage = Outage(harness, [eval_id_for(Scenario.DOCUMENTED, number) for number in range(count)])
    await harness.accept(*outage.eval_ids)
    before = harness.context
    unreachable = replace(before.client.account, url="http://127.0.0.1:1")
    harness.context = replace(before, client=replace(before.client, account=unreachable))
    await outage.attempt_all(outage.eval_ids)
    for _ in range(2 * ATTEMPTS):
        await outage.attempt_all(await outage.wait_for_probe())
        assert await outage.count_attempts() == [0] * count
    (hold,) = await harness.context.client.holds.list_all()
    assert hold.note == "the connection to RiskOS failed: ClientConnectorError, Connection refused"

    harness.context = before
    for _ in range(2):
        await outage.attempt_all(await harness.make_due())
    assert await harness.outcomes() == {Outcome.ARCHIVED: count}


@pytest.mark.parametrize("fault", [Fault.SERVICE, Fault.MACHINE])
async def test_one_evaluation_becomes_a_dead_letter_when_only_its_objects_are_refused(
    harness: AttemptHarness, fault: Fault
) -> None:
    outage = Outage(harness, [eval_id_for(Scenario.DOCUMENTED, number) for number in range(5)])
    await harness.accept(*outage.eval_ids)
    bucket = FailingBucket(harness.context.manifests, "create", fault=fault, only=outage.eval_ids[0])
    harness.context = replace(harness.context, target=UploadTarget(bucket), manifests=bucket)
    await outage.attempt_all(outage.eval_ids)
    for _ in range(ATTEMPTS + 2):
        await outage.attempt_all(await harness.make_due())
    assert await harness.outcomes() == {Outcome.ARCHIVED: 4, Outcome.FAILED: 1}
    assert await harness.context.client.holds.list_all() == []


async def test_an_evaluation_is_released_to_another_worker_when_one_machine_fails(
    harness: AttemptHarness, events: list[dict[str, Any]]
) -> None:
    workers, client = WorkerRegistry(harness.clock.redis), harness.context.client
    await workers.heartbeat("one", [Queue.LIVE])
    await workers.heartbeat("two", [Queue.LIVE])
    pause = WorkerPause(workers, client.holds, "one")
    breaker = CircuitBreaker(harness.clock.redis, "default", client.holds, pause)
    bucket = FailingBucket(harness.context.manifests, "create", fault=Fault.MACHINE)
    failing = replace(harness.context, client=replace(client, breaker=breaker), target=UploadTarget(bucket))
    job = await harness.accept_and_lease(Scenario.DOCUMENTED)
    assert not await attempt(job, failing, harness.ledger)
    assert [event["event"] for event in events] == ["worker.paused", "evaluation.released"]
    assert pause.is_closed
    (again,) = await harness.lease(job.eval_id, worker="two")
    assert (again.attempts, again.lost) == (0, 0)
    assert await attempt(again, harness.context, harness.ledger)
    assert await harness.outcomes() == {Outcome.ARCHIVED: 1}
    assert await client.holds.list_all() == []


async def test_only_the_probe_sends_a_request_while_the_archive_is_on_hold(
    outage: Outage, harness: AttemptHarness, simulator: Simulator
) -> None:
    bucket = FailingBucket(harness.context.manifests, "create")
    harness.context = replace(harness.context, target=UploadTarget(bucket), manifests=bucket)
    await outage.attempt_all(outage.eval_ids)
    requests = simulator.stats().requests

    await outage.attempt_all(await outage.wait_for_probe())
    assert simulator.stats().requests == requests + 1

    bucket.broken.clear()
    due = await outage.wait_for_probe()
    await outage.attempt_all(due[:1])
    assert await harness.outcomes() == {Outcome.ARCHIVED: 1}
    assert await harness.context.client.holds.list_all() == [], "one success ends the hold"
    await outage.attempt_all(due[1:])
    assert await harness.outcomes() == {Outcome.ARCHIVED: len(due)}


async def put_archive_on_hold(harness: AttemptHarness, reason: Reason) -> None:
    """Put the archive on hold; its probe is due."""
    holds = harness.context.client.holds
    await holds.place_until_probe(ARCHIVE, reason, "", OUTAGE_BACKOFF, probe=False)
    await harness.clock.let_time_pass()
    harness.context.gate.set_hold(await holds.get(ARCHIVE))


async def test_a_probe_does_not_end_the_hold_of_the_archive_when_it_wrote_nothing(
    harness: AttemptHarness,
) -> None:
    holds = harness.context.client.holds
    await harness.attempt(await harness.accept_and_lease(Scenario.DOCUMENTED))
    await put_archive_on_hold(harness, Reason.CANNOT_WRITE)

    await harness.attempt(await harness.accept_and_lease(Scenario.DOCUMENTED))

    assert await harness.outcomes() == {Outcome.ARCHIVED: 1, Outcome.UNCHANGED: 1}
    hold = await holds.get(ARCHIVE)
    assert hold
    assert hold.remaining == 0, "another evaluation may probe at once"
    await harness.attempt(await harness.accept_and_lease(Scenario.PASSPORT))
    assert await holds.list_all() == []


@pytest.mark.parametrize("has_lost_lease", [False, True])
async def test_the_probe_of_the_archive_is_released_when_it_failed_before_the_archive_was_used(
    harness: AttemptHarness, *, has_lost_lease: bool
) -> None:
    holds = harness.context.client.holds
    job = await harness.accept_and_lease(Scenario.ERROR_500_ALWAYS)
    if has_lost_lease:
        job = await harness.accept_and_lease(Scenario.NO_DOCUMENTS)
        harness.context = replace(harness.context, confirm_lease=AsyncMock(side_effect=LeaseLost))
    await put_archive_on_hold(harness, Reason.CANNOT_WRITE)
    await harness.attempt(job)
    hold = await holds.get(ARCHIVE)
    assert hold
    assert hold.remaining == 0, "another evaluation may probe at once"


async def test_a_probe_that_only_read_ends_a_hold_for_failed_reads(harness: AttemptHarness) -> None:
    await harness.attempt(await harness.accept_and_lease(Scenario.DOCUMENTED))
    await put_archive_on_hold(harness, Reason.CANNOT_READ)
    await harness.attempt(await harness.accept_and_lease(Scenario.DOCUMENTED))
    assert await harness.outcomes() == {Outcome.ARCHIVED: 1, Outcome.UNCHANGED: 1}
    assert await harness.context.client.holds.list_all() == []


async def test_evaluations_that_always_fail_are_not_an_outage_while_others_are_archived(
    harness: AttemptHarness,
) -> None:
    bad = [eval_id_for(Scenario.ERROR_500_ALWAYS, number) for number in range(20)]
    good = [eval_id_for(Scenario.DOCUMENTED, number) for number in range(20)]
    await harness.accept(*good, *bad)
    for pair in zip(good, bad, strict=True):
        for job in await harness.lease(*pair):
            await harness.attempt(job)
    assert await harness.context.client.holds.list_all() == []
    for _ in range(ATTEMPTS):
        for job in await harness.lease(*await harness.make_due()):
            await harness.attempt(job)
    assert await harness.context.client.holds.list_all() == []
    assert await harness.outcomes() == {Outcome.ARCHIVED: 20, Outcome.FAILED: 20}


async def test_a_redis_error_during_an_attempt_is_raised_and_not_charged(
    harness: AttemptHarness,
) -> None:
    class Gone(FailingBucket):
        async def read(self, _key: str, _max_bytes: int | None = None) -> StoredObject | None:
            raise RedisConnectionError

    job = await harness.accept_and_lease(Scenario.DOCUMENTED)
    bucket = Gone(harness.context.manifests)
    harness.context = replace(harness.context, target=UploadTarget(bucket), manifests=bucket)
    with pytest.raises(RedisConnectionError):
        await harness.attempt(job)
    assert await harness.ledger.extend([job]) == []
    assert (await harness.ledger.get_stats()).leased == 1


# Lost leases and erasures


async def test_nothing_is_written_when_the_evaluation_was_erased_while_its_worker_was_stopped(
    harness: AttemptHarness, events: list[dict[str, Any]]
) -> None:
    job = await harness.accept_and_lease(Scenario.DOCUMENTED)
    clock = iter((0.0, LEASE))
    leases = LeaseKeeper(harness.ledger, lambda: next(clock))
    store = MemoryStore()
    bucket = S3Bucket(store)
    harness.context = replace(
        harness.context, target=UploadTarget(bucket), manifests=bucket, confirm_lease=leases.confirm
    )
    with leases.keep([job]):
        await harness.clock.redis.zadd("docv:ledger:leased", {job.eval_id: 1})
        assert await harness.ledger.erase(job.eval_id)
        await harness.attempt(job)
    assert list(store.list()) == []
    assert [event["event"] for event in events] == ["evaluation.lease_lost"]
    assert await harness.outcomes() == {Outcome.UNCHANGED: 1}, "the outcome of the erasure"
    assert (await harness.ledger.runs.get_counters(RUN)).unchanged_outcomes[ManifestOutcome.ERASED] == 1


class ErasedBefore(FailingBucket):
    """A bucket in which an evaluation is erased just before one of its objects is written."""

    def __init__(self, bucket: Bucket, evaluation: Evaluation, part: str) -> None:
        super().__init__(bucket)
        self._evaluation, self._part = evaluation, part

    async def create(self, key: str, data: Buffer, attributes: ObjectAttributes) -> None:
        await self._erase_before(key)
        await self._bucket.create(key, data, attributes)

    async def replace(self, key: str, data: bytes, attributes: ObjectAttributes, etag: str | None) -> None:
        await self._erase_before(key)
        await self._bucket.replace(key, data, attributes, etag)

    async def _erase_before(self, key: str) -> None:
        if self._part not in key:
            return
        self._part = "none"
        tombstone = build_tombstone_without_request(self._evaluation, JOB)
        erased = ErasedRecord(receipt="receipts/1.json", at=utc_now())
        marker = tombstone.model_copy(update={"erased": erased}).as_json()
        await self._bucket.replace(self._evaluation.manifest_key, marker, ObjectAttributes("application/json"), None)


JOB = Job("", "", Queue.LIVE, "default", refresh=False, attempts=0, lost=0, trigger=Trigger("enqueue"))


@pytest.mark.parametrize("part", ["selfie", "document_back", "manifest.json"])
@pytest.mark.parametrize("is_folder", [True, False])
async def test_written_objects_are_removed_or_recorded_when_the_evaluation_was_erased_meanwhile(
    harness: AttemptHarness, events: list[dict[str, Any]], tmp_path: Path, part: str, *, is_folder: bool
) -> None:
    job = await harness.accept_and_lease(Scenario.DOCUMENTED)
    evaluation, store = Evaluation(job.eval_id, "sandbox"), MemoryStore()
    plain: Bucket = LocalBucket(tmp_path) if is_folder else S3Bucket(store)
    target = UploadTarget(ErasedBefore(plain, evaluation, part))
    recorded: list[str] = []
    leases = LeaseKeeper(harness.ledger)
    harness.context = replace(
        harness.context,
        target=target,
        manifests=plain if part != "manifest.json" else target.bucket,
        confirm_lease=leases.confirm,
        watch=LeaseWatch(leases.is_fresh, leases.attempt, recorded.extend),
    )
    with leases.keep([job]):
        await harness.attempt(job)
    assert await harness.outcomes() == {Outcome.UNCHANGED: 1}
    files = [name for _, _, names in os.walk(tmp_path) for name in names]
    events = [event for event in events if event["event"] == "evaluation.erased_meanwhile"]
    if is_folder and part != "manifest.json":
        assert (files, recorded, events[0]["removed"]) == (["manifest.json"], [], True)
    else:
        assert (len(recorded), events[0]["removed"]) == (3, False)
        assert all(key.startswith(f"sandbox/{job.eval_id}/") for key in recorded)
        assert evaluation.manifest_key not in recorded


async def attempt_until_lease_is_lost(harness: AttemptHarness, when_lost: Callable[[], None]) -> tuple[str, list[str]]:
    """Make an attempt that loses its lease after some uploads. Return its ID and the keys that it recorded."""
    job = await harness.accept_and_lease(Scenario.DOCUMENTED)
    recorded: list[str] = []
    bucket, confirmed = S3Bucket(MemoryStore()), iter((None, None, None))

    async def list_written() -> list[ListedObject]:
        return [each async for some in bucket.list_objects("") for each in some]

    async def confirm(_: Job) -> None:
        if next(confirmed, False) is False:
            # Objects are uploaded concurrently, and unfinished uploads are cancelled.
            while not await list_written():
                await asyncio.sleep(0.001)
            when_lost()
            raise LeaseLost

    harness.context = replace(
        harness.context,
        target=UploadTarget(bucket),
        manifests=bucket,
        confirm_lease=confirm,
        watch=LeaseWatch(record_leftovers=recorded.extend),
    )
    await harness.attempt(job)
    assert await list_written()
    return job.eval_id, recorded


async def test_written_objects_stay_when_the_lease_was_lost_without_an_erasure(harness: AttemptHarness) -> None:
    _, recorded = await attempt_until_lease_is_lost(harness, lambda: None)
    assert recorded == []


async def test_written_objects_are_recorded_when_the_lease_is_lost_and_reading_the_manifest_fails(
    harness: AttemptHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise StorageError("read", "TimeoutError")

    eval_id, recorded = await attempt_until_lease_is_lost(harness, lambda: monkeypatch.setattr(S3Bucket, "read", fail))
    assert recorded
    assert all(key.startswith(f"sandbox/{eval_id}/") for key in recorded)


async def test_written_objects_of_an_erased_kind_are_recorded_when_the_lease_is_lost(
    harness: AttemptHarness, counted: MetricGrowth, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = ErasedKindRecord(kind="document_front", receipt="receipts/1.json", at=utc_now())
    tombstone = build_tombstone_without_request(Evaluation(str(uuid4()), "sandbox"), JOB)
    found = StoredManifest(tombstone.model_copy(update={"erased_kinds": (kind,)}), StoredObject(b"", "1"))
    erase = partial(monkeypatch.setattr, erased_meanwhile, "read_manifest", AsyncMock(return_value=found))

    _, recorded = await attempt_until_lease_is_lost(harness, erase)
    assert [PurePosixPath(key).parent.name for key in recorded] == ["document_front"]
    assert counted["docv_objects_after_erasure_total"] == 1
