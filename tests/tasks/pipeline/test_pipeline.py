import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import aiohttp
import jsonschema
import obstore
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore, S3Store
from redis.asyncio import Redis

from scripts.simulator.bundles import bundle_of, documents_of
from scripts.simulator.damage import wrong_crc
from scripts.simulator.expected import expected_outcome
from scripts.simulator.messages import NO_DOCUMENTS, REJECTED
from scripts.simulator.options import SimulatorOptions
from scripts.simulator.scenarios import Scenario, eval_id_for
from scripts.simulator.server import Simulator, start_simulator
from tasks.bundle.documents import KindPattern
from tasks.bundle.unpacker import BundleUnpacker
from tasks.bundle.zip import Limits
from tasks.errors import (
    ArchiveHeld,
    BlockedError,
    BundleTooLarge,
    Forbidden,
    IntegrityError,
    ManifestChanged,
    RetryableError,
    StorageError,
)
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job, Queue, Trigger
from tasks.model.outcome import ArchiveResult, ManifestOutcome, NoDocumentsReason, Outcome, SourceStatus
from tasks.pipeline.manifest_builder import build_tombstone_without_request
from tasks.pipeline.pipeline import PipelineContext, archive
from tasks.pipeline.upload import UploadTarget
from tasks.resilience.archive_gate import ArchiveGate
from tasks.resilience.holds import ARCHIVE, Hold, Reason
from tasks.resilience.retry import RetryPolicy
from tasks.riskos.download import DownloadOptions
from tasks.storage.bucket import Bucket, ObjectAttributes, S3Bucket
from tasks.storage.encrypted_bucket import EncryptedBucket
from tasks.storage.encryption import Keyring
from tasks.storage.manifest import Manifest, read_manifest, utc_now
from tasks.storage.manifest_records import ErasedRecord
from tests.riskos import (
    KEY,
    Clock,
    Reply,
    ScriptedS3,
    Write,
    bundle_reply,
    json_reply,
    s3_error,
    serve_replies,
    serve_requests,
)
from tests.zips import Raw, forged, zip_of
from worker.config.settings import Settings

IMAGE_BYTES = 2_000
OPTIONS = DownloadOptions(no_documents_texts=Settings().no_documents_texts)
POLICY = RetryPolicy(quick_attempts=3, quick_pause=0.0)
TRIGGER = Trigger("webhook", run="2026-q3", event_type="evaluation_completed", event_id="e-1")
EVAL_ID = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"
SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "manifest.schema.json").read_text())
ATTEMPTS = 3


def make_job(
    eval_id: str,
    *,
    refresh: bool = False,
    even_if_erased: bool = False,
    ordered_at: float | None = None,
    refresh_outcomes: tuple[ManifestOutcome, ...] = (),
) -> Job:
    return Job(
        eval_id,
        "token",
        Queue.LIVE,
        "default",
        refresh,
        attempts=0,
        lost=0,
        trigger=TRIGGER,
        even_if_erased=even_if_erased,
        ordered_at=ordered_at,
        refresh_outcomes=refresh_outcomes,
    )


