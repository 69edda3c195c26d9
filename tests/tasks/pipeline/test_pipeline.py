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
from tasks.pipeline.manifest_builder import build_unasked_tombstone
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
from tests.riskos import KEY, Clock, Reply, Wilful, Write, listening, s3_error, saying, zipped
from tests.riskos import json as said
from tests.zips import Raw, forged, zip_of
from worker.config.settings import Settings

IMAGE_BYTES = 2_000
TERMS = DownloadOptions(no_documents_texts=Settings().no_documents_texts)
POLICY = RetryPolicy(quick_attempts=3, quick_pause=0.0)
TRIGGER = Trigger("webhook", run="2026-q3", event_type="evaluation_completed", event_id="e-1")
MINE = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"
SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "manifest.schema.json").read_text())
ATTEMPTS = 3


def entry_of(
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
class House:
    """An archive in memory, and the context to fill it from one RiskOS.

    Attributes:
        means: the context of the pipeline.
        store: the store of the bucket.
        clock: advances instead of waiting.
    """

    means: PipelineContext
    store: MemoryStore
    clock: Clock

    async def archive(self, eval_id: str, **wanted: Any) -> Outcome:
        result = await archive(entry_of(eval_id, **wanted), self.means)
        manifest = await self.manifest(eval_id)
        assert result.unchanged == (manifest.manifest_outcome if result.outcome is Outcome.UNCHANGED else None)
        return result.outcome

    async def erase(self, eval_id: str) -> bytes:
        """Replace the manifest by the marker of an erasure; return the marker."""
        evaluation, bucket = Evaluation(eval_id, "sandbox"), self.means.target.bucket
        before = await read_manifest(bucket, evaluation)
        assert before
        erased = ErasedRecord(receipt="receipts/a.json", at=before.manifest.archived_at)
        marker = before.manifest.model_copy(update={"documents": (), "revision": 2, "previous": None, "erased": erased})
        await bucket.replace(
            evaluation.manifest_key, marker.as_json(), ObjectAttributes("application/json"), before.stored.etag
        )
        return marker.as_json()

    async def end_of(self, eval_id: str, *, refresh: bool = False) -> Outcome:
        """Make attempts until there is an outcome, as the ledger does."""
        failed = 0
        while failed < ATTEMPTS:
            try:
                return await self.archive(eval_id, refresh=refresh)
            except BlockedError:
                await self.clock.passes()
            except (RetryableError, Forbidden):
                failed += 1
        return Outcome.FAILED

    def move_to(self, bucket: Bucket) -> None:
        """Archive into another bucket from now on."""
        self.means = replace(self.means, target=UploadTarget(bucket), manifests=bucket)

    async def manifest(self, eval_id: str) -> Manifest:
        found = await read_manifest(self.means.manifests, Evaluation(eval_id, "sandbox"))
        assert found
        jsonschema.validate(json.loads(found.stored.data), SCHEMA)
        return found.manifest

    def contents(self) -> dict[str, bytes]:
        """Return every object of the archive."""
        keys = [str(found["path"]) for batch in self.store.list() for found in batch]
        return {key: bytes(obstore.get(self.store, key).bytes()) for key in keys}

    def archived(self, manifest: Manifest) -> dict[str, bytes]:
        """Return the documents of a manifest, names and bytes, as they are in the archive."""
        contents = self.contents()
        for each in manifest.documents:
            content = contents[each.key]
            assert (each.size, each.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        return {each.name: contents[each.key] for each in manifest.documents}


@asynccontextmanager
async def house_at(
    url: str, redis: "Redis", *, terms: DownloadOptions = TERMS, limits: Limits | None = None
) -> AsyncIterator[House]:
    store, clock = MemoryStore(), Clock(redis)
    async with aiohttp.ClientSession() as http:
        line = clock.line_to(url, http, terms, POLICY)
        bucket = S3Bucket(store)
        means = PipelineContext(
            line,
            ArchiveGate(line.holds, line.breaker),
            UploadTarget(bucket),
            bucket,
            BundleUnpacker(limits or Limits()),
        )
        yield House(means, store, clock)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with await start_simulator(
        SimulatorOptions(api_key=KEY, image_bytes=IMAGE_BYTES, slow_seconds=0.1)
    ) as simulator:
        yield simulator


@pytest.fixture
async def house(simulator: Simulator, redis: "Redis") -> AsyncIterator[House]:
    async with house_at(simulator.url, redis) as house:
        yield house


def asked(simulator: Simulator, eval_id: str) -> int:
    return simulator.stats().by_evaluation.get(eval_id, 0)


# All scenarios


@pytest.mark.parametrize("scenario", [each for each in Scenario if expected_outcome(each) is Outcome.ARCHIVED])
async def test_documents_are_archived_byte_for_byte(house: House, scenario: Scenario) -> None:
    eval_id = eval_id_for(scenario, 7)
    assert await house.end_of(eval_id) is Outcome.ARCHIVED
    manifest = await house.manifest(eval_id)
    assert house.archived(manifest) == documents_of(eval_id, IMAGE_BYTES)
    assert [each.name for each in manifest.documents] == list(documents_of(eval_id, IMAGE_BYTES))
    before = range(1, manifest.revision)
    assert house.contents().keys() == {
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
async def test_a_tombstone_records_the_answer_when_riskos_will_never_have_documents(
    house: House, simulator: Simulator, scenario: Scenario
) -> None:
    eval_id = eval_id_for(scenario, 7)
    outcome = await house.archive(eval_id)
    assert outcome is expected_outcome(scenario)
    manifest = await house.manifest(eval_id)
    assert house.contents().keys() == {f"sandbox/{eval_id}/manifest.json"}
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
    assert asked(simulator, eval_id) == 1


@pytest.mark.parametrize("scenario", [each for each in Scenario if expected_outcome(each) is Outcome.UNREADABLE])
async def test_a_bundle_that_stays_unreadable_is_kept_in_quarantine(
    house: House, simulator: Simulator, scenario: Scenario
) -> None:
    eval_id = eval_id_for(scenario, 7)
    assert await house.archive(eval_id) is Outcome.UNREADABLE
    assert asked(simulator, eval_id) == 2
    manifest = await house.manifest(eval_id)
    assert (manifest.outcome, manifest.no_documents) == (Outcome.UNREADABLE, None)
    assert manifest.unreadable
    assert manifest.bundle
    kept = house.contents()[f"quarantine/sandbox/{eval_id}/{manifest.bundle.sha256}.zip"]
    assert (hashlib.sha256(kept).hexdigest(), len(kept)) == (manifest.bundle.sha256, manifest.bundle.size)
    assert set(house.archived(manifest).items()) <= set(documents_of(eval_id, IMAGE_BYTES).items())
    assert house.contents().keys() == {
        f"sandbox/{eval_id}/manifest.json",
        f"sandbox/{eval_id}/revisions/1.json",
        *(f"quarantine/sandbox/{eval_id}/{each.sha256}.zip" for each in manifest.quarantined),
        *(each.key for each in manifest.documents),
    }


@pytest.mark.parametrize("scenario", [each for each in Scenario if expected_outcome(each) is Outcome.FAILED])
async def test_nothing_is_archived_when_the_bundle_never_arrives(
    house: House, simulator: Simulator, scenario: Scenario
) -> None:
    eval_id = eval_id_for(scenario, 7)
    assert await house.end_of(eval_id) is Outcome.FAILED
    assert house.contents() == {}
    # Only failures of the service and of the connection are retried within an attempt.
    is_quick = scenario in {Scenario.ERROR_500_ALWAYS, Scenario.CUT_SHORT_ALWAYS}
    assert asked(simulator, eval_id) >= (2 if is_quick else 1) * ATTEMPTS
    assert simulator.stats().redirects_followed == 0


def test_every_scenario_is_in_one_of_the_tests_above() -> None:
    outcomes = {expected_outcome(each) for each in Scenario}
    tombstones = {each for each in Scenario if expected_outcome(each) in _TOMBSTONES}
    assert tombstones == {*NO_DOCUMENTS, Scenario.NOT_FOUND, Scenario.REJECTED}
    assert outcomes == {Outcome.ARCHIVED, Outcome.UNREADABLE, Outcome.FAILED, *_TOMBSTONES}


_TOMBSTONES = {Outcome.NO_DOCUMENTS, Outcome.NOT_FOUND, Outcome.REJECTED}


async def test_the_manifest_says_why_and_when_and_by_whom_it_was_made(house: House) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 7)
    await house.archive(eval_id)
    manifest = await house.manifest(eval_id)
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
async def test_an_evaluation_that_has_ended_is_not_asked_for_again(
    house: House, simulator: Simulator, scenario: Scenario
) -> None:
    eval_id = eval_id_for(scenario, 7)
    await house.archive(eval_id)
    before, requests = house.contents(), asked(simulator, eval_id)
    assert await house.archive(eval_id) is Outcome.UNCHANGED
    assert asked(simulator, eval_id) == requests
    assert house.contents() == before


@pytest.mark.parametrize(
    "scenario",
    [Scenario.DOCUMENTED, Scenario.STREAMED, Scenario.NO_DOCUMENTS, Scenario.NOT_FOUND, Scenario.DAMAGED_ALWAYS],
)
async def test_a_refresh_asks_again_and_writes_nothing_when_nothing_has_changed(
    house: House, simulator: Simulator, scenario: Scenario
) -> None:
    eval_id = eval_id_for(scenario, 7)
    await house.archive(eval_id)
    before, requests = house.contents(), asked(simulator, eval_id)
    assert await house.archive(eval_id, refresh=True) is Outcome.UNCHANGED
    assert asked(simulator, eval_id) == 2 * requests
    assert house.contents() == before


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
async def test_a_refresh_of_some_outcomes_asks_again_only_if_the_manifest_records_one_of_them(
    house: House, simulator: Simulator, scenario: Scenario, recorded: ManifestOutcome
) -> None:
    eval_id = eval_id_for(scenario, 7)
    await house.archive(eval_id)
    requests = asked(simulator, eval_id)
    others = tuple(outcome for outcome in ManifestOutcome if outcome is not recorded)
    assert await house.archive(eval_id, refresh_outcomes=others) is Outcome.UNCHANGED
    assert asked(simulator, eval_id) == requests
    assert await house.archive(eval_id, refresh_outcomes=(recorded,)) is Outcome.UNCHANGED
    assert asked(simulator, eval_id) == 2 * requests


async def test_a_tombstone_that_is_refreshed_for_its_outcome_becomes_an_archived_evaluation(redis: "Redis") -> None:
    none = said(400, b'{"message": "No Documents Found"}')
    async with saying(none, zipped(zip_of({"front.jpg": b"front"}))) as server, house_at(server.url, redis) as house:
        assert await house.archive(MINE) is Outcome.NO_DOCUMENTS
        assert await house.archive(MINE, refresh_outcomes=(ManifestOutcome.NO_DOCUMENTS,)) is Outcome.ARCHIVED
        assert (await house.manifest(MINE)).revision == 2


async def test_a_refresh_archives_an_evaluation_that_was_not_archived(house: House) -> None:
    assert await house.archive(eval_id_for(Scenario.DOCUMENTED, 7), refresh=True) is Outcome.ARCHIVED


async def test_a_changed_bundle_is_a_second_revision_beside_the_first(house: House) -> None:
    eval_id = eval_id_for(Scenario.CHANGING, 7)
    manifest_key = f"sandbox/{eval_id}/manifest.json"
    await house.archive(eval_id)
    first = house.contents()
    assert await house.archive(eval_id, refresh=True) is Outcome.ARCHIVED
    second = house.contents()
    manifest = await house.manifest(eval_id)
    assert house.archived(manifest) == documents_of(eval_id, IMAGE_BYTES, changed=True)
    assert (manifest.revision, manifest.previous) == (2, hashlib.sha256(first[manifest_key]).hexdigest())
    assert second[f"sandbox/{eval_id}/revisions/1.json"] == first[manifest_key]
    assert {key: second[key] for key in first.keys() - {manifest_key}} == {
        key: first[key] for key in first.keys() - {manifest_key}
    }
    assert await house.archive(eval_id, refresh=True) is Outcome.UNCHANGED


@pytest.mark.parametrize(
    ("code", "body", "answer", "status"),
    [
        (400, b'{"message": "No Documents Found"}', Outcome.NO_DOCUMENTS, SourceStatus.GONE),
        (404, b'{"message": "Evaluation not found"}', Outcome.NOT_FOUND, SourceStatus.UNKNOWN),
        (400, b'{"message": "Invalid request"}', Outcome.REJECTED, SourceStatus.UNKNOWN),
    ],
)
async def test_documents_that_riskos_does_not_deliver_any_more_stay_archived(
    redis: "Redis", code: int, body: bytes, answer: Outcome, status: SourceStatus
) -> None:
    refused = said(code, body)
    async with (
        saying(zipped(zip_of({"a.jpg": b"a"})), refused, refused) as server,
        house_at(server.url, redis) as house,
    ):
        await house.archive(MINE)
        before = house.contents()
        for has_written in (True, False):
            result = await archive(entry_of(MINE, refresh=True), house.means)
            assert result == ArchiveResult(Outcome.UNCHANGED, ManifestOutcome.ARCHIVED, answer, has_written)
            assert result.ok
        manifest = await house.manifest(MINE)
    assert (manifest.outcome, manifest.revision, manifest.source_status) == (Outcome.ARCHIVED, 2, status)
    assert manifest.last_response.status == code
    assert house.archived(manifest) == {"a.jpg": b"a"}
    assert before.keys() < house.contents().keys()


async def test_an_unreadable_bundle_is_quarantined_again_if_its_manifest_is_written_again(redis: "Redis") -> None:
    first, second = (zipped(wrong_crc({"a.jpg": damaged, "b": b"b"})) for damaged in (b"1111", b"2222"))
    refused = said(404, b'{"message": "Evaluation not found"}')
    async with saying(first, first, refused, second, second) as server, house_at(server.url, redis) as house:
        for _ in range(3):
            await house.archive(MINE, refresh=True)
        manifest, keys = await house.manifest(MINE), house.contents().keys()
    assert manifest.bundle
    assert Evaluation(MINE, "sandbox").quarantine_key(manifest.bundle.sha256) in keys


# Erased evaluations


@pytest.mark.parametrize("wanted", [{}, {"refresh": True}, {"refresh_outcomes": tuple(ManifestOutcome)}])
async def test_an_erased_evaluation_is_not_requested_again(
    house: House, simulator: Simulator, wanted: dict[str, Any]
) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 7)
    await house.archive(eval_id)
    await house.erase(eval_id)
    before, requests = house.contents(), asked(simulator, eval_id)
    assert await house.archive(eval_id, **wanted) is Outcome.UNCHANGED
    assert asked(simulator, eval_id) == requests
    assert house.contents() == before


async def test_an_erased_evaluation_is_archived_again_from_revision_1_when_it_is_ordered(house: House) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 7)
    await house.archive(eval_id)
    marker = await house.erase(eval_id)
    assert await house.archive(eval_id, even_if_erased=True) is Outcome.ARCHIVED
    manifest = await house.manifest(eval_id)
    assert (manifest.revision, manifest.previous, manifest.erased) == (1, hashlib.sha256(marker).hexdigest(), None)
    assert house.contents()[f"sandbox/{eval_id}/revisions/0.json"] == marker
    assert house.archived(manifest) == documents_of(eval_id, IMAGE_BYTES)
    assert await house.archive(eval_id, even_if_erased=True) is Outcome.UNCHANGED


