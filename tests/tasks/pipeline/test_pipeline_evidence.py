"""Evidence makes a tombstone without a request, or a revision of one."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest
from obstore.store import MemoryStore
from redis.asyncio import Redis

from scripts.simulator.options import SimulatorOptions
from scripts.simulator.scenarios import Scenario, eval_id_for
from scripts.simulator.server import Simulator, start_simulator
from tasks.bundle.unpacker import BundleUnpacker
from tasks.bundle.zip import Limits
from tasks.errors import LeaseLost, ManifestChanged
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job, Queue, Trigger
from tasks.model.outcome import (
    ArchiveResult,
    Evidence,
    ManifestOutcome,
    NoDocumentsReason,
    Outcome,
    Restriction,
    SourceStatus,
)
from tasks.pipeline import pipeline
from tasks.pipeline.pipeline import PipelineContext, archive
from tasks.pipeline.upload import UploadTarget
from tasks.resilience.archive_gate import ArchiveGate
from tasks.resilience.retry import RetryPolicy
from tasks.riskos.download import DownloadOptions
from tasks.storage.bucket import S3Bucket
from tasks.storage.manifest import Manifest, StoredManifest, read_manifest
from tests.archived_bundles import archive_tombstone
from tests.riskos import KEY, Clock
from worker.config.settings import Settings

REASON = NoDocumentsReason
NOTHING = eval_id_for(Scenario.NO_DOCUMENTS, 1)
DOCUMENTS = eval_id_for(Scenario.DOCUMENTED, 1)
NO_STEP: dict[str, Any] = {"evidence": (Evidence.NO_DOCV_STEP,), "without_request": True}


@dataclass
class Archive:
    """An archive in memory, filled from a simulator."""

    ctx: PipelineContext
    simulator: Simulator

    async def archive(self, eval_id: str, **order: Any) -> ArchiveResult:
        job = Job(eval_id, "token", Queue.LIVE, "default", False, 0, 0, Trigger("webhook"))  # noqa: FBT003
        return await archive(replace(job, **order), self.ctx)

    async def stored(self, eval_id: str) -> StoredManifest:
        found = await read_manifest(self.ctx.manifests, Evaluation(eval_id, "sandbox"))
        assert found
        return found

    async def manifest(self, eval_id: str) -> Manifest:
        return (await self.stored(eval_id)).manifest

    async def reason(self, eval_id: str) -> tuple[NoDocumentsReason, int]:
        """Return the reason, and the revision that records it."""
        manifest = await self.manifest(eval_id)
        assert manifest.no_documents
        return manifest.no_documents.reason, manifest.revision

    @property
    def requests(self) -> int:
        return sum(self.simulator.stats().by_evaluation.values())


@pytest.fixture
async def archived(redis: Redis) -> AsyncIterator[Archive]:
    options = SimulatorOptions(api_key=KEY, image_bytes=2_000)
    async with await start_simulator(options) as simulator, aiohttp.ClientSession() as http:
        download_options = DownloadOptions(no_documents_texts=Settings().no_documents_texts)
        client = Clock(redis).make_client(
            simulator.url, http, download_options, RetryPolicy(quick_attempts=3, quick_pause=0.0)
        )
        bucket = S3Bucket(MemoryStore())
        gate = ArchiveGate(client.holds, client.breaker)
        yield Archive(PipelineContext(client, gate, UploadTarget(bucket), bucket, BundleUnpacker(Limits())), simulator)


async def test_a_tombstone_is_written_without_a_request_when_there_was_no_docv_step(archived: Archive) -> None:
    result = await archived.archive(NOTHING, **NO_STEP)
    assert result == ArchiveResult(Outcome.NO_DOCUMENTS, has_written=True, reason=REASON.NO_DOCV_STEP)
    assert await archived.reason(NOTHING) == (REASON.NO_DOCV_STEP, 1)
    assert (await archived.manifest(NOTHING)).response.status == 0
    again = await archived.archive(NOTHING, **NO_STEP)
    assert again == ArchiveResult(Outcome.UNCHANGED, ManifestOutcome.NO_DOCUMENTS)
    assert (await archived.reason(NOTHING), archived.requests) == ((REASON.NO_DOCV_STEP, 1), 0)


async def test_a_new_order_sends_a_request_after_a_tombstone_without_one(archived: Archive) -> None:
    for eval_id, outcome in ((NOTHING, Outcome.NO_DOCUMENTS), (DOCUMENTS, Outcome.ARCHIVED)):
        await archived.archive(eval_id, **NO_STEP)
        assert (await archived.archive(eval_id)).outcome is outcome
    assert archived.requests == 2
    assert await archived.reason(NOTHING) == (REASON.NO_DOCV_STEP, 2)
    assert (await archived.manifest(NOTHING)).response.status == 400
    assert (await archived.manifest(DOCUMENTS)).revision == 2


async def test_the_reason_no_docv_step_is_removed_when_a_step_becomes_known(archived: Archive) -> None:
    await archived.archive(NOTHING, **NO_STEP)
    await archived.archive(NOTHING, evidence=(Evidence.DOCV_STEP,))
    assert await archived.reason(NOTHING) == (REASON.RETENTION_OR_UNKNOWN, 2)


async def test_archived_documents_stay_unchanged_after_an_event_without_a_docv_step(archived: Archive) -> None:
    await archived.archive(DOCUMENTS)
    before = await archived.stored(DOCUMENTS)
    result = await archived.archive(DOCUMENTS, **NO_STEP)
    assert result == ArchiveResult(Outcome.UNCHANGED, ManifestOutcome.ARCHIVED)
    assert await archived.stored(DOCUMENTS) == before


async def test_late_evidence_keeps_held_documents_when_riskos_has_deleted_them(
    archived: Archive,
) -> None:
    await archived.archive(DOCUMENTS)
    await archive_tombstone(archived.ctx.manifests, Evaluation(DOCUMENTS, "sandbox"), (Evidence.NO_DOCV_STEP,))
    before = await archived.stored(DOCUMENTS)
    assert (before.manifest.source_status, before.manifest.no_documents_reason) == (SourceStatus.GONE, None)
    result = await archived.archive(DOCUMENTS, evidence=(Evidence.MILITARY_ID,))
    assert (result.outcome, result.unchanged) == (Outcome.UNCHANGED, ManifestOutcome.ARCHIVED)
    after = (await archived.stored(DOCUMENTS)).manifest
    assert (after.documents, after.source) == (before.manifest.documents, before.manifest.source)
    assert after.restricted
    assert after.restricted.reason is Restriction.MILITARY


async def test_held_documents_are_not_superseded_without_a_request(archived: Archive) -> None:
    await archived.archive(DOCUMENTS)
    result = await archived.archive(DOCUMENTS, refresh=True, **NO_STEP)
    manifest = await archived.manifest(DOCUMENTS)
    assert (result.unchanged, result.answer, result.reason) == (ManifestOutcome.ARCHIVED, None, None)
    assert (manifest.outcome, manifest.source_status) == (Outcome.ARCHIVED, SourceStatus.UNKNOWN)
    assert not any(document.superseded for document in manifest.documents)


async def test_a_tombstone_is_not_committed_when_another_worker_archived_documents_meanwhile(
    archived: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read_too_early(*_: object) -> None:
        monkeypatch.undo()
        await archived.archive(DOCUMENTS)

    monkeypatch.setattr(pipeline, "read_manifest", read_too_early)
    with pytest.raises(ManifestChanged):
        await archived.archive(DOCUMENTS, **NO_STEP)
    assert (await archived.manifest(DOCUMENTS)).outcome is Outcome.ARCHIVED


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (Evidence.MILITARY_ID, REASON.MILITARY),
        (Evidence.UNDER_AGE, REASON.MINOR),
        (Evidence.NO_DOCV_STEP, REASON.NO_DOCV_STEP),
    ],
)
async def test_late_evidence_revises_a_tombstone_without_a_request(
    archived: Archive, evidence: Evidence, reason: NoDocumentsReason
) -> None:
    await archived.archive(NOTHING)
    before = await archived.manifest(NOTHING)
    trigger = Trigger("intake", run="late")
    result = await archived.archive(
        NOTHING, evidence=(evidence,), event_at=20.0, trigger=trigger, without_request=evidence is Evidence.NO_DOCV_STEP
    )
    assert result == ArchiveResult(Outcome.UNCHANGED, ManifestOutcome.NO_DOCUMENTS, has_written=True, reason=reason)
    after = await archived.manifest(NOTHING)
    assert (await archived.reason(NOTHING), archived.requests) == ((reason, 2), 1)
    assert (after.response, after.retrieved_at) == (before.response, before.retrieved_at)
    assert (after.trigger.source, after.trigger.run) == ("intake", "late")
    assert after.event_at == "1970-01-01T00:00:20.000Z"


async def test_known_evidence_makes_no_revision(archived: Archive) -> None:
    both = (Evidence.MILITARY_ID, Evidence.UNDER_AGE)
    await archived.archive(NOTHING, evidence=both)
    for evidence in (both, both[::-1], both[:1], (), (Evidence.DOCV_STEP,)):
        result = await archived.archive(NOTHING, evidence=evidence)
        assert result == ArchiveResult(Outcome.UNCHANGED, ManifestOutcome.NO_DOCUMENTS)
    assert (await archived.reason(NOTHING), archived.requests) == ((REASON.MILITARY, 1), 1)


async def test_a_refresh_without_evidence_keeps_the_reason(archived: Archive) -> None:
    await archived.archive(NOTHING, evidence=(Evidence.UNDER_AGE,))
    assert (await archived.archive(NOTHING, refresh=True)).outcome is Outcome.UNCHANGED
    assert (await archived.reason(NOTHING), archived.requests) == ((REASON.MINOR, 1), 2)


@pytest.mark.parametrize("scenario", [Scenario.NOT_FOUND, Scenario.REJECTED])
async def test_late_evidence_does_not_change_a_not_found_or_rejected_manifest(
    archived: Archive, scenario: Scenario
) -> None:
    eval_id = eval_id_for(scenario, 2)
    await archived.archive(eval_id)
    before = await archived.stored(eval_id)
    assert (await archived.archive(eval_id, evidence=(Evidence.MILITARY_ID,))).outcome is Outcome.UNCHANGED
    assert await archived.stored(eval_id) == before


@pytest.mark.parametrize("late", [False, True])
async def test_no_tombstone_is_written_when_the_lease_was_lost(archived: Archive, *, late: bool) -> None:
    async def lose_lease(_: Job) -> None:
        raise LeaseLost

    if late:
        await archived.archive(NOTHING)
    archived.ctx = replace(archived.ctx, confirm_lease=lose_lease)
    with pytest.raises(LeaseLost):
        await archived.archive(NOTHING, **(NO_STEP | {"evidence": (Evidence.MILITARY_ID,)}))
    found = await read_manifest(archived.ctx.manifests, Evaluation(NOTHING, "sandbox"))
    assert (found is not None and found.manifest.revision) == late


async def test_the_manifest_has_the_time_of_the_evaluation(archived: Archive) -> None:
    await archived.archive(DOCUMENTS, event_at=1_769_860_800.512)
    assert (await archived.manifest(DOCUMENTS)).event_at == "2026-01-31T12:00:00.512Z"