@dataclass
class ArchivePipeline:
    """An archive in memory, and the context to fill it from one RiskOS.

    Attributes:
        context: the context of the pipeline.
        store: the store of the bucket.
        clock: advances instead of waiting.
    """

    context: PipelineContext
    store: MemoryStore
    clock: Clock

    async def archive(self, eval_id: str, **order: Any) -> Outcome:
        result = await archive(make_job(eval_id, **order), self.context)
        manifest = await self.manifest(eval_id)
        assert result.unchanged == (manifest.manifest_outcome if result.outcome is Outcome.UNCHANGED else None)
        return result.outcome

    async def erase(self, eval_id: str) -> bytes:
        """Replace the manifest with the marker of an erasure, and return the marker."""
        evaluation, bucket = Evaluation(eval_id, "sandbox"), self.context.target.bucket
        before = await read_manifest(bucket, evaluation)
        assert before
        erased = ErasedRecord(receipt="receipts/a.json", at=before.manifest.archived_at)
        marker = before.manifest.model_copy(update={"documents": (), "revision": 2, "previous": None, "erased": erased})
        await bucket.replace(
            evaluation.manifest_key, marker.as_json(), ObjectAttributes("application/json"), before.stored.etag
        )
        return marker.as_json()

    async def archive_with_retries(self, eval_id: str, *, refresh: bool = False) -> Outcome:
        """Make attempts until there is an outcome, as the ledger does."""
        failed = 0
        while failed < ATTEMPTS:
            try:
                return await self.archive(eval_id, refresh=refresh)
            except BlockedError:
                await self.clock.let_time_pass()
            except (RetryableError, Forbidden):
                failed += 1
        return Outcome.FAILED

    def use_bucket(self, bucket: Bucket) -> None:
        """Archive into another bucket from now on."""
        self.context = replace(self.context, target=UploadTarget(bucket), manifests=bucket)

    async def manifest(self, eval_id: str) -> Manifest:
        found = await read_manifest(self.context.manifests, Evaluation(eval_id, "sandbox"))
        assert found
        jsonschema.validate(json.loads(found.stored.data), SCHEMA)
        return found.manifest

    def contents(self) -> dict[str, bytes]:
        """Return every object of the archive."""
        keys = [str(found["path"]) for batch in self.store.list() for found in batch]
        return {key: bytes(obstore.get(self.store, key).bytes()) for key in keys}

    def archived(self, manifest: Manifest) -> dict[str, bytes]:
        """Return the archived bytes of the documents of a manifest by name."""
        contents = self.contents()
        for each in manifest.documents:
            content = contents[each.key]
            assert (each.size, each.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        return {each.name: contents[each.key] for each in manifest.documents}


@asynccontextmanager
async def open_pipeline(
    url: str, redis: "Redis", *, options: DownloadOptions = OPTIONS, limits: Limits | None = None
) -> AsyncIterator[ArchivePipeline]:
    store, clock = MemoryStore(), Clock(redis)
    async with aiohttp.ClientSession() as http:
        client = clock.make_client(url, http, options, POLICY)
        bucket = S3Bucket(store)
        context = PipelineContext(
            client,
            ArchiveGate(client.holds, client.breaker),
            UploadTarget(bucket),
            bucket,
            BundleUnpacker(limits or Limits()),
        )
        yield ArchivePipeline(context, store, clock)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with await start_simulator(
        SimulatorOptions(api_key=KEY, image_bytes=IMAGE_BYTES, slow_seconds=0.1)
    ) as simulator:
        yield simulator


@pytest.fixture
async def pipeline(simulator: Simulator, redis: "Redis") -> AsyncIterator[ArchivePipeline]:
    async with open_pipeline(simulator.url, redis) as pipeline:
        yield pipeline


def count_requests(simulator: Simulator, eval_id: str) -> int:
    return simulator.stats().by_evaluation.get(eval_id, 0)


# All scenarios


@pytest.mark.parametrize("scenario", [each for each in Scenario if expected_outcome(each) is Outcome.ARCHIVED])
async def test_documents_are_archived_byte_for_byte(pipeline: ArchivePipeline, scenario: Scenario) -> None:
    eval_id = eval_id_for(scenario, 7)
    assert await pipeline.archive_with_retries(eval_id) is Outcome.ARCHIVED
    manifest = await pipeline.manifest(eval_id)
    assert pipeline.archived(manifest) == documents_of(eval_id, IMAGE_BYTES)
    assert [each.name for each in manifest.documents] == list(documents_of(eval_id, IMAGE_BYTES))
    before = range(1, manifest.revision)
    assert pipeline.contents().keys() == {
        f"sandbox/{eval_id}/manifest.json",
        *(f"sandbox/{eval_id}/revisions/{each}.json" for each in before),
        *(f"quarantine/sandbox/{eval_id}/{each.sha256}.zip" for each in manifest.quarantined),
        *(each.key for each in manifest.documents),
    }
    assert len(before) == len(manifest.quarantined) == (scenario is Scenario.DAMAGED_ONCE)
    assert manifest.outcome is Outcome.ARCHIVED
    assert (manifest.response.status, manifest.response.message) == (200, None)
    assert manifest.bundle
    sent = bundle_of(eval_id, IMAGE_BYTES)
    assert manifest.bundle.model_dump() == {
        "filename": f"{eval_id}_document.zip",
        "size": len(sent),
        "sha256": hashlib.sha256(sent).hexdigest(),
    }


@pytest.mark.parametrize("scenario", [*NO_DOCUMENTS, Scenario.NOT_FOUND, Scenario.REJECTED])
async def test_a_tombstone_records_the_answer_when_riskos_has_no_documents(
    pipeline: ArchivePipeline, simulator: Simulator, scenario: Scenario
) -> None:
    eval_id = eval_id_for(scenario, 7)
    outcome = await pipeline.archive(eval_id)
    assert outcome is expected_outcome(scenario)
    manifest = await pipeline.manifest(eval_id)
    assert pipeline.contents().keys() == {f"sandbox/{eval_id}/manifest.json"}
    assert (manifest.outcome, manifest.documents, manifest.bundle) == (outcome, (), None)
    assert manifest.response.status == (404 if outcome is Outcome.NOT_FOUND else 400)
    evidence = {
        Scenario.NO_DOCUMENTS_UNSUPPORTED: "Images not available: Document type is not supported for verification.",
        Scenario.NOT_FOUND: "Evaluation not found",
        Scenario.REJECTED: REJECTED["message"],
    }
    assert manifest.response.message
    assert manifest.response.message.lower() == evidence.get(scenario, "No Documents Found").lower()
    reason = manifest.no_documents and manifest.no_documents.reason
    assert reason == (NoDocumentsReason.RETENTION_OR_UNKNOWN if outcome is Outcome.NO_DOCUMENTS else None)
    assert count_requests(simulator, eval_id) == 1


@pytest.mark.parametrize("scenario", [each for each in Scenario if expected_outcome(each) is Outcome.UNREADABLE])
async def test_a_bundle_that_stays_unreadable_is_kept_in_quarantine(
    pipeline: ArchivePipeline, simulator: Simulator, scenario: Scenario
) -> None:
    eval_id = eval_id_for(scenario, 7)
    assert await pipeline.archive(eval_id) is Outcome.UNREADABLE
    assert count_requests(simulator, eval_id) == 2
    manifest = await pipeline.manifest(eval_id)
    assert (manifest.outcome, manifest.no_documents) == (Outcome.UNREADABLE, None)
    assert manifest.unreadable
    assert manifest.bundle
    kept = pipeline.contents()[f"quarantine/sandbox/{eval_id}/{manifest.bundle.sha256}.zip"]
    assert (hashlib.sha256(kept).hexdigest(), len(kept)) == (manifest.bundle.sha256, manifest.bundle.size)
    assert set(pipeline.archived(manifest).items()) <= set(documents_of(eval_id, IMAGE_BYTES).items())
    assert pipeline.contents().keys() == {
        f"sandbox/{eval_id}/manifest.json",
        f"sandbox/{eval_id}/revisions/1.json",
        *(f"quarantine/sandbox/{eval_id}/{each.sha256}.zip" for each in manifest.quarantined),
        *(each.key for each in manifest.documents),
    }


@pytest.mark.parametrize("scenario", [each for each in Scenario if expected_outcome(each) is Outcome.FAILED])
async def test_nothing_is_archived_when_riskos_never_delivers_a_bundle(
    pipeline: ArchivePipeline, simulator: Simulator, scenario: Scenario
) -> None:
    eval_id = eval_id_for(scenario, 7)
    assert await pipeline.archive_with_retries(eval_id) is Outcome.FAILED
    assert pipeline.contents() == {}
    # Only failures of the service and of the connection are retried within an attempt.
    is_quick = scenario in {Scenario.ERROR_500_ALWAYS, Scenario.CUT_SHORT_ALWAYS}
    assert count_requests(simulator, eval_id) >= (2 if is_quick else 1) * ATTEMPTS
    assert simulator.stats().redirects_followed == 0


def test_every_scenario_has_a_tested_outcome() -> None:
    outcomes = {expected_outcome(each) for each in Scenario}
    tombstones = {each for each in Scenario if expected_outcome(each) in _TOMBSTONES}
    assert tombstones == {*NO_DOCUMENTS, Scenario.NOT_FOUND, Scenario.REJECTED}
    assert outcomes == {Outcome.ARCHIVED, Outcome.UNREADABLE, Outcome.FAILED, *_TOMBSTONES}


_TOMBSTONES = {Outcome.NO_DOCUMENTS, Outcome.NOT_FOUND, Outcome.REJECTED}


async def test_the_manifest_records_trigger_times_and_revision(pipeline: ArchivePipeline) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 7)
    await pipeline.archive(eval_id)
    manifest = await pipeline.manifest(eval_id)
    assert manifest.trigger.model_dump() == {
        "source": "webhook",
        "run": "2026-q3",
        "event_type": "evaluation_completed",
        "event_id": "e-1",
    }
    assert (manifest.eval_id, manifest.environment, manifest.account) == (eval_id, "sandbox", "default")
    assert (manifest.revision, manifest.previous) == (1, None)
    assert manifest.retrieved_at <= manifest.archived_at