@pytest.mark.parametrize(("ordered", "outcome"), [(-1.0, Outcome.UNCHANGED), (1.0, Outcome.ARCHIVED)])
async def test_an_order_covers_only_earlier_erasures(house: House, ordered: float, outcome: Outcome) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 7)
    await house.archive(eval_id)
    await house.erase(eval_id)
    erased = (await house.manifest(eval_id)).erased
    assert erased
    at = erased.at_seconds + ordered
    assert await house.archive(eval_id, even_if_erased=True, ordered_at=at) is outcome


async def test_a_later_erasure_wins_over_an_order_that_is_under_way(redis: "Redis") -> None:
    marker = b""

    async def answer(_: object) -> Reply:
        nonlocal marker
        marker = await house.erase(MINE)
        return Reply(zipped(zip_of({"front.jpg": b"again"})))

    async with listening(answer) as server, house_at(server.url, redis) as house:
        bucket = house.means.manifests
        at = utc_now()
        first = build_unasked_tombstone(Evaluation(MINE, "sandbox"), entry_of(MINE)).model_copy(
            update={"erased": ErasedRecord(receipt="receipts/0.json", at="2026-01-01T00:00:00.000Z"), "archived_at": at}
        )
        key = Evaluation(MINE, "sandbox").manifest_key
        await bucket.replace(key, first.as_json(), ObjectAttributes("application/json"), None)
        ordered_at = datetime.fromisoformat(at).timestamp()
        ending = await house.archive(MINE, even_if_erased=True, ordered_at=ordered_at)
        assert ending is Outcome.UNCHANGED
        assert house.contents()[key] == marker


