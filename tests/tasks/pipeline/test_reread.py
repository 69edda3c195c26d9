"""The current reader reads a quarantined bundle again. Its documents are archived, and RiskOS's answer stays."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import date

import pytest
from obstore.store import MemoryStore

from scripts.simulator.damage import forged_size, garbage, truncated, wrong_crc
from tasks.bundle.unpack import Limits
from tasks.bundle.unpacker import BundleUnpacker
from tasks.errors import IntegrityError, LeaseLost, ManifestChanged, SealingKeyMissing
from tasks.model.job import Job, Queue, Trigger
from tasks.model.outcome import ArchiveResult, Evidence, ManifestOutcome, Outcome, SourceStatus
from tasks.pipeline import reread as module
from tasks.pipeline.erased_meanwhile import archive_guarded
from tasks.pipeline.pipeline import LeaseWatch
from tasks.pipeline.reread import RereadContext, reread
from tasks.pipeline.retention import RetentionPolicy
from tasks.pipeline.upload import UploadTarget
from tasks.storage.bucket import ObjectAttributes, S3Bucket
from tasks.storage.encrypted_bucket import EncryptedBucket
from tasks.storage.encryption import Keyring
from tasks.storage.manifest import Manifest, StoredManifest, read_manifest
from tasks.storage.manifest_records import ErasedRecord
from tasks.storage.revision import amend
from tests.archived_bundles import EVALUATION, archive_as_unreadable, archive_bundle, archive_tombstone
from tests.disposals import dispose_in_store, make_schedule
from tests.zips import zip_of

FILES = {"front.jpg": b"front" * 99, "back.jpg": b"back" * 99, "selfie.jpg": b"selfie" * 99}
WHOLE = zip_of(FILES)
JOB = Job(EVALUATION.eval_id, "token", Queue.BACKFILL, "default", False, 0, 0, Trigger("quarantine"))  # noqa: FBT003
UNCHANGED = ArchiveResult(Outcome.UNCHANGED, ManifestOutcome.UNREADABLE)


async def confirm_always(_: Job) -> None:
    """Confirm a lease that is not lost."""


@pytest.fixture
def bucket() -> S3Bucket:
    return S3Bucket(MemoryStore())


def context(bucket: S3Bucket, *, lenient: bool = False, keyring: Keyring | None = None) -> RereadContext:
    opened = EncryptedBucket(bucket, keyring)
    target = UploadTarget(opened, sealed_with=keyring.current) if keyring else UploadTarget(bucket)
    unpacker = BundleUnpacker(Limits())
    return RereadContext(
        opened, target, bucket, unpacker, None, confirm_always, LeaseWatch(), in_memory=100, lenient=lenient
    )


async def retry(bucket: S3Bucket, *, lenient: bool = False) -> ArchiveResult:
    return await reread(JOB, EVALUATION, context(bucket, lenient=lenient))


async def committed(bucket: S3Bucket) -> StoredManifest:
    found = await read_manifest(bucket, EVALUATION)
    assert found
    return found


async def manifest(bucket: S3Bucket) -> Manifest:
    return (await committed(bucket)).manifest


async def read_held_documents(bucket: S3Bucket) -> Mapping[str, bytes]:
    found = {}
    for document in (await manifest(bucket)).documents:
        stored = await bucket.read(document.key)
        assert stored
        found[document.name] = stored.data
    return found


async def test_a_quarantined_bundle_is_archived_when_it_can_be_read_now(bucket: S3Bucket) -> None:
    await archive_as_unreadable(bucket, WHOLE)
    before = await manifest(bucket)
    result = await retry(bucket)
    after = await manifest(bucket)
    assert (result.outcome, result.answer, result.has_written) == (Outcome.ARCHIVED, None, True)
    assert await read_held_documents(bucket) == FILES
    assert (after.outcome, after.revision, after.unreadable, after.unconfirmed) == (Outcome.ARCHIVED, 2, (), False)
    assert (after.bundle, after.quarantined) == (before.bundle, before.quarantined)
    assert (after.response, after.source, after.retrieved_at) == (before.response, before.source, before.retrieved_at)
    assert after.trigger == before.trigger.model_copy(update={"source": "quarantine"})
    assert {document.lenient for document in after.documents} == {None}
    assert b"lenient" not in after.as_json()


@pytest.mark.parametrize("lenient", [False, True])
async def test_a_retry_writes_nothing_when_it_finds_nothing_new(bucket: S3Bucket, lenient: bool) -> None:  # noqa: FBT001
    await archive_as_unreadable(bucket, WHOLE)
    await retry(bucket)
    before = await committed(bucket)
    assert await retry(bucket, lenient=lenient) == ArchiveResult(Outcome.UNCHANGED, ManifestOutcome.ARCHIVED)
    assert await committed(bucket) == before


@pytest.mark.parametrize("data", [garbage(FILES), truncated(FILES), b"", forged_size(FILES)])
async def test_a_retry_writes_nothing_when_the_bundle_is_still_refused(bucket: S3Bucket, data: bytes) -> None:
    await archive_as_unreadable(bucket, data)
    before = await committed(bucket)
    assert await retry(bucket) == UNCHANGED
    assert await committed(bucket) == before


async def test_an_evaluation_stays_unreadable_when_only_some_members_can_be_read_now(bucket: S3Bucket) -> None:
    await archive_as_unreadable(bucket, wrong_crc(FILES))
    assert (await retry(bucket)).outcome is Outcome.UNREADABLE
    after = await manifest(bucket)
    assert [(each.name, each.cause) for each in after.unreadable] == [("front.jpg", "wrong_crc")]
    assert await read_held_documents(bucket) == {name: FILES[name] for name in ("back.jpg", "selfie.jpg")}
    assert await retry(bucket) == UNCHANGED


async def test_a_lenient_retry_marks_and_archives_the_documents_when_none_is_missing(bucket: S3Bucket) -> None:
    await archive_as_unreadable(bucket, forged_size(FILES))
    assert (await retry(bucket, lenient=True)).outcome is Outcome.ARCHIVED
    after = await manifest(bucket)
    assert await read_held_documents(bucket) == FILES
    assert (after.unreadable, {each.lenient for each in after.documents}) == ((), {"local_header_differs"})
    assert Manifest.model_validate_json(after.as_json()) == after
    for lenient in (False, True):
        assert (await retry(bucket, lenient=lenient)).unchanged is ManifestOutcome.ARCHIVED
    assert await manifest(bucket) == after


async def test_a_lenient_retry_leaves_a_truncated_bundle_unreadable(bucket: S3Bucket) -> None:
    await archive_as_unreadable(bucket, WHOLE[:-1])
    assert (await retry(bucket, lenient=True)).outcome is Outcome.UNREADABLE
    after = await manifest(bucket)
    assert await read_held_documents(bucket) == FILES
    assert [(each.name, each.cause) for each in after.unreadable] == [("", "no_end_record")]
    assert {each.lenient for each in after.documents} == {"no_end_record"}
    assert await retry(bucket) == UNCHANGED
    assert await manifest(bucket) == after


async def test_a_lenient_retry_does_not_mark_documents_of_a_whole_bundle(bucket: S3Bucket) -> None:
    await archive_bundle(bucket, zip_of({"front.jpg": FILES["front.jpg"]}))
    await archive_as_unreadable(bucket, forged_size(FILES))
    await retry(bucket, lenient=True)
    marks = {each.name: each.lenient for each in (await manifest(bucket)).documents}
    assert marks == dict.fromkeys(FILES, "local_header_differs") | {"front.jpg": None}


async def test_a_changed_media_type_makes_a_revision_with_the_same_key(
    bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"front.jpg": b"\xff\xd8\xff\xe0 a picture"}
    with monkeypatch.context() as older:
        older.setattr("tasks.bundle.documents.media_type_of", lambda _: "application/octet-stream")
        await archive_bundle(bucket, wrong_crc({"x": b"damaged" * 9} | files))
    before = await manifest(bucket)
    assert [each.key.rpartition(".")[2] for each in before.documents] == ["bin"]
    result = await retry(bucket)
    after = await manifest(bucket)
    assert (result.outcome, result.unchanged, after.revision) == (Outcome.UNCHANGED, ManifestOutcome.UNREADABLE, 2)
    assert [(each.media_type, each.key) for each in after.documents] == [("image/jpeg", before.documents[0].key)]


async def test_reread_documents_are_superseded_when_riskos_no_longer_has_them(bucket: S3Bucket) -> None:
    await archive_as_unreadable(bucket, WHOLE)
    await archive_tombstone(bucket)
    before = await manifest(bucket)
    assert before.source_status is SourceStatus.GONE
    assert (await retry(bucket)).outcome is Outcome.ARCHIVED
    after = await manifest(bucket)
    assert after.source == before.source
    assert {each.superseded for each in after.documents} == {True}


async def test_a_held_document_is_superseded_when_the_bundle_does_not_have_it(bucket: S3Bucket) -> None:
    await archive_bundle(bucket, zip_of({"old.jpg": b"old"}))
    await archive_as_unreadable(bucket, WHOLE)
    assert (await manifest(bucket)).source_status is SourceStatus.UNKNOWN
    await retry(bucket)
    after = await manifest(bucket)
    assert {each.name: each.superseded for each in after.documents} == dict.fromkeys(FILES, False) | {"old.jpg": True}
    assert after.source_status is SourceStatus.PARTLY_GONE


async def test_an_unconfirmed_manifest_is_confirmed_only_by_a_whole_bundle(bucket: S3Bucket) -> None:
    for data, unconfirmed in ((garbage(FILES), True), (wrong_crc(FILES), True), (WHOLE, False)):
        await archive_as_unreadable(bucket, data)
        found = await committed(bucket)
        changed = found.manifest.model_copy(update={"unconfirmed": True}).as_json()
        await bucket.replace(EVALUATION.manifest_key, changed, ObjectAttributes("application/json"), found.stored.etag)
        for _ in range(2):
            await retry(bucket)
            assert (await manifest(bucket)).unconfirmed is unconfirmed


async def test_restricted_images_stay_in_quarantine_unless_there_is_a_target_for_them(
    bucket: S3Bucket,
) -> None:
    await archive_as_unreadable(bucket, WHOLE)
    found = await committed(bucket)
    restricted = {"reason": "military", "evidence": [Evidence.MILITARY_ID], "withheld": None}
    changed = found.manifest.model_dump(by_alias=True, mode="json") | {"restricted": restricted}
    data = Manifest.model_validate(changed).as_json()
    await bucket.replace(EVALUATION.manifest_key, data, ObjectAttributes("application/json"), found.stored.etag)
    assert await retry(bucket) == UNCHANGED
    unlocked = UploadTarget(S3Bucket(MemoryStore()))
    ctx = replace(context(bucket), restricted_target=unlocked)
    assert (await reread(JOB, EVALUATION, ctx)).outcome is Outcome.ARCHIVED
    assert await unlocked.bucket.read((await manifest(bucket)).documents[0].key)


async def test_documents_of_a_sealed_bundle_are_sealed(bucket: S3Bucket) -> None:
    keyring = Keyring("k1", {"k1": bytes(32)})
    sealed = context(bucket, keyring=keyring)
    await archive_as_unreadable(bucket, WHOLE, target=sealed.target)
    with pytest.raises(SealingKeyMissing):
        await retry(bucket)
    assert (await reread(JOB, EVALUATION, sealed)).outcome is Outcome.ARCHIVED
    assert {each.sealed_with for each in (await manifest(bucket)).documents} == {"k1"}
    assert FILES["front.jpg"] not in (await read_held_documents(bucket)).values()


async def test_a_bundle_is_refused_when_it_has_no_manifest_or_does_not_match_its_key(bucket: S3Bucket) -> None:
    with pytest.raises(IntegrityError, match="no manifest"):
        await retry(bucket)
    await archive_as_unreadable(bucket, WHOLE)
    key = EVALUATION.quarantine_key((await manifest(bucket)).quarantined[0].sha256)
    found = await bucket.read(key)
    assert found
    await bucket.replace(key, b"other", ObjectAttributes("application/zip"), found.etag)
    with pytest.raises(IntegrityError, match="do not match its key"):
        await retry(bucket)


async def test_an_archived_evaluation_is_unchanged_when_no_bundle_is_in_quarantine(bucket: S3Bucket) -> None:
    await archive_bundle(bucket, WHOLE)
    assert await retry(bucket) == ArchiveResult(Outcome.UNCHANGED, ManifestOutcome.ARCHIVED)


# Retention


async def is_stored(bucket: S3Bucket, data: bytes) -> bool:
    listed = [each.key async for some in bucket.list_objects("sandbox/") for each in some]
    return any(hashlib.sha256(data).hexdigest() in key for key in listed)


async def test_a_retry_does_not_restore_disposed_documents(bucket: S3Bucket) -> None:
    await archive_as_unreadable(bucket, WHOLE)
    await retry(bucket)
    await dispose_in_store(bucket._store, EVALUATION, ["front.jpg"])
    await archive_as_unreadable(bucket, forged_size(FILES))
    assert (await manifest(bucket)).outcome is Outcome.UNREADABLE

    assert (await retry(bucket, lenient=True)).outcome is Outcome.ARCHIVED

    assert (await read_held_documents(bucket)).keys() == FILES.keys() - {"front.jpg"}
    assert not await is_stored(bucket, FILES["front.jpg"])
    assert len((await manifest(bucket)).disposed) == 1


async def test_a_retry_stores_nothing_when_all_documents_were_disposed_of(bucket: S3Bucket) -> None:
    await archive_bundle(bucket, WHOLE)
    await dispose_in_store(bucket._store, EVALUATION, FILES)
    await archive_as_unreadable(bucket, WHOLE)
    assert (await manifest(bucket)).manifest_outcome is ManifestOutcome.UNREADABLE

    result = await retry(bucket)

    assert result == ArchiveResult(Outcome.UNCHANGED, ManifestOutcome.DISPOSED, has_written=True)
    assert await retry(bucket) == replace(result, has_written=False)
    assert not [name for name, data in FILES.items() if await is_stored(bucket, data)]


async def test_a_retry_does_not_store_due_documents(bucket: S3Bucket) -> None:
    await archive_as_unreadable(bucket, WHOLE)
    await amend(bucket, EVALUATION, lambda each: each.model_copy(update={"event_at": "2020-02-28T12:00:00Z"}))
    due = make_schedule({"kind": "selfie", "keep_for": "3y", "clock": "captured"})
    ctx = replace(context(bucket), retention=RetentionPolicy(due, today=lambda: date(2023, 3, 1)))

    assert (await reread(JOB, EVALUATION, ctx)).outcome is Outcome.ARCHIVED

    assert (await read_held_documents(bucket)).keys() == {"front.jpg", "back.jpg"}
    assert [each.kind for each in (await manifest(bucket)).disposed] == ["selfie"]
    assert not await is_stored(bucket, FILES["selfie.jpg"])


# Concurrent writers


async def test_an_erasure_before_the_commit_wins_and_the_objects_are_recorded(
    bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    await archive_as_unreadable(bucket, WHOLE)
    leftovers: list[str] = []
    watch = LeaseWatch(record_leftovers=leftovers.extend)
    erased = ErasedRecord(receipt="receipts/x.json", at="2026-11-23T04:00:00.000Z")

    async def erase() -> None:
        found = await committed(bucket)
        marker = found.manifest.model_copy(
            update={"erased": erased, "documents": (), "bundle": None, "quarantined": ()}
        ).as_json()
        await bucket.replace(EVALUATION.manifest_key, marker, ObjectAttributes("application/json"), found.stored.etag)

    commit = module.commit

    async def commit_after_erasure(*arguments: object) -> Outcome:
        monkeypatch.setattr(module, "commit", commit)
        await erase()
        return await commit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "commit", commit_after_erasure)
    ctx = replace(context(bucket), watch=watch)
    result = await archive_guarded(JOB, EVALUATION, ctx, lambda: reread(JOB, EVALUATION, ctx))
    assert result.unchanged is ManifestOutcome.ERASED
    assert (await manifest(bucket)).erased == erased
    assert len([key for key in leftovers if "/revisions/" not in key]) == len(FILES)


async def test_the_manifest_is_read_again_when_it_changed_before_the_commit(
    bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    await archive_as_unreadable(bucket, WHOLE)
    commit = module.commit

    async def commit_after_another_worker(*arguments: object) -> Outcome:
        monkeypatch.setattr(module, "commit", commit)
        await archive_tombstone(bucket)
        return await commit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "commit", commit_after_another_worker)
    assert (await retry(bucket)).outcome is Outcome.ARCHIVED
    assert [(each.revision, each.source_status) for each in [await manifest(bucket)]] == [(3, SourceStatus.GONE)]


async def test_the_retry_ends_when_the_manifest_changes_at_each_commit(
    bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    await archive_as_unreadable(bucket, WHOLE)

    async def fail_to_commit(*_: object) -> Outcome:
        raise ManifestChanged

    monkeypatch.setattr(module, "commit", fail_to_commit)
    with pytest.raises(ManifestChanged):
        await retry(bucket)


async def test_a_manifest_of_an_older_version_lists_its_quarantined_bundle_after_the_retry(bucket: S3Bucket) -> None:
    await archive_as_unreadable(bucket, WHOLE)
    found = await committed(bucket)
    older = found.manifest.model_copy(update={"quarantined": (), "source": None}).as_json()
    await bucket.replace(EVALUATION.manifest_key, older, ObjectAttributes("application/json"), found.stored.etag)
    assert (await retry(bucket)).outcome is Outcome.ARCHIVED
    after = await manifest(bucket)
    assert (after.quarantined, after.source) == ((found.manifest.bundle,), None)


async def test_nothing_is_written_when_the_lease_was_lost(bucket: S3Bucket) -> None:
    await archive_as_unreadable(bucket, WHOLE)
    before = await committed(bucket)

    async def lose_lease(_: Job) -> None:
        raise LeaseLost

    with pytest.raises(LeaseLost):
        await reread(JOB, EVALUATION, replace(context(bucket), confirm_lease=lose_lease))
    assert await committed(bucket) == before