# Archived evaluations


@pytest.mark.parametrize(
    "scenario",
    [Scenario.DOCUMENTED, Scenario.NO_DOCUMENTS, Scenario.NOT_FOUND, Scenario.REJECTED, Scenario.GARBAGE_ALWAYS],
)
async def test_an_evaluation_with_a_final_manifest_is_not_requested_again(
    pipeline: ArchivePipeline, simulator: Simulator, scenario: Scenario
) -> None:
    eval_id = eval_id_for(scenario, 7)
    await pipeline.archive(eval_id)
    before, requests = pipeline.contents(), count_requests(simulator, eval_id)
    assert await pipeline.archive(eval_id) is Outcome.UNCHANGED
    assert count_requests(simulator, eval_id) == requests
    assert pipeline.contents() == before


@pytest.mark.parametrize(
    "scenario",
    [Scenario.DOCUMENTED, Scenario.STREAMED, Scenario.NO_DOCUMENTS, Scenario.NOT_FOUND, Scenario.DAMAGED_ALWAYS],
)
async def test_a_refresh_sends_a_request_and_writes_nothing_when_nothing_has_changed(
    pipeline: ArchivePipeline, simulator: Simulator, scenario: Scenario
) -> None:
    eval_id = eval_id_for(scenario, 7)
    await pipeline.archive(eval_id)
    before, requests = pipeline.contents(), count_requests(simulator, eval_id)
    assert await pipeline.archive(eval_id, refresh=True) is Outcome.UNCHANGED
    assert count_requests(simulator, eval_id) == 2 * requests
    assert pipeline.contents() == before


@pytest.mark.parametrize(
    ("scenario", "recorded"),
    [
        (Scenario.DOCUMENTED, ManifestOutcome.ARCHIVED),
        (Scenario.NO_DOCUMENTS, ManifestOutcome.NO_DOCUMENTS),
        (Scenario.NOT_FOUND, ManifestOutcome.NOT_FOUND),
        (Scenario.REJECTED, ManifestOutcome.REJECTED),
        (Scenario.GARBAGE_ALWAYS, ManifestOutcome.UNREADABLE),
    ],
)
async def test_a_refresh_by_outcome_sends_a_request_only_if_the_manifest_has_that_outcome(
    pipeline: ArchivePipeline, simulator: Simulator, scenario: Scenario, recorded: ManifestOutcome
) -> None:
    eval_id = eval_id_for(scenario, 7)
    await pipeline.archive(eval_id)
    requests = count_requests(simulator, eval_id)
    others = tuple(outcome for outcome in ManifestOutcome if outcome is not recorded)
    assert await pipeline.archive(eval_id, refresh_outcomes=others) is Outcome.UNCHANGED
    assert count_requests(simulator, eval_id) == requests
    assert await pipeline.archive(eval_id, refresh_outcomes=(recorded,)) is Outcome.UNCHANGED
    assert count_requests(simulator, eval_id) == 2 * requests


async def test_a_refresh_by_outcome_archives_an_evaluation_that_had_a_tombstone(redis: "Redis") -> None:
    no_documents = json_reply(400, b'{"message": "No Documents Found"}')
    async with (
        serve_replies(no_documents, bundle_reply(zip_of({"front.jpg": b"front"}))) as server,
        open_pipeline(server.url, redis) as pipeline,
    ):
        assert await pipeline.archive(EVAL_ID) is Outcome.NO_DOCUMENTS
        assert await pipeline.archive(EVAL_ID, refresh_outcomes=(ManifestOutcome.NO_DOCUMENTS,)) is Outcome.ARCHIVED
        assert (await pipeline.manifest(EVAL_ID)).revision == 2


async def test_a_refresh_archives_an_evaluation_that_was_not_archived(pipeline: ArchivePipeline) -> None:
    assert await pipeline.archive(eval_id_for(Scenario.DOCUMENTED, 7), refresh=True) is Outcome.ARCHIVED