async def test_a_worker_that_was_on_its_way_does_not_undo_an_erasure(redis: "Redis") -> None:
    bundle = zipped(zip_of({"front.jpg": b"changed"}))
    marker = b""

    async def answer(_: object) -> Reply:
        nonlocal marker
        if asks.pop():
            marker = await house.erase(MINE)
        return Reply(bundle if marker else zipped(zip_of({"front.jpg": b"first"})))

    asks = [True, False]
    async with listening(answer) as server, house_at(server.url, redis) as house:
        await house.archive(MINE)
        assert await house.archive(MINE, refresh=True) is Outcome.UNCHANGED
        assert house.contents()[f"sandbox/{MINE}/manifest.json"] == marker


# Damaged bundles


async def test_a_damaged_bundle_is_fetched_again_and_then_archived(house: House, simulator: Simulator) -> None:
    eval_id = eval_id_for(Scenario.DAMAGED_ONCE, 7)
    assert await house.archive(eval_id) is Outcome.ARCHIVED
    assert asked(simulator, eval_id) == 2
    assert (await house.manifest(eval_id)).unreadable == ()


async def test_of_a_bundle_with_one_bad_member_the_others_are_archived_and_the_bad_one_is_named(house: House) -> None:
    eval_id = eval_id_for(Scenario.DAMAGED_ALWAYS, 7)
    assert await house.archive(eval_id) is Outcome.UNREADABLE
    manifest = await house.manifest(eval_id)
    bad, *good = documents_of(eval_id, IMAGE_BYTES)
    assert [(each.name, each.cause) for each in manifest.unreadable] == [(bad, "wrong_crc")]
    assert [each.name for each in manifest.documents] == good


