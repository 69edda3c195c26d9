import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from tasks.pipeline.attempt import attempt
from tasks.pipeline.manifest_builder import build_unasked_tombstone
from tasks.pipeline.pipeline import LeaseWatch, PipelineContext
from tasks.pipeline.upload import UploadTarget
from tasks.resilience.archive_gate import ArchiveGate
from tasks.resilience.circuit_breaker import CircuitBreaker
from tasks.resilience.holds import ARCHIVE, OUTAGE_BACKOFF, Holds, Reason, hold_key
from tasks.resilience.rate_limiter import RateLimiter
from tasks.resilience.retry import RetryPolicy
from tasks.resilience.worker_pause import WorkerPause
from tasks.riskos.client import RiskOSClient
from tasks.riskos.download import DownloadOptions
from tasks.storage.bucket import Bucket, ObjectAttributes, S3Bucket, StoredObject
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.manifest import read_manifest, utc_now
from tasks.storage.manifest_records import ErasedRecord
from tasks.telemetry import log_events
from tests.counting import Counted
from tests.riskos import KEY, Clock
from worker.config.settings import Settings
from worker.logs import with_about
from worker.metrics.worker_metrics import Step

RUN = "2026-q3"
LEASE = 3600.0
ATTEMPTS = 3
_PARKED = "docv:ledger:parked"


@dataclass
class Yard:
    """A ledger, and the context in which its evaluations are archived.

    Attributes:
        ledger: of the test's own Redis.
        means: the context of an attempt.
        clock: advances instead of waiting.
    """

    ledger: Ledger
    means: PipelineContext
    clock: Clock

    async def accept(self, *eval_ids: str) -> None:
        await self.ledger.accept(eval_ids, EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run=RUN)))

    async def take(self, *eval_ids: str, worker: str = "one") -> list[Job]:
        return await self.ledger.lease(eval_ids, token=worker)

    async def one(self, scenario: Scenario) -> Job:
        """Accept and lease one evaluation."""
        await self.accept(eval_id_for(scenario, 7))
        (entry,) = await self.take(eval_id_for(scenario, 7))
        return entry

    async def attempt(self, entry: Job) -> None:
        await attempt(entry, self.means, self.ledger)

    async def claim(self) -> list[str]:
        """Return due evaluations, as the loop of a worker publishes them."""
        of_held = {"default": dict.fromkeys(Queue, 1000)}
        claimed = await self.ledger.claim(patience=dict.fromkeys(Queue, LEASE), of_held=of_held)
        return [eval_id for eval_ids in claimed.values() for eval_id in eval_ids]

    async def due(self) -> list[str]:
        """Let time pass until every hold is over, and every parked evaluation is due; return those."""
        await self.clock.passes()
        parked = await self.clock.redis.zrange(_PARKED, 0, -1)
        if parked:
            await self.clock.redis.zadd(_PARKED, dict.fromkeys(parked, 0))
        return await self.claim()

    async def taken_again(self, entry: Job) -> Job:
        """Return the entry as the next worker leases it when it is due."""
        assert await self.due() == [entry.eval_id]
        (again,) = await self.take(entry.eval_id, worker="another")
        return again

    async def outcomes(self) -> dict[Outcome, int]:
        counters = await self.ledger.runs.get_counters(RUN)
        return {outcome: count for outcome, count in counters.outcomes.items() if count}

    async def manifest_outcome(self, eval_id: str) -> Outcome | None:
        found = await read_manifest(self.means.manifests, Evaluation(eval_id, "sandbox"))
        return found.manifest.outcome if found else None


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with await start_simulator(SimulatorOptions(api_key=KEY, image_bytes=1_000, slow_seconds=0.1)) as simulator:
        yield simulator


def _means(line: RiskOSClient) -> PipelineContext:
    bucket = S3Bucket(MemoryStore())
    return PipelineContext(
        line, ArchiveGate(line.holds, line.breaker), UploadTarget(bucket), bucket, BundleUnpacker(Limits())
    )