async def test_a_changed_bundle_makes_a_second_revision_and_keeps_the_first(pipeline: ArchivePipeline) -> None:
    eval_id = eval_id_for(Scenario.CHANGING, 7)
    manifest_key = f"sandbox/{eval_id}/manifest.json"
    await pipeline.archive(eval_id)
    first = pipeline.contents()
    assert await pipeline.archive(eval_id, refresh=True) is Outcome.ARCHIVED
    second = pipeline.contents()
    manifest = await pipeline.manifest(eval_id)
    assert pipeline.archived(manifest) == documents_of(eval_id, IMAGE_BYTES, changed=True)
    assert (manifest.revision, manifest.previous) == (2, hashlib.sha256(first[manifest_key]).hexdigest())
    assert second[f"sandbox/{eval_id}/revisions/1.json"] == first[manifest_key]
    assert {key: second[key] for key in first.keys() - {manifest_key}} == {
        key: first[key] for key in first.keys() - {manifest_key}
    }
    assert await pipeline.archive(eval_id, refresh=True) is Outcome.UNCHANGED


@pytest.mark.parametrize(
    ("code", "body", "answer", "status"),
    [
        (400, b'{"message": "No Documents Found"}', Outcome.NO_DOCUMENTS, SourceStatus.GONE),
        (404, b'{"message": "Evaluation not found"}', Outcome.NOT_FOUND, SourceStatus.UNKNOWN),
        (400, b'{"message": "Invalid request"}', Outcome.REJECTED, SourceStatus.UNKNOWN),
    ],
)
async def test_documents_stay_archived_when_riskos_no_longer_delivers_them(
    redis: "Redis", code: int, body: bytes, answer: Outcome, status: SourceStatus
) -> None:
    refused = json_reply(code, body)
    async with (
        serve_replies(bundle_reply(zip_of({"a.jpg": b"a"})), refused, refused) as server,
        open_pipeline(server.url, redis) as pipeline,
    ):
        await pipeline.archive(EVAL_ID)
        before = pipeline.contents()
        for has_written in (True, False):
            result = await archive(make_job(EVAL_ID, refresh=True), pipeline.context)
            assert result == ArchiveResult(Outcome.UNCHANGED, ManifestOutcome.ARCHIVED, answer, has_written)
            assert result.ok
        manifest = await pipeline.manifest(EVAL_ID)
    assert (manifest.outcome, manifest.revision, manifest.source_status) == (Outcome.ARCHIVED, 2, status)
    assert manifest.last_response.status == code
    assert pipeline.archived(manifest) == {"a.jpg": b"a"}
    assert before.keys() < pipeline.contents().keys()


async def test_an_unreadable_bundle_is_quarantined_when_its_manifest_is_written_again(redis: "Redis") -> None:
    first, second = (bundle_reply(wrong_crc({"a.jpg": damaged, "b": b"b"})) for damaged in (b"1111", b"2222"))
    refused = json_reply(404, b'{"message": "Evaluation not found"}')
    async with (
        serve_replies(first, first, refused, second, second) as server,
        open_pipeline(server.url, redis) as pipeline,
    ):
        for _ in range(3):
            await pipeline.archive(EVAL_ID, refresh=True)
        manifest, keys = await pipeline.manifest(EVAL_ID), pipeline.contents().keys()
    assert manifest.bundle
    assert Evaluation(EVAL_ID, "sandbox").quarantine_key(manifest.bundle.sha256) in keys


# Erased evaluations


@pytest.mark.parametrize("order", [{}, {"refresh": True}, {"refresh_outcomes": tuple(ManifestOutcome)}])
async def test_an_erased_evaluation_is_not_requested_again(
    pipeline: ArchivePipeline, simulator: Simulator, order: dict[str, Any]
) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 7)
    await pipeline.archive(eval_id)
    await pipeline.erase(eval_id)
    before, requests = pipeline.contents(), count_requests(simulator, eval_id)
    assert await pipeline.archive(eval_id, **order) is Outcome.UNCHANGED
    assert count_requests(simulator, eval_id) == requests
    assert pipeline.contents() == before


async def test_an_erased_evaluation_is_archived_as_revision_1_when_it_is_ordered(pipeline: ArchivePipeline) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 7)
    await pipeline.archive(eval_id)
    marker = await pipeline.erase(eval_id)
    assert await pipeline.archive(eval_id, even_if_erased=True) is Outcome.ARCHIVED
    manifest = await pipeline.manifest(eval_id)
    assert (manifest.revision, manifest.previous, manifest.erased) == (1, hashlib.sha256(marker).hexdigest(), None)
    assert pipeline.contents()[f"sandbox/{eval_id}/revisions/0.json"] == marker
    assert pipeline.archived(manifest) == documents_of(eval_id, IMAGE_BYTES)
    assert await pipeline.archive(eval_id, even_if_erased=True) is Outcome.UNCHANGED


@pytest.mark.parametrize(("ordered", "outcome"), [(-1.0, Outcome.UNCHANGED), (1.0, Outcome.ARCHIVED)])
async def test_an_order_covers_only_earlier_erasures(
    pipeline: ArchivePipeline, ordered: float, outcome: Outcome
) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 7)
    await pipeline.archive(eval_id)
    await pipeline.erase(eval_id)
    erased = (await pipeline.manifest(eval_id)).erased
    assert erased
    at = erased.at_seconds + ordered
    assert await pipeline.archive(eval_id, even_if_erased=True, ordered_at=at) is outcome


async def test_an_erasure_during_an_ordered_attempt_is_not_undone(redis: "Redis") -> None:
    marker = b""

    async def answer(_: object) -> Reply:
        nonlocal marker
        marker = await pipeline.erase(EVAL_ID)
        return Reply(bundle_reply(zip_of({"front.jpg": b"again"})))

    async with serve_requests(answer) as server, open_pipeline(server.url, redis) as pipeline:
        bucket = pipeline.context.manifests
        at = utc_now()
        first = build_tombstone_without_request(Evaluation(EVAL_ID, "sandbox"), make_job(EVAL_ID)).model_copy(
            update={"erased": ErasedRecord(receipt="receipts/0.json", at="2026-01-01T00:00:00.000Z"), "archived_at": at}
        )
        key = Evaluation(EVAL_ID, "sandbox").manifest_key
        await bucket.replace(key, first.as_json(), ObjectAttributes("application/json"), None)
        ordered_at = datetime.fromisoformat(at).timestamp()
        outcome = await pipeline.archive(EVAL_ID, even_if_erased=True, ordered_at=ordered_at)
        assert outcome is Outcome.UNCHANGED
        assert pipeline.contents()[key] == marker