async def test_an_empty_file_is_recorded_and_is_no_damage(house: House, simulator: Simulator) -> None:
    eval_id = eval_id_for(Scenario.EMPTY_FILE, 7)
    assert await house.archive(eval_id) is Outcome.ARCHIVED
    manifest = await house.manifest(eval_id)
    name = "user_uploaded/document_verification/documentbackDoc_Back_2_blob.jpg"
    assert [(each.name, each.cause) for each in manifest.unreadable] == [(name, "empty")]
    assert [each.kind for each in manifest.documents] == ["document_front", "document_back", "selfie"]
    assert asked(simulator, eval_id) == 1
    assert not any(key.startswith("quarantine/") for key in house.contents())
    assert await house.archive(eval_id, refresh=True) is Outcome.UNCHANGED


async def test_an_empty_file_beside_a_damaged_one_does_not_hide_it(redis: "Redis") -> None:
    damaged = zipped(wrong_crc({"front.jpg": b"front" * 9, "back.jpg": b"back" * 9, "selfie.jpg": b""}))
    async with saying(damaged, damaged) as server, house_at(server.url, redis) as house:
        assert await house.archive(MINE) is Outcome.UNREADABLE
        manifest = await house.manifest(MINE)
    causes = {each.name: each.cause for each in manifest.unreadable}
    assert causes == {"front.jpg": "wrong_crc", "selfie.jpg": "empty"}
    assert any(key.startswith("quarantine/") for key in house.contents())


