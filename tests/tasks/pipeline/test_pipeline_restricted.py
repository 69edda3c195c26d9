"""Images of military IDs and minors, with evidence that arrives before or after them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from obstore.store import MemoryStore
from redis.asyncio import Redis

from scripts.simulator.damage import wrong_crc
from tasks.bundle.unpacker import BundleUnpacker
from tasks.bundle.zip import Limits
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job, Queue, Trigger
from tasks.model.outcome import (
    ArchiveResult,
    Evidence,
    ManifestOutcome,
    NoDocumentsReason,
    Outcome,
    RestrictedHandling,
    Restriction,
    SourceStatus,
)
from tasks.pipeline.pipeline import PipelineContext, archive
from tasks.pipeline.upload import UploadTarget
from tasks.resilience.archive_gate import ArchiveGate
from tasks.resilience.retry import RetryPolicy
from tasks.riskos.download import DownloadOptions
from tasks.storage.bucket import Bucket, ObjectAttributes, S3Bucket
from tasks.storage.manifest import Manifest, read_manifest
from tasks.storage.manifest_records import ErasedRecord, WithheldRecord
from tests.riskos import Clock, Reply, bundle_reply, json_reply, serve_replies
from tests.zips import zip_of
from worker.config.settings import Settings

EVALUATION = Evaluation("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "sandbox")
FILES = {"front.jpg": b"front" * 9, "back.jpg": b"back" * 9}
WHOLE, DAMAGED = bundle_reply(zip_of(FILES)), bundle_reply(wrong_crc(FILES))
NOTHING = json_reply(400, b'{"message": "No Documents Found"}')
MILITARY: dict[str, Any] = {"evidence": (Evidence.MILITARY_ID,)}
MINOR: dict[str, Any] = {"evidence": (Evidence.UNDER_AGE,)}


class RecordingBucket(S3Bucket):
    """A bucket in memory that records the tags of each object."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.tags: dict[str, dict[str, str]] = {}

    async def create(self, key: str, data: Any, attributes: ObjectAttributes) -> None:
        self.tags[key] = dict(attributes.tags)
        await super().create(key, data, attributes)

    async def replace(self, key: str, data: bytes, attributes: ObjectAttributes, etag: str | None) -> None:
        self.tags[key] = dict(attributes.tags)
        await super().replace(key, data, attributes, etag)


@dataclass
class Archive:
    """An archive in memory, with one bucket for locked objects and one for objects without a lock."""

    redis: Redis
    spool_dir: Path
    locked: RecordingBucket = field(default_factory=RecordingBucket)
    unlocked: RecordingBucket | None = None

    @asynccontextmanager
    async def context(self, *replies: Reply | bytes) -> AsyncIterator[PipelineContext]:
        options = DownloadOptions(
            no_documents_texts=Settings().no_documents_texts, in_memory=0, spool_dir=self.spool_dir
        )
        async with serve_replies(*replies) as server, aiohttp.ClientSession() as http:
            client = Clock(self.redis).make_client(
                server.url, http, options, RetryPolicy(quick_attempts=1, quick_pause=0.0)
            )
            yield PipelineContext(
                client,
                ArchiveGate(client.holds, client.breaker),
                UploadTarget(self.locked, {"team": "kyc"}),
                self.locked,
                BundleUnpacker(Limits()),
                restricted_target=UploadTarget(self.unlocked, {"team": "kyc"}) if self.unlocked else None,
            )

    async def archive(self, *replies: Reply | bytes, **order: Any) -> ArchiveResult:
        job = Job(EVALUATION.eval_id, "token", Queue.LIVE, "default", False, 0, 0, Trigger("webhook"))  # noqa: FBT003
        async with self.context(*replies) as ctx:
            return await archive(replace(job, **order), ctx)

    async def manifest(self) -> Manifest:
        found = await read_manifest(self.locked, EVALUATION)
        assert found
        return found.manifest


@pytest.fixture
def archived(redis: Redis, tmp_path: Path) -> Archive:
    return Archive(redis, tmp_path)


@pytest.fixture
def unlocked(redis: Redis, tmp_path: Path) -> Archive:
    return Archive(redis, tmp_path, unlocked=RecordingBucket())


@pytest.mark.parametrize(
    ("known", "restriction"), [(MILITARY, Restriction.MILITARY), (MINOR, Restriction.MINOR)], ids=str
)
@pytest.mark.parametrize("bundle", [WHOLE, DAMAGED], ids=["whole", "damaged"])
async def test_restricted_images_are_counted_and_not_stored(
    archived: Archive, bundle: bytes, known: dict[str, Any], restriction: Restriction
) -> None:
    result = await archived.archive(bundle, **known)
    assert (result.outcome, result.ok, result.answer) == (Outcome.WITHHELD, True, Outcome.WITHHELD)
    assert result.restricted == (restriction, RestrictedHandling.WITHHELD)
    assert list(archived.locked.tags) == [EVALUATION.manifest_key]
    assert archived.locked.tags[EVALUATION.manifest_key]["restricted"] == restriction.value
    assert list(archived.spool_dir.iterdir()) == []
    manifest = await archived.manifest()
    assert (manifest.documents, manifest.bundle, manifest.quarantined, manifest.no_documents) == ((), None, (), None)
    assert (manifest.source_status, manifest.reason) == (SourceStatus.PRESENT, NoDocumentsReason(restriction))
    assert manifest.restricted
    assert manifest.restricted.withheld == WithheldRecord(documents=2, bytes=len(bundle.partition(b"\r\n\r\n")[2]))