async def test_an_erasure_during_a_refresh_is_not_undone(redis: "Redis") -> None:
    bundle = bundle_reply(zip_of({"front.jpg": b"changed"}))
    marker = b""

    async def answer(_: object) -> Reply:
        nonlocal marker
        if first_requests.pop():
            marker = await pipeline.erase(EVAL_ID)
        return Reply(bundle if marker else bundle_reply(zip_of({"front.jpg": b"first"})))

    first_requests = [True, False]
    async with serve_requests(answer) as server, open_pipeline(server.url, redis) as pipeline:
        await pipeline.archive(EVAL_ID)
        assert await pipeline.archive(EVAL_ID, refresh=True) is Outcome.UNCHANGED
        assert pipeline.contents()[f"sandbox/{EVAL_ID}/manifest.json"] == marker


# Damaged bundles


async def test_a_damaged_bundle_is_requested_again_and_then_archived(
    pipeline: ArchivePipeline, simulator: Simulator
) -> None:
    eval_id = eval_id_for(Scenario.DAMAGED_ONCE, 7)
    assert await pipeline.archive(eval_id) is Outcome.ARCHIVED
    assert count_requests(simulator, eval_id) == 2
    assert (await pipeline.manifest(eval_id)).unreadable == ()


async def test_the_readable_members_are_archived_when_one_member_is_damaged(pipeline: ArchivePipeline) -> None:
    eval_id = eval_id_for(Scenario.DAMAGED_ALWAYS, 7)
    assert await pipeline.archive(eval_id) is Outcome.UNREADABLE
    manifest = await pipeline.manifest(eval_id)
    bad, *good = documents_of(eval_id, IMAGE_BYTES)
    assert [(each.name, each.cause) for each in manifest.unreadable] == [(bad, "wrong_crc")]
    assert [each.name for each in manifest.documents] == good


async def test_an_empty_file_is_recorded_and_does_not_make_the_bundle_unreadable(
    pipeline: ArchivePipeline, simulator: Simulator
) -> None:
    eval_id = eval_id_for(Scenario.EMPTY_FILE, 7)
    assert await pipeline.archive(eval_id) is Outcome.ARCHIVED
    manifest = await pipeline.manifest(eval_id)
    name = "user_uploaded/document_verification/documentbackDoc_Back_2_blob.jpg"
    assert [(each.name, each.cause) for each in manifest.unreadable] == [(name, "empty")]
    assert [each.kind for each in manifest.documents] == ["document_front", "document_back", "selfie"]
    assert count_requests(simulator, eval_id) == 1
    assert not any(key.startswith("quarantine/") for key in pipeline.contents())
    assert await pipeline.archive(eval_id, refresh=True) is Outcome.UNCHANGED


async def test_a_damaged_member_makes_the_bundle_unreadable_next_to_an_empty_file(redis: "Redis") -> None:
    damaged = bundle_reply(wrong_crc({"front.jpg": b"front" * 9, "back.jpg": b"back" * 9, "selfie.jpg": b""}))
    async with serve_replies(damaged, damaged) as server, open_pipeline(server.url, redis) as pipeline:
        assert await pipeline.archive(EVAL_ID) is Outcome.UNREADABLE
        manifest = await pipeline.manifest(EVAL_ID)
    causes = {each.name: each.cause for each in manifest.unreadable}
    assert causes == {"front.jpg": "wrong_crc", "selfie.jpg": "empty"}
    assert any(key.startswith("quarantine/") for key in pipeline.contents())


async def test_a_bundle_with_only_empty_files_is_unreadable(redis: "Redis") -> None:
    empty = bundle_reply(zip_of({"front.jpg": b"", "back.jpg": b""}))
    async with serve_replies(empty, empty) as server, open_pipeline(server.url, redis) as pipeline:
        assert await pipeline.archive(EVAL_ID) is Outcome.UNREADABLE
        manifest = await pipeline.manifest(EVAL_ID)
    assert {each.name: each.cause for each in manifest.unreadable} == {"front.jpg": "empty", "back.jpg": "empty"}
    assert manifest.documents == ()
    assert any(key.startswith("quarantine/") for key in pipeline.contents())


# Kinds


async def test_secondary_documents_have_their_own_kind(pipeline: ArchivePipeline) -> None:
    eval_id = eval_id_for(Scenario.SECONDARY_DOCUMENTS, 7)
    await pipeline.archive(eval_id)
    kinds = [each.kind for each in (await pipeline.manifest(eval_id)).documents]
    assert kinds == ["document_front", "document_back", "selfie", "secondary_document", "secondary_document"]


async def test_a_document_is_not_stored_again_when_its_media_type_changes(
    redis: "Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundle_reply(zip_of({"case_attachments/dg2.jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99)}))
    async with serve_replies(bundle, bundle, bundle) as server, open_pipeline(server.url, redis) as pipeline:
        with monkeypatch.context() as earlier:
            earlier.setattr("tasks.bundle.documents.media_type_of", lambda _: "application/octet-stream")
            assert await pipeline.archive(EVAL_ID) is Outcome.ARCHIVED
        (before,) = (await pipeline.manifest(EVAL_ID)).documents
        for _ in range(2):
            assert await pipeline.archive(EVAL_ID, refresh=True) is Outcome.UNCHANGED
        manifest = await pipeline.manifest(EVAL_ID)
        assert manifest.revision == 2
        assert manifest.documents == (before.model_copy(update={"media_type": "image/jp2", "named_as": None}),)
        assert before.key.endswith(".bin")
        assert [key for key in pipeline.contents() if before.sha256 in key] == [before.key]