async def test_a_bundle_of_empty_files_only_is_unreadable(redis: "Redis") -> None:
    empty = zipped(zip_of({"front.jpg": b"", "back.jpg": b""}))
    async with saying(empty, empty) as server, house_at(server.url, redis) as house:
        assert await house.archive(MINE) is Outcome.UNREADABLE
        manifest = await house.manifest(MINE)
    assert {each.name: each.cause for each in manifest.unreadable} == {"front.jpg": "empty", "back.jpg": "empty"}
    assert manifest.documents == ()
    assert any(key.startswith("quarantine/") for key in house.contents())


# Kinds


async def test_secondary_documents_are_of_a_kind_of_their_own(house: House) -> None:
    eval_id = eval_id_for(Scenario.SECONDARY_DOCUMENTS, 7)
    await house.archive(eval_id)
    kinds = [each.kind for each in (await house.manifest(eval_id)).documents]
    assert kinds == ["document_front", "document_back", "selfie", "secondary_document", "secondary_document"]


async def test_bytes_that_are_taken_for_another_type_later_are_not_stored_again(
    redis: "Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = zipped(zip_of({"case_attachments/dg2.jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99)}))
    async with saying(bundle, bundle, bundle) as server, house_at(server.url, redis) as house:
        with monkeypatch.context() as earlier:
            earlier.setattr("tasks.bundle.documents.media_type_of", lambda _: "application/octet-stream")
            assert await house.archive(MINE) is Outcome.ARCHIVED
        (before,) = (await house.manifest(MINE)).documents
        for _ in range(2):
            assert await house.archive(MINE, refresh=True) is Outcome.UNCHANGED
        manifest = await house.manifest(MINE)
        assert manifest.revision == 2
        assert manifest.documents == (before.model_copy(update={"media_type": "image/jp2", "named_as": None}),)
        assert before.key.endswith(".bin")
        assert [key for key in house.contents() if before.sha256 in key] == [before.key]


async def test_a_document_keeps_the_kind_that_its_manifest_says(house: House) -> None:
    eval_id = eval_id_for(Scenario.UNKNOWN_NAMES, 7)
    await house.archive(eval_id)
    patterns = [KindPattern.of("selfie:capture-*")]
    house.means = replace(house.means, unpacker=BundleUnpacker(Limits(), kind_patterns=patterns))
    assert await house.archive(eval_id, refresh=True) is Outcome.UNCHANGED
    another = eval_id_for(Scenario.UNKNOWN_NAMES, 8)
    await house.archive(another)
    for each, kind in ((eval_id, "other"), (another, "selfie")):
        assert (await house.manifest(each)).documents[-1].kind == kind


@pytest.mark.parametrize(
    ("limits", "cause"),
    [
        (Limits(max_documents=1), "too_many_documents"),
        (Limits(max_unpacked_bytes=100), "too_large"),
        (Limits(max_ratio=1, ratio_from=100), "ratio"),
    ],
)
async def test_a_bundle_that_holds_too_much_is_unreadable(redis: "Redis", limits: Limits, cause: str) -> None:
    bundle = zipped(zip_of({"front.jpg": bytes(1000), "back.jpg": bytes(1000)}))
    async with saying(bundle) as server, house_at(server.url, redis, limits=limits) as house:
        assert await house.archive(MINE) is Outcome.UNREADABLE
        manifest = await house.manifest(MINE)
    assert [(each.name, each.cause) for each in manifest.unreadable] == [("", cause)]
    assert manifest.documents == ()