@pytest.fixture
async def yard(simulator: Simulator, redis: "Redis") -> AsyncIterator[Yard]:
    clock = Clock(redis)
    terms = DownloadOptions(no_documents_texts=Settings().no_documents_texts)
    async with aiohttp.ClientSession() as http:
        line = clock.line_to(
            simulator.url, http, terms, RetryPolicy(attempts=ATTEMPTS, quick_attempts=2, quick_pause=0.0)
        )
        yield Yard(Ledger(redis, LEASE), _means(line), clock)


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Return the logged events; this test has its own logger, since others may be configured already."""
    with structlog.testing.capture_logs(processors=[merge_contextvars, with_about]) as events:
        monkeypatch.setattr(log_events, "_log", structlog.get_logger("docv.archive"))
        yield events


# A whole run


async def test_every_evaluation_of_a_run_ends_as_it_should_and_the_counters_add_up(yard: Yard) -> None:
    scenarios = {eval_id_for(scenario, 7): scenario for scenario in Scenario}
    await yard.accept(*scenarios)
    waiting = list(scenarios)
    for _ in range(30):  # rounds; more than any scenario needs
        for entry in await yard.take(*waiting):
            await yard.attempt(entry)
        waiting = await yard.due()

    expected = Counter(map(expected_outcome, Scenario))
    assert await yard.outcomes() == expected
    counters = await yard.ledger.runs.get_counters(RUN)
    assert (counters.total, counters.pending) == (len(Scenario), 0)
    for eval_id, scenario in scenarios.items():
        outcome = expected_outcome(scenario)
        assert await yard.manifest_outcome(eval_id) == (None if outcome is Outcome.FAILED else outcome)
    census = await yard.ledger.get_stats()
    assert census.dead_letters == expected[Outcome.FAILED]
    assert (census.leased, census.parked, *census.queued.values()) == (0, 0, 0, 0)


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
async def test_an_unchanged_evaluation_is_counted_and_logged_by_the_outcome_in_its_manifest(
    yard: Yard, told: list[dict[str, Any]], scenario: Scenario, outcome: ManifestOutcome, level: str
) -> None:
    for _ in range(2):
        await yard.attempt(await yard.one(scenario))
    counters = await yard.ledger.runs.get_counters(RUN)
    assert counters.outcomes[Outcome.UNCHANGED] == 1
    assert {each: count for each, count in counters.unchanged_outcomes.items() if count} == {outcome: 1}
    assert counters.errors == (0 if outcome.ok else 2)
    event = told[-1]
    assert (event["event"], event["manifest_outcome"], event["log_level"]) == ("evaluation.unchanged", outcome, level)


# One attempt


async def test_an_attempt_is_counted_step_by_step(yard: Yard, counted: Counted) -> None:
    await yard.attempt(await yard.one(Scenario.DOCUMENTED))
    assert counted['docv_evaluations_total{outcome="archived",queue="backfill"}'] == 1
    assert counted['docv_riskos_requests_total{status="2xx"}'] == 1
    assert counted["docv_downloaded_bytes_total"] > counted["docv_uploaded_bytes_total"] / 2 > 0
    assert {step: counted[f'docv_step_seconds_count{{step="{step}"}}'] for step in Step} == dict.fromkeys(Step, 1)
    assert counted["docv_live_lag_seconds_count"] == 0


async def test_a_tombstone_without_a_request_is_counted_by_its_reason_and_says_nothing_of_riskos(
    yard: Yard, counted: Counted, told: list[dict[str, Any]]
) -> None:
    eval_id = eval_id_for(Scenario.NO_DOCUMENTS, 7)
    facts = {eval_id: EvaluationFacts((Evidence.NO_DOCV_STEP,))}
    order = EnqueueOptions(Queue.LIVE, "default", Trigger("webhook"), facts=facts, without_request=True)
    await yard.ledger.accept([eval_id], order)
    (job,) = await yard.take(eval_id)
    await yard.attempt(job)
    assert counted['docv_no_documents_total{reason="no_docv_step"}'] == 1
    assert counted['docv_evaluations_total{outcome="no_documents",queue="live"}'] == 1
    assert sum(counted[f'docv_riskos_requests_total{{status="{status}"}}'] for status in ("2xx", "4xx", "none")) == 0
    assert counted['docv_step_seconds_count{step="rate_limit"}'] == 0
    assert told[-1]["reason"] == "no_docv_step"
    assert not yard.means.client.breaker._successes


async def test_late_evidence_is_counted_by_its_reason(yard: Yard, counted: Counted) -> None:
    job = await yard.one(Scenario.NO_DOCUMENTS)
    await yard.attempt(job)
    facts = {job.eval_id: EvaluationFacts((Evidence.UNDER_AGE,))}
    await yard.ledger.accept([job.eval_id], EnqueueOptions(Queue.LIVE, "default", Trigger("intake"), facts=facts))
    (late,) = await yard.take(job.eval_id)
    await yard.attempt(late)
    assert counted['docv_no_documents_total{reason="retention_or_unknown"}'] == 1
    assert counted['docv_no_documents_total{reason="minor"}'] == 1
    assert counted['docv_riskos_requests_total{status="4xx"}'] == 1


async def test_a_dead_letter_is_counted_with_its_cause(yard: Yard, counted: Counted) -> None:
    terms = replace(yard.means.client.options, max_bundle_bytes=10)
    yard.means = replace(yard.means, client=replace(yard.means.client, options=terms))
    await yard.attempt(await yard.one(Scenario.DOCUMENTED))
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
async def test_requests_are_counted_by_the_class_of_their_answer(
    yard: Yard, counted: Counted, scenario: Scenario, status: str, cause: str | None
) -> None:
    await yard.attempt(await yard.one(scenario))
    assert counted[f'docv_riskos_requests_total{{status="{status}"}}'] >= 1
    assert counted['docv_riskos_requests_total{status="2xx"}'] == 0
    assert cause is None or counted[f'docv_attempts_failed_total{{cause="{cause}"}}'] == 1


async def test_a_live_evaluation_is_timed_from_its_first_live_order(yard: Yard, counted: Counted, redis: Redis) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 8)
    await yard.accept(eval_id)
    long_ago = json.loads(await redis.hget("docv:ledger:entries", eval_id) or "") | {"accepted": 1_000}
    await redis.hset("docv:ledger:entries", eval_id, json.dumps(long_ago))
    await yard.ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "default", Trigger("webhook")))
    await yard.attempt(*await yard.take(eval_id))
    assert counted["docv_live_lag_seconds_count"] == 1
    assert 0 < counted["docv_live_lag_seconds_sum"] < 60


async def test_every_line_that_is_logged_during_an_attempt_says_which_it_is(
    yard: Yard, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def foreign(*_: object) -> ArchiveResult:
        await asyncio.to_thread(structlog.get_logger("another.logger").warning, "a line of somebody else's")
        raise StorageError("create", "a reason")

    monkeypatch.setattr("tasks.pipeline.attempt.archive", foreign)
    entries = [await yard.one(scenario) for scenario in (Scenario.DOCUMENTED, Scenario.NOT_FOUND)]
    await asyncio.gather(*map(yard.attempt, entries))
    about = [(line["eval_id"], line["run"], line["attempt"], line["account"]) for line in told]
    assert sorted(about) == sorted((entry.eval_id, RUN, 1, "default") for entry in entries for _ in range(2))
    log_events.evaluation_released()
    assert "eval_id" not in told[-1]


async def test_an_evaluation_with_an_outcome_is_gone_from_the_ledger(yard: Yard, told: list[dict[str, Any]]) -> None:
    entry = await yard.one(Scenario.DOCUMENTED)
    await yard.attempt(entry)
    assert await yard.outcomes() == {Outcome.ARCHIVED: 1}
    assert await yard.take(entry.eval_id) == []
    assert await yard.due() == []
    (event,) = told
    assert (event["event"], event["eval_id"], event["run"]) == ("evaluation.archived", entry.eval_id, RUN)
    assert event["attempt"] == 1
    assert event["log_level"] == "info"


async def test_a_failed_attempt_is_parked_and_counts(yard: Yard, told: list[dict[str, Any]]) -> None:
    entry = await yard.one(Scenario.ERROR_500_ALWAYS)
    await yard.attempt(entry)
    assert await yard.take(entry.eval_id) == []
    census = await yard.ledger.get_stats()
    assert (census.parked, census.leased) == (1, 0)
    assert census.next_due
    assert 30 < census.next_due <= 90
    (event,) = told
    assert (event["event"], event["cause"], event["attempt"]) == ("evaluation.parked", "service_failed", 1)
    again = await yard.taken_again(entry)
    assert (again.attempts, again.lost, again.trigger) == (1, 0, entry.trigger)


async def test_the_pause_grows_with_each_attempt(yard: Yard) -> None:
    entry = await yard.one(Scenario.ERROR_500_ALWAYS)
    pauses = []
    for _ in range(ATTEMPTS - 1):
        await yard.attempt(entry)
        pauses.append((await yard.ledger.get_stats()).next_due)
        entry = await yard.taken_again(entry)
    assert pauses == pytest.approx([67, 135], rel=0.2)


async def test_when_the_attempts_are_used_up_it_is_a_dead_letter_without_a_manifest(
    yard: Yard, simulator: Simulator, told: list[dict[str, Any]]
) -> None:
    entry = await yard.one(Scenario.HTML_ALWAYS)
    for _ in range(ATTEMPTS - 1):
        await yard.attempt(entry)
        entry = await yard.taken_again(entry)
    assert await yard.outcomes() == {}
    await yard.attempt(entry)
    assert await yard.outcomes() == {Outcome.FAILED: 1}
    assert (await yard.ledger.get_stats()).dead_letters == 1
    assert await yard.manifest_outcome(entry.eval_id) is None
    assert simulator.stats().requests == ATTEMPTS
    assert await yard.due() == []
    assert told[-1]["event"] == "evaluation.failed"
    assert (told[-1]["cause"], told[-1]["attempts"]) == ("unexpected_answer", ATTEMPTS)


async def test_the_request_id_of_the_last_answer_is_in_the_log_and_the_dead_letter(
    yard: Yard, simulator: Simulator, told: list[dict[str, Any]]
) -> None:
    entry = await yard.one(Scenario.HTML_ALWAYS)
    for _ in range(ATTEMPTS - 1):
        await yard.attempt(entry)
        entry = await yard.taken_again(entry)
    await yard.attempt(entry)
    (letter,) = [each async for each in yard.ledger.dead_letters.iterate()]
    logged = [event["request_id"] for event in told]
    assert len(set(logged)) == ATTEMPTS
    assert letter.failure.request_id == logged[-1]

    await simulator.stop()
    await yard.attempt(await yard.one(Scenario.DOCUMENTED))
    assert "request_id" not in told[-1]


async def test_an_evaluation_is_a_dead_letter_at_once_when_it_needs_a_person(
    yard: Yard, told: list[dict[str, Any]]
) -> None:
    terms = replace(yard.means.client.options, max_bundle_bytes=10)
    yard.means = replace(yard.means, client=replace(yard.means.client, options=terms))
    await yard.attempt(await yard.one(Scenario.DOCUMENTED))
    assert await yard.outcomes() == {Outcome.FAILED: 1}
    assert [(event["event"], event["cause"]) for event in told] == [("evaluation.failed", "bundle_too_large")]


@pytest.mark.parametrize("scenario", [Scenario.UNAUTHORIZED_ONCE, Scenario.FORBIDDEN_ONCE])
async def test_an_account_on_hold_costs_no_attempt_and_loses_nothing(
    yard: Yard, simulator: Simulator, scenario: Scenario
) -> None:
    entry = await yard.one(scenario)
    for _ in range(ATTEMPTS + 1):
        simulator.change(refuse_with=401)
        await yard.attempt(entry)
        assert await yard.take(entry.eval_id) == []
        entry = await yard.taken_again(entry)
    assert entry.attempts == 0
    simulator.change(refuse_with=None)
    await yard.attempt(entry)
    await yard.attempt(await yard.taken_again(entry))
    assert await yard.outcomes() == {Outcome.ARCHIVED: 1}


async def test_of_many_evaluations_of_a_held_account_one_finds_it_out_and_the_others_do_not_ask(
    yard: Yard, simulator: Simulator
) -> None:
    simulator.change(refuse_with=401)
    eval_ids = [eval_id_for(Scenario.DOCUMENTED, number) for number in range(20)]
    await yard.accept(*eval_ids)
    for entry in await yard.take(*eval_ids):
        await yard.attempt(entry)
    assert simulator.stats().requests == 1
    simulator.change(refuse_with=None)
    for entry in await yard.take(*await yard.due()):
        await yard.attempt(entry)
    assert await yard.outcomes() == {Outcome.ARCHIVED: 20}


# 403


async def test_an_evaluation_answered_403_is_parked_at_no_cost_then_a_dead_letter(
    yard: Yard, told: list[dict[str, Any]]
) -> None:
    entry = await yard.one(Scenario.FORBIDDEN_ALWAYS)
    await yard.attempt(entry)
    entry = await yard.taken_again(entry)
    assert (entry.attempts, entry.forbidden_since is None) == (0, False)
    await yard.attempt(await yard.one(Scenario.DOCUMENTED))
    await yard.attempt(entry)
    assert await yard.outcomes() == {Outcome.ARCHIVED: 1, Outcome.FAILED: 1}
    ends = [event for event in told if event["event"] in {"evaluation.parked", "evaluation.failed"}]
    assert [(event["event"], event["cause"]) for event in ends] == [
        ("evaluation.parked", "forbidden"),
        ("evaluation.failed", "forbidden"),
    ]
    assert await yard.manifest_outcome(entry.eval_id) is None


async def test_evaluations_answered_403_do_not_hold_up_the_others(yard: Yard, simulator: Simulator) -> None:
    forbidden = [eval_id_for(Scenario.FORBIDDEN_ALWAYS, number) for number in range(15)]
    others = [eval_id_for(Scenario.DOCUMENTED, number) for number in range(15)]
    mixed = [eval_id for pair in zip(forbidden, others, strict=True) for eval_id in pair]
    await yard.accept(*mixed)
    for entry in await yard.take(*mixed):
        await yard.attempt(entry)
    assert await yard.outcomes() == {Outcome.ARCHIVED: 15}
    assert await Holds(yard.clock.redis).list_all() == []
    for entry in await yard.take(*await yard.due()):
        await yard.attempt(entry)
    assert await yard.outcomes() == {Outcome.ARCHIVED: 15, Outcome.FAILED: 15}
    assert await Holds(yard.clock.redis).list_all() == []
    # Each forbidden evaluation twice, the others once, and at most one control.
    assert simulator.stats().requests <= 3 * 15 + 1


async def test_an_account_that_may_read_nothing_is_on_hold_and_nothing_is_lost(
    yard: Yard, simulator: Simulator
) -> None:
    simulator.change(refuse_with=403)
    eval_ids = [eval_id_for(Scenario.DOCUMENTED, number) for number in range(30)]
    await yard.accept(*eval_ids)
    for entry in await yard.take(*eval_ids):
        await yard.attempt(entry)
    assert simulator.stats().requests == 20
    (hold,) = await Holds(yard.clock.redis).list_all()
    assert hold.reason is Reason.FORBIDDEN
    assert eval_ids[0] in hold.note
    for _ in range(ATTEMPTS):
        for entry in await yard.take(*await yard.due()):
            await yard.attempt(entry)
    assert await yard.outcomes() == {}
    simulator.change(refuse_with=None)
    for entry in await yard.take(*await yard.due()):
        assert entry.attempts == 0
        await yard.attempt(entry)
    assert await yard.outcomes() == {Outcome.ARCHIVED: 30}


async def test_each_probe_of_a_hold_for_403_is_another_evaluation(yard: Yard, simulator: Simulator) -> None:
    eval_ids = [eval_id_for(Scenario.FORBIDDEN_ALWAYS, number) for number in range(25)]
    await yard.accept(*eval_ids)
    for entry in await yard.take(*eval_ids):
        await yard.attempt(entry)
    probes = []
    for _ in range(5):
        await yard.clock.passes()
        one = await yard.ledger.claim(
            patience=dict.fromkeys(Queue, LEASE), of_held={"default": dict.fromkeys(Queue, 1)}
        )
        for entry in await yard.take(*one[Queue.BACKFILL]):
            await yard.attempt(entry)
            probes.append(entry.eval_id)
    assert len(set(probes)) == 5


async def test_a_fault_of_our_own_loses_nothing_and_ends_as_a_dead_letter(
    yard: Yard, told: list[dict[str, Any]]
) -> None:
    nonsense: Any = "a thousand"
    yard.means = replace(yard.means, unpacker=BundleUnpacker(Limits(max_documents=nonsense)))
    entry = await yard.one(Scenario.DOCUMENTED)
    for _ in range(ATTEMPTS - 1):
        await yard.attempt(entry)
        entry = await yard.taken_again(entry)
    await yard.attempt(entry)
    assert await yard.outcomes() == {Outcome.FAILED: 1}
    assert [event["event"] for event in told] == ["evaluation.parked"] * (ATTEMPTS - 1) + ["evaluation.failed"]
    assert {event["cause"] for event in told} == {"fault_TypeError"}
    assert all(event["exc_info"] for event in told)


async def test_an_evaluation_over_which_workers_die_is_a_dead_letter_and_not_asked_for(
    yard: Yard, simulator: Simulator, told: list[dict[str, Any]]
) -> None:
    entry = await yard.one(Scenario.DOCUMENTED)
    for number in range(ATTEMPTS):
        await yard.ledger.end_leases()
        assert await yard.claim() == [entry.eval_id]
        (entry,) = await yard.take(entry.eval_id, worker=f"number {number}")
    assert entry.lost == ATTEMPTS
    await yard.attempt(entry)
    assert await yard.outcomes() == {Outcome.FAILED: 1}
    assert told[-1]["cause"] == "workers_lost"
    assert simulator.stats().requests == 0


@pytest.mark.parametrize("scenario", [Scenario.DOCUMENTED, Scenario.ERROR_500_ALWAYS, Scenario.UNAUTHORIZED_ONCE])
async def test_a_worker_changes_nothing_in_the_ledger_when_it_has_lost_its_lease(
    yard: Yard, told: list[dict[str, Any]], scenario: Scenario
) -> None:
    late = await yard.one(scenario)
    await yard.ledger.end_leases()
    await yard.claim()
    (entry,) = await yard.take(late.eval_id, worker="another")
    await yard.attempt(late)
    assert await yard.outcomes() == {}
    assert await yard.ledger.extend([entry]) == []
    assert [event["event"] for event in told] == ["evaluation.lease_lost"]


async def test_an_evaluation_is_counted_once_when_it_was_archived_after_its_lease_was_lost(yard: Yard) -> None:
    late = await yard.one(Scenario.DOCUMENTED)
    await yard.ledger.end_leases()
    await yard.claim()
    (entry,) = await yard.take(late.eval_id, worker="another")
    await yard.attempt(late)
    await yard.attempt(entry)
    assert await yard.outcomes() == {Outcome.UNCHANGED: 1}


async def test_an_attempt_that_is_cancelled_leaves_the_lease_as_it_is(yard: Yard, simulator: Simulator) -> None:
    simulator.change(slow_seconds=600)
    entry = await yard.one(Scenario.SLOW_HEADERS)
    attempting = asyncio.create_task(yard.attempt(entry))
    while not simulator.stats().requests:  # the simulator has no event for it
        await asyncio.sleep(0.01)
    attempting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempting
    assert await yard.outcomes() == {}
    assert await yard.ledger.extend([entry]) == []
    assert (await yard.ledger.get_stats()).leased == 1


async def test_a_ledger_that_cannot_be_reached_stops_the_process_and_not_the_evaluation(yard: Yard) -> None:
    entry = await yard.one(Scenario.DOCUMENTED)
    nowhere = Redis(unix_socket_path="/nowhere/redis.sock", decode_responses=True, retry=Retry(NoBackoff(), 0))
    line = replace(yard.means.client, rate_limiter=RateLimiter(nowhere), holds=Holds(nowhere))
    with pytest.raises(RedisConnectionError):
        await attempt(entry, replace(yard.means, client=line), Ledger(nowhere))
    await nowhere.aclose()
    await yard.attempt(entry)
    assert await yard.outcomes() == {Outcome.ARCHIVED: 1}


@pytest.mark.parametrize(
    "scenario", [Scenario.DOCUMENTED, Scenario.REJECTED, Scenario.DAMAGED_ALWAYS, Scenario.HTML_ALWAYS]
)
async def test_logs_contain_no_key_no_name_and_no_body(
    yard: Yard, told: list[dict[str, Any]], scenario: Scenario
) -> None:
    entry = await yard.one(scenario)
    for _ in range(ATTEMPTS):
        await yard.attempt(entry)
        if not await yard.due():
            break
        (entry,) = await yard.take(entry.eval_id)
    assert told
    for secret in (KEY, "user_uploaded", "Doc_Front", "cannot be accepted", "Sign in"):
        assert secret not in str(told)


# An outage

MANY = 40
FEW = 3
"""So many failures are an outage where nothing went well for an hour."""
CHARGED = 10
"""So many attempts an outage may cost before it is known to be one."""


class Broken:
    """A bucket whose operations of some kinds fail until the test repairs it.

    Attributes:
        broken: the kinds.
        fault: the fault.
        only: affects only keys that contain this.
    """

    def __init__(self, bucket: Bucket, *broken: str, fault: Fault = Fault.UNKNOWN, only: str = "") -> None:
        self._bucket = bucket
        self.broken, self.fault, self.only = set(broken), fault, only

    async def create(self, key: str, data: Buffer, labels: ObjectAttributes) -> None:
        self._see("create", key)
        await self._bucket.create(key, data, labels)

    async def replace(self, key: str, data: bytes, labels: ObjectAttributes, version: str | None) -> None:
        self._see("replace", key)
        await self._bucket.replace(key, data, labels, version)

    async def read(self, key: str, max_bytes: int | None = None) -> StoredObject | None:
        self._see("read", key)
        return await self._bucket.read(key, max_bytes)

    async def digest(self, key: str) -> str | None:
        self._see("read", key)
        return await self._bucket.digest(key)

    async def put_tags(self, key: str, labels: ObjectAttributes) -> None:
        await self._bucket.put_tags(key, labels)

    def _see(self, doing: str, key: str) -> None:
        if doing in self.broken and self.only in key:
            raise StorageError(doing, "PermissionDeniedError", self.fault)


@dataclass
class Outage:
    """Many evaluations, and their attempts during an outage."""

    yard: Yard
    eval_ids: list[str]

    async def round(self, due: list[str]) -> None:
        """Make an attempt at each due evaluation, as the workers of one second do."""
        self.yard.means.gate.set_hold(await self.yard.means.client.holds.get(ARCHIVE))
        for entry in await self.yard.take(*due):
            await self.yard.attempt(entry)

    async def probe_is_due(self) -> list[str]:
        """Let only the pause pass; return the evaluations that wait for the hold."""
        await self.yard.clock.passes()
        for hold in await self.yard.means.client.holds.list_all():
            # The next one lasts until all evaluations have been told to wait, however slow this machine is.
            await self.yard.clock.redis.hset(hold_key(hold.scope), "pause", 3_600_000)
        return await self.yard.claim()

    async def attempts(self) -> list[int]:
        """Return how many attempts each evaluation in the ledger has been charged."""
        return [entry["attempts"] for entry in await self._entries()]

    async def suspects(self) -> int:
        """Return how many of them have failed themselves, whether or not they were charged."""
        return sum(entry.get("suspect", False) for entry in await self._entries())

    async def _entries(self) -> list[dict[str, Any]]:
        return [json.loads(entry) for entry in await self.yard.clock.redis.hvals("docv:ledger:entries")]

    async def is_over(self) -> None:
        """Check that all of them are archived."""
        for _ in range(ATTEMPTS):
            await self.round(await self.yard.due())
        assert await self.yard.outcomes() == {Outcome.ARCHIVED: MANY}
        assert await self.yard.means.client.holds.list_all() == []


@pytest.fixture
async def outage(yard: Yard) -> Outage:
    eval_ids = [eval_id_for(Scenario.DOCUMENTED, number) for number in range(MANY)]
    await yard.accept(*eval_ids)
    return Outage(yard, eval_ids)


async def test_an_outage_of_riskos_costs_few_attempts_and_no_evaluation(
    outage: Outage, yard: Yard, simulator: Simulator
) -> None:
    simulator.change(refuse_with=500)

    await outage.round(outage.eval_ids)

    assert sum(await outage.attempts()) <= CHARGED
    assert FEW <= await outage.suspects() < MANY / 2, "who was not asked about has not failed"
    hold = await yard.means.client.holds.get("default")
    assert hold
    assert (hold.reason, hold.needs_probe) == ("outage", True)
    for _ in range(3):
        charged, asked = sum(await outage.attempts()), simulator.stats().requests
        await outage.round(await outage.probe_is_due())
        assert simulator.stats().requests == asked + 1, "a probe is one request"
        assert sum(await outage.attempts()) <= charged + 1
    assert max(await outage.attempts()) <= 1
    census = await yard.ledger.get_stats()
    assert (census.dead_letters, census.leased) == (0, 0)
    assert census.parked + sum(census.held.values()) == MANY

    simulator.change(refuse_with=None)
    await outage.is_over()


@pytest.mark.parametrize(
    "scenario", [Scenario.GATEWAY_404_ALWAYS, Scenario.GATEWAY_MESSAGE_ALWAYS, Scenario.EMPTY_200_ALWAYS]
)
async def test_a_gateway_that_answers_for_riskos_is_an_outage_and_leaves_no_tombstone(
    yard: Yard, simulator: Simulator, scenario: Scenario
) -> None:
    eval_ids = [eval_id_for(scenario, number) for number in range(MANY)]
    await yard.accept(*eval_ids)
    outage = Outage(yard, eval_ids)
    await outage.round(eval_ids)
    for _ in range(3):
        await outage.round(await outage.probe_is_due())
    assert sum(await outage.attempts()) == 0
    hold = await yard.means.client.holds.get("default")
    assert hold
    assert (hold.reason, hold.needs_probe) == ("outage", True)
    assert (await yard.ledger.get_stats()).dead_letters == 0
    assert [await yard.manifest_outcome(eval_id) for eval_id in eval_ids] == [None] * MANY

    simulator.change(mended=True)
    await outage.is_over()


async def test_an_evaluation_that_waits_for_an_outage_is_logged_once_and_not_as_failed(
    outage: Outage, simulator: Simulator, told: list[dict[str, Any]]
) -> None:
    simulator.change(refuse_with=503)
    await outage.round(outage.eval_ids)
    events = Counter(event["event"] for event in told)
    assert sum(events.values()) == MANY
    assert 0 < events.pop("evaluation.parked") <= CHARGED
    assert "evaluation.failed" not in events
    assert len(events) == 1


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (("create", "replace"), Reason.CANNOT_WRITE),
        (("read",), Reason.CANNOT_READ),
        (("replace",), Reason.CANNOT_WRITE),
    ],
)
async def test_an_outage_of_the_archive_costs_few_attempts_and_no_evaluation(
    outage: Outage, yard: Yard, broken: tuple[str, ...], reason: Reason
) -> None:
    bucket = Broken(yard.means.manifests, *broken)
    yard.means = replace(yard.means, target=UploadTarget(bucket), manifests=bucket)

    await outage.round(outage.eval_ids)

    assert sum(await outage.attempts()) <= CHARGED
    assert await outage.suspects() == MANY
    (hold,) = await yard.means.client.holds.list_all()
    assert (hold.scope, hold.reason, hold.needs_probe) == (ARCHIVE, reason, True)
    for _ in range(3):
        charged = sum(await outage.attempts())
        await outage.round(await outage.probe_is_due())
        assert sum(await outage.attempts()) <= charged + 1
        (hold,) = await yard.means.client.holds.list_all()
        assert hold.reason == reason
        assert hold.remaining > 600, "the pause after the probe, and not what is left of its lease"
    assert max(await outage.attempts()) <= 1
    assert (await yard.ledger.get_stats()).dead_letters == 0

    bucket.broken.clear()
    await outage.is_over()


@pytest.mark.parametrize("count", [1, 3, 9])
@pytest.mark.parametrize("fault", [Fault.SERVICE, Fault.MACHINE])
@pytest.mark.parametrize("broken", ["read", "create", "replace"])
async def test_a_fault_of_the_archive_or_the_only_worker_costs_nothing_however_few_there_are(
    yard: Yard, broken: str, fault: Fault, count: int
) -> None:
    outage = Outage(yard, [eval_id_for(Scenario.DOCUMENTED, number) for number in range(count)])
    await yard.accept(*outage.eval_ids)
    bucket = Broken(yard.means.manifests, broken, fault=fault)
    yard.means = replace(yard.means, target=UploadTarget(bucket), manifests=bucket)
    await outage.round(outage.eval_ids)
    for _ in range(2 * ATTEMPTS):
        await outage.round(await outage.probe_is_due())
        assert await outage.attempts() == [0] * count
    (hold,) = await yard.means.client.holds.list_all()
    assert (hold.scope, hold.note) == (ARCHIVE, f"the archive could not {broken} an object: PermissionDeniedError")

    bucket.broken.clear()
    for _ in range(2):
        await outage.round(await yard.due())
    assert await yard.outcomes() == {Outcome.ARCHIVED: count}
    assert await yard.means.client.holds.list_all() == []


@pytest.mark.parametrize("count", [1, 3])
async def test_a_riskos_that_refuses_connections_costs_nothing_however_few_there_are(
    yard: Yard, simulator: Simulator, count: int
) -> None:
    outage = Outage(yard, [eval_id_for(Scenario.DOCUMENTED, number) for number in range(count)])
    await yard.accept(*outage.eval_ids)
    there = yard.means
    nowhere = replace(there.client.account, url="http://127.0.0.1:1")
    yard.means = replace(there, client=replace(there.client, account=nowhere))
    await outage.round(outage.eval_ids)
    for _ in range(2 * ATTEMPTS):
        await outage.round(await outage.probe_is_due())
        assert await outage.attempts() == [0] * count
    (hold,) = await yard.means.client.holds.list_all()
    assert hold.note == "the connection to RiskOS failed: ClientConnectorError, Connection refused"

    yard.means = there
    for _ in range(2):
        await outage.round(await yard.due())
    assert await yard.outcomes() == {Outcome.ARCHIVED: count}


@pytest.mark.parametrize("fault", [Fault.SERVICE, Fault.MACHINE])
async def test_one_evaluation_that_is_always_refused_becomes_a_dead_letter_and_the_others_are_archived(
    yard: Yard, fault: Fault
) -> None:
    outage = Outage(yard, [eval_id_for(Scenario.DOCUMENTED, number) for number in range(5)])
    await yard.accept(*outage.eval_ids)
    bucket = Broken(yard.means.manifests, "create", fault=fault, only=outage.eval_ids[0])
    yard.means = replace(yard.means, target=UploadTarget(bucket), manifests=bucket)
    await outage.round(outage.eval_ids)
    for _ in range(ATTEMPTS + 2):
        await outage.round(await yard.due())
    assert await yard.outcomes() == {Outcome.ARCHIVED: 4, Outcome.FAILED: 1}
    assert await yard.means.client.holds.list_all() == []


async def test_an_evaluation_that_failed_for_a_fault_of_one_machine_is_released_for_another(yard: Yard) -> None:
    workers, client = WorkerRegistry(yard.clock.redis), yard.means.client
    await workers.heartbeat("one", [Queue.LIVE])
    await workers.heartbeat("two", [Queue.LIVE])
    pause = WorkerPause(workers, client.holds, "one")
    breaker = CircuitBreaker(yard.clock.redis, "default", client.holds, pause)
    bucket = Broken(yard.means.manifests, "create", fault=Fault.MACHINE)
    sick = replace(yard.means, client=replace(client, breaker=breaker), target=UploadTarget(bucket))
    entry = await yard.one(Scenario.DOCUMENTED)
    assert not await attempt(entry, sick, yard.ledger)
    assert pause.is_closed
    (again,) = await yard.take(entry.eval_id, worker="two")
    assert (again.attempts, again.lost) == (0, 0)
    assert await attempt(again, yard.means, yard.ledger)
    assert await yard.outcomes() == {Outcome.ARCHIVED: 1}
    assert await client.holds.list_all() == []


async def test_while_the_archive_is_on_hold_riskos_is_asked_by_the_probe_only(
    outage: Outage, yard: Yard, simulator: Simulator
) -> None:
    bucket = Broken(yard.means.manifests, "create")
    yard.means = replace(yard.means, target=UploadTarget(bucket), manifests=bucket)
    await outage.round(outage.eval_ids)
    asked = simulator.stats().requests

    await outage.round(await outage.probe_is_due())
    assert simulator.stats().requests == asked + 1

    bucket.broken.clear()
    due = await outage.probe_is_due()
    await outage.round(due[:1])
    assert await yard.outcomes() == {Outcome.ARCHIVED: 1}
    assert await yard.means.client.holds.list_all() == [], "one that succeeds lets all others go on"
    await outage.round(due[1:])
    assert await yard.outcomes() == {Outcome.ARCHIVED: len(due)}


async def test_a_probe_that_finds_its_evaluation_archived_does_not_prove_that_the_archive_can_be_written_to(
    yard: Yard,
) -> None:
    holds = yard.means.client.holds
    await yard.attempt(await yard.one(Scenario.DOCUMENTED))
    await holds.place_until_probe(ARCHIVE, Reason.CANNOT_WRITE, "", OUTAGE_BACKOFF, probe=False)
    await yard.clock.passes()
    yard.means.gate.set_hold(await holds.get(ARCHIVE))

    await yard.attempt(await yard.one(Scenario.DOCUMENTED))

    assert await yard.outcomes() == {Outcome.ARCHIVED: 1, Outcome.UNCHANGED: 1}
    hold = await holds.get(ARCHIVE)
    assert hold
    assert hold.remaining == 0, "another may probe at once"
    await yard.attempt(await yard.one(Scenario.PASSPORT))
    assert await holds.list_all() == []


async def test_a_handful_that_always_fails_is_no_outage_while_others_are_archived(yard: Yard) -> None:
    bad = [eval_id_for(Scenario.ERROR_500_ALWAYS, number) for number in range(20)]
    good = [eval_id_for(Scenario.DOCUMENTED, number) for number in range(20)]
    await yard.accept(*good, *bad)
    for pair in zip(good, bad, strict=True):
        for entry in await yard.take(*pair):
            await yard.attempt(entry)
    assert await yard.means.client.holds.list_all() == []
    for _ in range(ATTEMPTS):
        for entry in await yard.take(*await yard.due()):
            await yard.attempt(entry)
    assert await yard.means.client.holds.list_all() == []
    assert await yard.outcomes() == {Outcome.ARCHIVED: 20, Outcome.FAILED: 20}


async def test_a_redis_that_fails_in_the_middle_of_an_attempt_gets_out_and_is_no_failure_of_the_evaluation(
    yard: Yard,
) -> None:
    class Gone(Broken):
        async def read(self, _key: str, _max_bytes: int | None = None) -> StoredObject | None:
            raise RedisConnectionError

    entry = await yard.one(Scenario.DOCUMENTED)
    bucket = Gone(yard.means.manifests)
    yard.means = replace(yard.means, target=UploadTarget(bucket), manifests=bucket)
    with pytest.raises(RedisConnectionError):
        await yard.attempt(entry)
    assert await yard.ledger.extend([entry]) == []
    assert (await yard.ledger.get_stats()).leased == 1


# Lost leases and erasures


async def test_nothing_is_written_of_an_evaluation_that_was_erased_while_its_worker_was_stopped(
    yard: Yard, told: list[dict[str, Any]]
) -> None:
    entry = await yard.one(Scenario.DOCUMENTED)
    stood_still = iter((0.0, LEASE))
    leases = LeaseKeeper(yard.ledger, lambda: next(stood_still))
    store = MemoryStore()
    bucket = S3Bucket(store)
    yard.means = replace(yard.means, target=UploadTarget(bucket), manifests=bucket, confirm_lease=leases.confirm)
    with leases.keep([entry]):
        await yard.clock.redis.zadd("docv:ledger:leased", {entry.eval_id: 1})
        assert await yard.ledger.erase(entry.eval_id)
        await yard.attempt(entry)
    assert list(store.list()) == []
    assert [event["event"] for event in told] == ["evaluation.lease_lost"]
    assert await yard.outcomes() == {Outcome.UNCHANGED: 1}, "that of the erasure"
    assert (await yard.ledger.runs.get_counters(RUN)).unchanged_outcomes[ManifestOutcome.ERASED] == 1


class ErasedBefore(Broken):
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
        unasked = build_unasked_tombstone(self._evaluation, JOB)
        erased = ErasedRecord(receipt="receipts/1.json", at=utc_now())
        marker = unasked.model_copy(update={"erased": erased}).as_json()
        await self._bucket.replace(self._evaluation.manifest_key, marker, ObjectAttributes("application/json"), None)


JOB = Job("", "", Queue.LIVE, "default", refresh=False, attempts=0, lost=0, trigger=Trigger("enqueue"))


@pytest.mark.parametrize("part", ["selfie", "document_back", "manifest.json"])
@pytest.mark.parametrize("is_folder", [True, False])
async def test_written_objects_are_removed_or_recorded_when_their_evaluation_was_erased_meanwhile(
    yard: Yard, told: list[dict[str, Any]], tmp_path: Path, part: str, *, is_folder: bool
) -> None:
    entry = await yard.one(Scenario.DOCUMENTED)
    evaluation, store = Evaluation(entry.eval_id, "sandbox"), MemoryStore()
    plain: Bucket = LocalBucket(tmp_path) if is_folder else S3Bucket(store)
    target = UploadTarget(ErasedBefore(plain, evaluation, part))
    recorded: list[str] = []
    leases = LeaseKeeper(yard.ledger)
    yard.means = replace(
        yard.means,
        target=target,
        manifests=plain if part != "manifest.json" else target.bucket,
        confirm_lease=leases.confirm,
        watch=LeaseWatch(leases.is_fresh, leases.attempt, recorded.extend),
    )
    with leases.keep([entry]):
        await yard.attempt(entry)
    assert await yard.outcomes() == {Outcome.UNCHANGED: 1}
    files = [name for _, _, names in os.walk(tmp_path) for name in names]
    events = [event for event in told if event["event"] == "evaluation.erased_meanwhile"]
    if is_folder and part != "manifest.json":
        assert (files, recorded, events[0]["removed"]) == (["manifest.json"], [], True)
    else:
        assert (len(recorded), events[0]["removed"]) == (3, False)
        assert all(key.startswith(f"sandbox/{entry.eval_id}/") for key in recorded)
        assert evaluation.manifest_key not in recorded


async def test_written_objects_stay_when_the_lease_was_lost_without_an_erasure(yard: Yard) -> None:
    entry = await yard.one(Scenario.DOCUMENTED)
    recorded: list[str] = []
    store, confirmed = MemoryStore(), iter((None, None, None))

    async def confirm(_: Job) -> None:
        if next(confirmed, False) is False:
            raise LeaseLost

    bucket = S3Bucket(store)
    yard.means = replace(
        yard.means,
        target=UploadTarget(bucket),
        manifests=bucket,
        confirm_lease=confirm,
        watch=LeaseWatch(record_leftovers=recorded.extend),
    )
    await yard.attempt(entry)
    assert recorded == []
    assert len(list(store.list())) > 0