async def test_a_document_keeps_the_kind_in_its_manifest_when_the_patterns_change(pipeline: ArchivePipeline) -> None:
    eval_id = eval_id_for(Scenario.UNKNOWN_NAMES, 7)
    await pipeline.archive(eval_id)
    patterns = [KindPattern.of("selfie:capture-*")]
    pipeline.context = replace(pipeline.context, unpacker=BundleUnpacker(Limits(), kind_patterns=patterns))
    assert await pipeline.archive(eval_id, refresh=True) is Outcome.UNCHANGED
    another = eval_id_for(Scenario.UNKNOWN_NAMES, 8)
    await pipeline.archive(another)
    for each, kind in ((eval_id, "other"), (another, "selfie")):
        assert (await pipeline.manifest(each)).documents[-1].kind == kind


@pytest.mark.parametrize(
    ("limits", "cause"),
    [
        (Limits(max_documents=1), "too_many_documents"),
        (Limits(max_unpacked_bytes=100), "too_large"),
        (Limits(max_ratio=1, ratio_from=100), "ratio"),
    ],
)
async def test_a_bundle_is_unreadable_when_it_exceeds_a_limit(redis: "Redis", limits: Limits, cause: str) -> None:
    bundle = bundle_reply(zip_of({"front.jpg": bytes(1000), "back.jpg": bytes(1000)}))
    async with serve_replies(bundle) as server, open_pipeline(server.url, redis, limits=limits) as pipeline:
        assert await pipeline.archive(EVAL_ID) is Outcome.UNREADABLE
        manifest = await pipeline.manifest(EVAL_ID)
    assert [(each.name, each.cause) for each in manifest.unreadable] == [("", cause)]
    assert manifest.documents == ()


async def test_a_bundle_above_the_size_limit_raises_and_writes_nothing(redis: "Redis") -> None:
    bundle = bundle_reply(zip_of({"front.jpg": b"front"}))
    options = replace(OPTIONS, max_bundle_bytes=20)
    async with serve_replies(bundle) as server, open_pipeline(server.url, redis, options=options) as pipeline:
        with pytest.raises(BundleTooLarge):
            await pipeline.archive(EVAL_ID)
    assert pipeline.contents() == {}


@pytest.mark.parametrize("name", [b"../../etc/passwd", b"/etc/passwd", b"C:\\x", b"a\x00b", b"\xff\xfe", b"x" * 5000])
async def test_no_name_in_a_bundle_becomes_part_of_a_key(redis: "Redis", name: bytes) -> None:
    async with (
        serve_replies(bundle_reply(forged(Raw(name=name, flags=1 << 11)))) as server,
        open_pipeline(server.url, redis) as pipeline,
    ):
        assert await pipeline.archive(EVAL_ID) is Outcome.ARCHIVED
        (document,) = (await pipeline.manifest(EVAL_ID)).documents
    digest = hashlib.sha256(b"some content").hexdigest()
    assert document.key == f"sandbox/{EVAL_ID}/other/{digest}.txt"
    assert pipeline.contents().keys() == {document.key, f"sandbox/{EVAL_ID}/manifest.json"}


# Slots for evaluations in flight


class RecordingSlots:
    """Slots that record the objects in S3 when one is acquired and when it is released."""

    def __init__(self, bucket: ScriptedS3) -> None:
        self._bucket = bucket
        self.written: list[list[str]] = []
        self.queues: list[Queue] = []

    @asynccontextmanager
    async def acquire(self, queue: Queue) -> AsyncIterator[None]:
        self.queues.append(queue)
        self._record()
        yield
        self._record()

    def _record(self) -> None:
        self.written.append(sorted(self._bucket.objects))


async def test_a_slot_is_held_from_the_request_until_the_documents_are_stored(
    pipeline: ArchivePipeline, simulator: Simulator
) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 7)
    scripted_s3 = ScriptedS3()
    slots = RecordingSlots(scripted_s3)
    async with serve_requests(scripted_s3) as server:
        pipeline.use_bucket(bucket_at(server.url))
        pipeline.context = replace(pipeline.context, acquire_slot=slots.acquire)
        assert await pipeline.archive(eval_id) is Outcome.ARCHIVED
        manifest = f"sandbox/{eval_id}/manifest.json"
        assert server.requests[0].path.endswith("manifest.json"), "the manifest is read first"
    before, documents = slots.written
    assert before == []
    assert len(documents) == len(documents_of(eval_id, IMAGE_BYTES))
    assert not [key for key in documents if key.endswith("manifest.json")]
    assert [key for key in scripted_s3.objects if key.endswith(manifest)]
    assert slots.queues == [Queue.LIVE]
    assert count_requests(simulator, eval_id) == 1


async def test_an_archived_evaluation_needs_no_slot(pipeline: ArchivePipeline) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 7)
    await pipeline.archive(eval_id)
    pipeline.context = replace(pipeline.context, acquire_slot=_refuse_slot)
    assert await pipeline.archive(eval_id) is Outcome.UNCHANGED


def _refuse_slot(_: Queue) -> NoReturn:
    raise AssertionError("no slot is free")


async def test_no_request_is_sent_when_the_archive_went_on_hold_during_the_wait_for_a_slot(
    pipeline: ArchivePipeline, simulator: Simulator
) -> None:
    @asynccontextmanager
    async def acquire(_: Queue) -> AsyncIterator[None]:
        pipeline.context.gate.set_hold(Hold(ARCHIVE, Reason.CANNOT_WRITE, "", 1.0, 30.0, needs_probe=True))
        yield

    pipeline.context = replace(pipeline.context, acquire_slot=acquire)
    with pytest.raises(ArchiveHeld, match="cannot_write"):
        await pipeline.archive(eval_id_for(Scenario.DOCUMENTED, 7))
    assert simulator.stats().requests == 0