async def test_a_bundle_that_is_larger_than_it_may_be_needs_a_person_and_leaves_nothing(redis: "Redis") -> None:
    bundle = zipped(zip_of({"front.jpg": b"front"}))
    terms = replace(TERMS, max_bundle_bytes=20)
    async with saying(bundle) as server, house_at(server.url, redis, terms=terms) as house:
        with pytest.raises(BundleTooLarge):
            await house.archive(MINE)
    assert house.contents() == {}


@pytest.mark.parametrize("name", [b"../../etc/passwd", b"/etc/passwd", b"C:\\x", b"a\x00b", b"\xff\xfe", b"x" * 5000])
async def test_no_name_out_of_a_bundle_is_part_of_a_key(redis: "Redis", name: bytes) -> None:
    async with saying(zipped(forged(Raw(name=name, flags=1 << 11)))) as server, house_at(server.url, redis) as house:
        assert await house.archive(MINE) is Outcome.ARCHIVED
        (document,) = (await house.manifest(MINE)).documents
    digest = hashlib.sha256(b"some content").hexdigest()
    assert document.key == f"sandbox/{MINE}/other/{digest}.txt"
    assert house.contents().keys() == {document.key, f"sandbox/{MINE}/manifest.json"}


# Slots for evaluations in flight


class Places:
    """Slots that record the requests to S3 before, during and after one is held."""

    def __init__(self, bucket: Wilful) -> None:
        self._bucket = bucket
        self.asked: list[list[str]] = []
        self.queues: list[Queue] = []

    @asynccontextmanager
    async def place(self, queue: Queue) -> AsyncIterator[None]:
        self.queues.append(queue)
        self._note()
        yield
        self._note()

    def _note(self) -> None:
        self.asked.append(sorted(self._bucket.objects))


async def test_only_with_a_place_is_riskos_asked_and_without_one_the_manifest_is_written(
    house: House, simulator: Simulator
) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 7)
    wilful = Wilful()
    places = Places(wilful)
    async with listening(wilful) as server:
        house.move_to(bucket_at(server.url))
        house.means = replace(house.means, acquire_slot=places.place)
        assert await house.archive(eval_id) is Outcome.ARCHIVED
        manifest = f"sandbox/{eval_id}/manifest.json"
        assert server.heard[0].path.endswith("manifest.json"), "it is looked at first"
    before, documents = places.asked
    assert before == []
    assert len(documents) == len(documents_of(eval_id, IMAGE_BYTES))
    assert not [key for key in documents if key.endswith("manifest.json")]
    assert [key for key in wilful.objects if key.endswith(manifest)]
    assert places.queues == [Queue.LIVE]
    assert asked(simulator, eval_id) == 1


async def test_an_archived_evaluation_needs_no_slot(house: House) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 7)
    await house.archive(eval_id)
    house.means = replace(house.means, acquire_slot=_full)
    assert await house.archive(eval_id) is Outcome.UNCHANGED


def _full(_: Queue) -> NoReturn:
    raise AssertionError("there is no place")


async def test_no_request_is_sent_when_the_archive_went_on_hold_while_it_waited_for_a_slot(
    house: House, simulator: Simulator
) -> None:
    @asynccontextmanager
    async def place(_: Queue) -> AsyncIterator[None]:
        house.means.gate.set_hold(Hold(ARCHIVE, Reason.CANNOT_WRITE, "", 1.0, 30.0, needs_probe=True))
        yield

    house.means = replace(house.means, acquire_slot=place)
    with pytest.raises(ArchiveHeld, match="cannot_write"):
        await house.archive(eval_id_for(Scenario.DOCUMENTED, 7))
    assert simulator.stats().requests == 0


async def test_the_probe_of_an_archive_on_hold_goes_on_when_it_has_its_place(house: House) -> None:
    house.means.gate.set_hold(Hold(ARCHIVE, Reason.CANNOT_WRITE, "", 1.0, 30.0, needs_probe=True))
    assert await house.archive(eval_id_for(Scenario.DOCUMENTED, 7)) is Outcome.ARCHIVED


# Failures of other systems


def bucket_at(url: str) -> S3Bucket:
    """Return a bucket at a scripted server; nothing is retried."""
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