async def test_the_number_of_withheld_files_is_unknown_when_the_bundle_is_truncated(
    archived: Archive,
) -> None:
    await archived.archive(bundle_reply(zip_of(FILES)[:-1]), **MILITARY)
    restricted = (await archived.manifest()).restricted
    assert restricted
    assert restricted.withheld
    assert restricted.withheld.documents is None


async def test_a_withheld_evaluation_stays_withheld_until_riskos_no_longer_has_its_documents(archived: Archive) -> None:
    await archived.archive(WHOLE, **MILITARY)
    result = await archived.archive(WHOLE)
    assert (result.outcome, result.unchanged, result.ok) == (Outcome.UNCHANGED, ManifestOutcome.WITHHELD, True)
    result = await archived.archive(WHOLE, refresh=True)  # the evidence is in the manifest
    assert (result.unchanged, result.restricted) == (ManifestOutcome.WITHHELD, None)
    assert (await archived.manifest()).revision == 1
    result = await archived.archive(NOTHING, refresh=True)
    assert result.outcome is Outcome.NO_DOCUMENTS
    manifest = await archived.manifest()
    assert (manifest.reason, manifest.restricted) == (NoDocumentsReason.MILITARY, None)


async def test_restricted_images_are_archived_with_a_tag_when_there_is_a_target_for_them(
    unlocked: Archive,
) -> None:
    assert unlocked.unlocked
    result = await unlocked.archive(DAMAGED, DAMAGED, **MINOR)
    assert result.restricted is None  # the first of the two manifests recorded it
    assert {key.split("/")[0] for key in unlocked.unlocked.tags} == {"sandbox", "quarantine"}
    for key, tags in unlocked.unlocked.tags.items():
        assert (tags["restricted"], tags.get("team", "kyc")) == ("minor", "kyc"), key
    assert all(key.endswith(".json") for key in unlocked.locked.tags)
    assert unlocked.locked.tags[EVALUATION.manifest_key]["restricted"] == "minor"
    manifest = await unlocked.manifest()
    assert manifest.restricted
    assert manifest.restricted.withheld is None


async def test_images_without_evidence_are_archived_in_the_locked_bucket(unlocked: Archive) -> None:
    result = await unlocked.archive(WHOLE)
    assert (result.outcome, result.restricted) == (Outcome.ARCHIVED, None)
    assert unlocked.unlocked
    assert not unlocked.unlocked.tags
    assert not any("restricted" in tags for tags in unlocked.locked.tags.values())


async def test_late_evidence_removes_no_documents_and_is_recorded_once(archived: Archive) -> None:
    await archived.archive(WHOLE)
    result = await archived.archive(NOTHING, **MILITARY)
    assert (result.outcome, result.unchanged) == (Outcome.UNCHANGED, ManifestOutcome.ARCHIVED)
    assert (result.answer, result.restricted) == (None, (Restriction.MILITARY, RestrictedHandling.LATE))
    manifest = await archived.manifest()
    assert (manifest.revision, len(manifest.documents), manifest.outcome) == (2, 2, Outcome.ARCHIVED)
    assert archived.locked.tags[EVALUATION.manifest_key]["restricted"] == "military"
    assert (await archived.archive(NOTHING, **MILITARY)).restricted is None
    assert (await archived.manifest()).revision == 2


@pytest.mark.parametrize("answer", [WHOLE, NOTHING], ids=["delivered", "gone"])
async def test_a_refresh_with_evidence_keeps_held_documents_and_adds_none(archived: Archive, answer: bytes) -> None:
    await archived.archive(WHOLE)
    before = dict(archived.locked.tags)
    result = await archived.archive(answer, refresh=True, **MILITARY)
    assert (result.outcome, result.restricted) == (
        Outcome.UNCHANGED,
        (Restriction.MILITARY, RestrictedHandling.LATE),
    )
    manifest = await archived.manifest()
    assert (manifest.outcome, len(manifest.documents)) == (Outcome.ARCHIVED, 2)
    assert manifest.source_status is (SourceStatus.GONE if answer is NOTHING else SourceStatus.UNKNOWN)
    assert archived.locked.tags.keys() - before.keys() == {EVALUATION.revision_key(1)}


async def test_evidence_for_an_erased_evaluation_changes_nothing(archived: Archive) -> None:
    await archived.archive(NOTHING)
    found = await read_manifest(archived.locked, EVALUATION)
    assert found
    marker = found.manifest.model_copy(
        update={"no_documents": None, "erased": ErasedRecord(receipt="receipts/a.json", at="2026-01-31T12:00:00Z")}
    )
    bucket: Bucket = archived.locked
    await bucket.replace(
        EVALUATION.manifest_key, marker.as_json(), ObjectAttributes("application/json"), found.stored.etag
    )
    result = await archived.archive(WHOLE, **MILITARY)
    assert result.unchanged is ManifestOutcome.ERASED
    assert (await archived.manifest()).restricted is None