async def test_the_probe_of_an_archive_on_hold_continues_after_it_gets_a_slot(pipeline: ArchivePipeline) -> None:
    pipeline.context.gate.set_hold(Hold(ARCHIVE, Reason.CANNOT_WRITE, "", 1.0, 30.0, needs_probe=True))
    assert await pipeline.archive(eval_id_for(Scenario.DOCUMENTED, 7)) is Outcome.ARCHIVED


async def test_the_size_of_each_answer_is_recorded_for_the_bundle_memory(
    pipeline: ArchivePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(pipeline.context.bundle_memory, "record", sizes.append)
    bundle = eval_id_for(Scenario.DOCUMENTED, 7)
    for eval_id in (bundle, eval_id_for(Scenario.NOT_FOUND, 7)):
        await pipeline.archive(eval_id)
    assert sizes == [len(bundle_of(bundle, IMAGE_BYTES)), 0]


# Failures of other systems


def bucket_at(url: str) -> S3Bucket:
    """Return a bucket at a scripted server, without retries."""
    store = S3Store(
        "archive",
        endpoint=url,
        virtual_hosted_style_request=False,
        region="us-east-1",
        skip_signature=True,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=30)},
    )
    return S3Bucket(store)


async def test_the_next_attempt_completes_one_that_stopped_before_the_manifest(
    pipeline: ArchivePipeline, simulator: Simulator
) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 7)
    files = documents_of(eval_id, IMAGE_BYTES)
    denied = Write(stores=False, reply=Reply(s3_error(403, "AccessDenied")))
    scripted_s3 = ScriptedS3(*[Write(stores=True)] * len(files), denied)
    async with serve_requests(scripted_s3) as server:
        pipeline.use_bucket(bucket_at(server.url))
        with pytest.raises(StorageError):
            await pipeline.archive(eval_id)
        documents = dict(scripted_s3.objects)
        assert sorted(documents.values()) == sorted(files.values())
        assert await pipeline.archive(eval_id) is Outcome.ARCHIVED
        assert [request.path for request in server.requests if request.method == "PUT"][-1].endswith("/manifest.json")
    assert documents.items() <= scripted_s3.objects.items()
    assert len(scripted_s3.objects) == len(files) + 1
    assert count_requests(simulator, eval_id) == 2


async def test_no_manifest_is_written_while_a_document_is_missing(pipeline: ArchivePipeline) -> None:
    denied = Write(stores=False, reply=Reply(s3_error(403, "AccessDenied")))
    scripted_s3 = ScriptedS3(Write(stores=True), denied)
    async with serve_requests(scripted_s3) as server:
        pipeline.use_bucket(bucket_at(server.url))
        with pytest.raises(StorageError):
            await pipeline.archive(eval_id_for(Scenario.DOCUMENTED, 7))
    assert not [key for key in scripted_s3.objects if key.endswith("manifest.json")]


async def test_no_request_is_sent_when_the_archive_cannot_be_read(
    pipeline: ArchivePipeline, simulator: Simulator
) -> None:
    async with serve_replies(s3_error(403, "AccessDenied")) as server:
        pipeline.use_bucket(bucket_at(server.url))
        with pytest.raises(StorageError):
            await pipeline.archive(eval_id_for(Scenario.DOCUMENTED, 7))
    assert simulator.stats().requests == 0


async def test_a_damaged_manifest_raises_integrity_error_before_any_request(
    pipeline: ArchivePipeline, simulator: Simulator
) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 7)
    key = f"sandbox/{eval_id}/manifest.json"
    await pipeline.context.manifests.create(key, b"{}", ObjectAttributes("application/json"))
    for refresh in (False, True):
        with pytest.raises(IntegrityError):
            await pipeline.archive(eval_id, refresh=refresh)
    assert simulator.stats().requests == 0
    assert pipeline.contents() == {key: b"{}"}


async def test_one_worker_commits_when_several_archive_the_same_evaluation_at_once(pipeline: ArchivePipeline) -> None:
    eval_id = eval_id_for(Scenario.ATTACHMENTS, 7)
    outcomes = await asyncio.gather(*[pipeline.archive(eval_id) for _ in range(4)])
    assert set(outcomes) <= {Outcome.ARCHIVED, Outcome.UNCHANGED}
    assert Outcome.ARCHIVED in outcomes
    manifest = await pipeline.manifest(eval_id)
    assert manifest.revision == 1
    assert pipeline.archived(manifest) == documents_of(eval_id, IMAGE_BYTES)


async def test_the_second_worker_commits_on_top_of_the_first_manifest(redis: "Redis") -> None:
    first, second = (bundle_reply(zip_of({"front.jpg": content})) for content in (b"first", b"second"))
    both_requested = asyncio.Barrier(2)
    replies = [first, second]

    async def answer(_: object) -> Reply:
        reply = replies.pop()
        await both_requested.wait()  # both workers found no manifest
        return Reply(reply)

    async with serve_requests(answer) as server, open_pipeline(server.url, redis) as pipeline:
        outcomes = await asyncio.gather(pipeline.archive(EVAL_ID), pipeline.archive(EVAL_ID))
        manifest = await pipeline.manifest(EVAL_ID)
    assert outcomes == [Outcome.ARCHIVED, Outcome.ARCHIVED]
    assert manifest.revision == 2
    assert sorted(each.superseded for each in manifest.documents) == [False, True]
    assert {pipeline.contents()[each.key] for each in manifest.documents} == {b"first", b"second"}


async def test_the_attempt_ends_when_the_manifest_changes_at_each_commit(pipeline: ArchivePipeline) -> None:
    def answer(request: object) -> Reply:
        busy = request.method == "PUT" and request.path.endswith("manifest.json")
        return Reply(s3_error(412, "PreconditionFailed")) if busy else scripted_s3(request)

    scripted_s3 = ScriptedS3()
    async with serve_requests(answer) as server:
        pipeline.use_bucket(bucket_at(server.url))
        with pytest.raises(ManifestChanged):
            await pipeline.archive(eval_id_for(Scenario.DOCUMENTED, 7))
    tries = [
        request for request in server.requests if request.method == "PUT" and request.path.endswith("manifest.json")
    ]
    assert 1 < len(tries) < 10