async def test_an_attempt_that_stops_before_the_manifest_is_made_good_by_the_next(
    house: House, simulator: Simulator
) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 7)
    files = documents_of(eval_id, IMAGE_BYTES)
    denied = Write(stores=False, reply=Reply(s3_error(403, "AccessDenied")))
    wilful = Wilful(*[Write(stores=True)] * len(files), denied)
    async with listening(wilful) as server:
        house.move_to(bucket_at(server.url))
        with pytest.raises(StorageError):
            await house.archive(eval_id)
        documents = dict(wilful.objects)
        assert sorted(documents.values()) == sorted(files.values())
        assert await house.archive(eval_id) is Outcome.ARCHIVED
        assert [heard.path for heard in server.heard if heard.method == "PUT"][-1].endswith("/manifest.json")
    assert documents.items() <= wilful.objects.items()
    assert len(wilful.objects) == len(files) + 1
    assert asked(simulator, eval_id) == 2


async def test_no_manifest_is_written_while_a_document_is_missing(house: House) -> None:
    denied = Write(stores=False, reply=Reply(s3_error(403, "AccessDenied")))
    wilful = Wilful(Write(stores=True), denied)
    async with listening(wilful) as server:
        house.move_to(bucket_at(server.url))
        with pytest.raises(StorageError):
            await house.archive(eval_id_for(Scenario.DOCUMENTED, 7))
    assert not [key for key in wilful.objects if key.endswith("manifest.json")]


async def test_an_archive_that_cannot_be_read_costs_no_request(house: House, simulator: Simulator) -> None:
    async with saying(s3_error(403, "AccessDenied")) as server:
        house.move_to(bucket_at(server.url))
        with pytest.raises(StorageError):
            await house.archive(eval_id_for(Scenario.DOCUMENTED, 7))
    assert simulator.stats().requests == 0


async def test_a_damaged_manifest_is_an_alarm_and_costs_no_request(house: House, simulator: Simulator) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 7)
    key = f"sandbox/{eval_id}/manifest.json"
    await house.means.manifests.create(key, b"{}", ObjectAttributes("application/json"))
    for refresh in (False, True):
        with pytest.raises(IntegrityError):
            await house.archive(eval_id, refresh=refresh)
    assert simulator.stats().requests == 0
    assert house.contents() == {key: b"{}"}


async def test_one_worker_commits_when_several_archive_the_same_evaluation_at_once(house: House) -> None:
    eval_id = eval_id_for(Scenario.ATTACHMENTS, 7)
    ended = await asyncio.gather(*[house.archive(eval_id) for _ in range(4)])
    assert set(ended) <= {Outcome.ARCHIVED, Outcome.UNCHANGED}
    assert Outcome.ARCHIVED in ended
    manifest = await house.manifest(eval_id)
    assert manifest.revision == 1
    assert house.archived(manifest) == documents_of(eval_id, IMAGE_BYTES)


async def test_the_second_worker_commits_on_top_of_the_first_manifest(redis: "Redis") -> None:
    first, second = (zipped(zip_of({"front.jpg": content})) for content in (b"first", b"second"))
    both_asked = asyncio.Barrier(2)
    left = [first, second]

    async def answer(_: object) -> Reply:
        mine = left.pop()
        await both_asked.wait()  # both have seen that there is no manifest
        return Reply(mine)

    async with listening(answer) as server, house_at(server.url, redis) as house:
        ended = await asyncio.gather(house.archive(MINE), house.archive(MINE))
        manifest = await house.manifest(MINE)
    assert ended == [Outcome.ARCHIVED, Outcome.ARCHIVED]
    assert manifest.revision == 2
    assert sorted(each.superseded for each in manifest.documents) == [False, True]
    assert {house.contents()[each.key] for each in manifest.documents} == {b"first", b"second"}


async def test_a_manifest_that_changes_again_and_again_is_another_attempts_turn(house: House) -> None:
    def answer(heard: object) -> Reply:
        busy = heard.method == "PUT" and heard.path.endswith("manifest.json")
        return Reply(s3_error(412, "PreconditionFailed")) if busy else wilful(heard)

    wilful = Wilful()
    async with listening(answer) as server:
        house.move_to(bucket_at(server.url))
        with pytest.raises(ManifestChanged):
            await house.archive(eval_id_for(Scenario.DOCUMENTED, 7))
    tries = [heard for heard in server.heard if heard.method == "PUT" and heard.path.endswith("manifest.json")]
    assert 1 < len(tries) < 10


# Any ZIP

# The characters for bytes that are not UTF-8 are written in another way; see docs/archive-format.md.
OTHERWISE = "".join(map(chr, range(0xEF80, 0xF000)))
names = st.text(st.characters(codec="utf-8", exclude_characters="\0" + OTHERWISE), min_size=1, max_size=30).filter(
    lambda name: not name.endswith(("/", "\\"))
)