# Any ZIP

# Characters that stand for non-UTF-8 bytes are written differently. See docs/archive-format.md.
ESCAPES = "".join(map(chr, range(0xEF80, 0xF000)))
names = st.text(st.characters(codec="utf-8", exclude_characters="\0" + ESCAPES), min_size=1, max_size=30).filter(
    lambda name: not name.endswith(("/", "\\"))
)


@given(st.dictionaries(names, st.binary(max_size=300), min_size=1, max_size=6))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_any_zip_is_archived_byte_for_byte(redis: "Redis", files: Mapping[str, bytes]) -> None:
    documents = {name: content for name, content in files.items() if content}
    answers = [bundle_reply(zip_of(files))] * (1 if documents else 2)
    async with serve_replies(*answers) as server, open_pipeline(server.url, redis) as pipeline:
        assert await pipeline.archive(EVAL_ID) is (Outcome.ARCHIVED if documents else Outcome.UNREADABLE)
        manifest = await pipeline.manifest(EVAL_ID)
    assert pipeline.archived(manifest) == documents
    assert [each.name for each in manifest.documents] == list(documents)
    assert {each.name: each.cause for each in manifest.unreadable} == dict.fromkeys(files.keys() - documents, "empty")


# Sealed objects


async def test_a_sealed_document_is_encrypted_and_its_manifest_names_the_key(pipeline: ArchivePipeline) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 7)
    files = documents_of(eval_id, IMAGE_BYTES)
    plain = pipeline.context.manifests
    for key_id, keys in ("2025", {"2025": b"o" * 32}), ("2026", {"2026": b"n" * 32, "2025": b"o" * 32}):
        sealed = EncryptedBucket(plain, Keyring(key_id, keys))
        pipeline.context = replace(pipeline.context, target=UploadTarget(sealed, sealed_with=key_id))
        await pipeline.archive(eval_id, refresh=True)
    manifest = await pipeline.manifest(eval_id)
    # Nothing was written again with the new key, so no manifest names it.
    assert (manifest.revision, {each.sealed_with for each in manifest.documents}) == (1, {"2025"})
    for each in manifest.documents:
        raw, found = await plain.read(each.key), await sealed.read(each.key)
        assert raw
        assert found
        assert found.data == files[each.name]
        assert hashlib.sha256(found.data).hexdigest() == each.sha256
        assert b"JFIF" not in raw.data


async def test_a_document_keeps_its_encryption_key_in_the_next_revision(pipeline: ArchivePipeline) -> None:
    eval_id = eval_id_for(Scenario.CHANGING, 7)
    plain = pipeline.context.manifests
    for key_id, keys in ("2025", {"2025": b"o" * 32}), ("2026", {"2026": b"n" * 32, "2025": b"o" * 32}):
        sealed = EncryptedBucket(plain, Keyring(key_id, keys))
        pipeline.context = replace(pipeline.context, target=UploadTarget(sealed, sealed_with=key_id))
        await pipeline.archive(eval_id, refresh=True)
    manifest = await pipeline.manifest(eval_id)
    assert manifest.revision == 2
    assert {each.sealed_with for each in manifest.documents} == {"2025", "2026"}
    for each in manifest.documents:
        assert (await sealed.digest(each.key)) == each.sha256


async def test_an_object_is_recorded_with_the_encryption_key_of_the_attempt_that_stored_it(
    pipeline: ArchivePipeline,
) -> None:
    eval_id, keys = eval_id_for(Scenario.DAMAGED_ALWAYS, 7), {"2026": b"n" * 32, "2025": b"o" * 32}
    plain, revisions = pipeline.context.manifests, []
    for key_id in ("2025", "2026"):
        sealed = EncryptedBucket(plain, Keyring(key_id, keys))
        pipeline.context = replace(pipeline.context, target=UploadTarget(sealed, sealed_with=key_id))
        await pipeline.archive(eval_id)
        revisions.append(await pipeline.manifest(eval_id))
        # The first attempt is killed before it has written its manifest.
        await obstore.delete_async(pipeline.store, Evaluation(eval_id, "sandbox").manifest_key)
        await obstore.delete_async(pipeline.store, Evaluation(eval_id, "sandbox").revision_key(1))
    for manifest in revisions:
        assert manifest.bundle
        assert {each.sealed_with for each in (*manifest.documents, manifest.bundle)} == {"2025"}
        assert manifest.quarantined == (manifest.bundle,)


async def test_an_unreadable_bundle_is_quarantined_once_when_it_is_delivered_repacked(
    pipeline: ArchivePipeline,
) -> None:
    eval_id = eval_id_for(Scenario.DAMAGED_ALWAYS, 7)
    assert await pipeline.archive(eval_id) is Outcome.UNREADABLE
    before = pipeline.contents().keys()
    assert await pipeline.archive(eval_id, refresh=True) is Outcome.UNCHANGED
    assert pipeline.contents().keys() == before


async def test_a_quarantined_bundle_is_sealed(pipeline: ArchivePipeline) -> None:
    eval_id = eval_id_for(Scenario.DAMAGED_ALWAYS, 7)
    sealed = EncryptedBucket(pipeline.context.manifests, Keyring("2026", {"2026": b"n" * 32}))
    pipeline.context = replace(pipeline.context, target=UploadTarget(sealed, sealed_with="2026"))
    await pipeline.archive(eval_id)
    bundle = (await pipeline.manifest(eval_id)).bundle
    assert bundle
    assert bundle.sealed_with == "2026"
    assert await sealed.digest(f"quarantine/sandbox/{eval_id}/{bundle.sha256}.zip") == bundle.sha256