@given(st.dictionaries(names, st.binary(max_size=300), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_zip_of_anything_comes_out_of_the_archive_as_it_went_in(
    redis: "Redis", files: Mapping[str, bytes]
) -> None:
    documents = {name: content for name, content in files.items() if content}
    answers = [zipped(zip_of(files))] * (1 if documents else 2)
    async with saying(*answers) as server, house_at(server.url, redis) as house:
        assert await house.archive(MINE) is (Outcome.ARCHIVED if documents else Outcome.UNREADABLE)
        manifest = await house.manifest(MINE)
    assert house.archived(manifest) == documents
    assert [each.name for each in manifest.documents] == list(documents)
    assert {each.name: each.cause for each in manifest.unreadable} == dict.fromkeys(files.keys() - documents, "empty")


# Sealed objects


async def test_a_sealed_document_is_unreadable_without_its_key_and_its_manifest_names_the_key(house: House) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 7)
    files = documents_of(eval_id, IMAGE_BYTES)
    plain = house.means.manifests
    for key_id, keys in ("2025", {"2025": b"o" * 32}), ("2026", {"2026": b"n" * 32, "2025": b"o" * 32}):
        sealed = EncryptedBucket(plain, Keyring(key_id, keys))
        house.means = replace(house.means, target=UploadTarget(sealed, sealed_with=key_id))
        await house.archive(eval_id, refresh=True)
    manifest = await house.manifest(eval_id)
    # Nothing was written again with the new key, so no manifest says so.
    assert (manifest.revision, {each.sealed_with for each in manifest.documents}) == (1, {"2025"})
    for each in manifest.documents:
        behind, found = await plain.read(each.key), await sealed.read(each.key)
        assert behind
        assert found
        assert found.data == files[each.name]
        assert hashlib.sha256(found.data).hexdigest() == each.sha256
        assert b"JFIF" not in behind.data


async def test_a_document_keeps_its_former_key_in_the_next_revision(house: House) -> None:
    eval_id = eval_id_for(Scenario.CHANGING, 7)
    plain = house.means.manifests
    for key_id, keys in ("2025", {"2025": b"o" * 32}), ("2026", {"2026": b"n" * 32, "2025": b"o" * 32}):
        sealed = EncryptedBucket(plain, Keyring(key_id, keys))
        house.means = replace(house.means, target=UploadTarget(sealed, sealed_with=key_id))
        await house.archive(eval_id, refresh=True)
    manifest = await house.manifest(eval_id)
    assert manifest.revision == 2
    assert {each.sealed_with for each in manifest.documents} == {"2025", "2026"}
    for each in manifest.documents:
        assert (await sealed.digest(each.key)) == each.sha256


async def test_an_object_of_an_attempt_with_another_key_is_recorded_with_that_key(house: House) -> None:
    eval_id, keys = eval_id_for(Scenario.DAMAGED_ALWAYS, 7), {"2026": b"n" * 32, "2025": b"o" * 32}
    plain, revisions = house.means.manifests, []
    for key_id in ("2025", "2026"):
        sealed = EncryptedBucket(plain, Keyring(key_id, keys))
        house.means = replace(house.means, target=UploadTarget(sealed, sealed_with=key_id))
        await house.archive(eval_id)
        revisions.append(await house.manifest(eval_id))
        # The first attempt is killed before it has written its manifest.
        await obstore.delete_async(house.store, Evaluation(eval_id, "sandbox").manifest_key)
        await obstore.delete_async(house.store, Evaluation(eval_id, "sandbox").revision_key(1))
    for manifest in revisions:
        assert manifest.bundle
        assert {each.sealed_with for each in (*manifest.documents, manifest.bundle)} == {"2025"}
        assert manifest.quarantined == (manifest.bundle,)


async def test_an_unreadable_bundle_is_kept_in_quarantine_once_when_it_is_packed_again(house: House) -> None:
    eval_id = eval_id_for(Scenario.DAMAGED_ALWAYS, 7)
    assert await house.archive(eval_id) is Outcome.UNREADABLE
    before = house.contents().keys()
    assert await house.archive(eval_id, refresh=True) is Outcome.UNCHANGED
    assert house.contents().keys() == before


async def test_a_bundle_in_quarantine_is_sealed_as_well(house: House) -> None:
    eval_id = eval_id_for(Scenario.DAMAGED_ALWAYS, 7)
    sealed = EncryptedBucket(house.means.manifests, Keyring("2026", {"2026": b"n" * 32}))
    house.means = replace(house.means, target=UploadTarget(sealed, sealed_with="2026"))
    await house.archive(eval_id)
    bundle = (await house.manifest(eval_id)).bundle
    assert bundle
    assert bundle.sealed_with == "2026"
    assert await sealed.digest(f"quarantine/sandbox/{eval_id}/{bundle.sha256}.zip") == bundle.sha256
