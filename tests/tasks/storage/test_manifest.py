import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import DEFAULT, patch

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore, S3Store

from tasks.errors import IntegrityError, ManifestChanged, StorageError
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import ManifestOutcome, NoDocumentsReason, Outcome, Restriction, SourceStatus
from tasks.storage.bucket import Bucket, ObjectAttributes, S3Bucket, WriteUnconfirmed
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.manifest import Manifest, StoredManifest, archiver, read_manifest, schema, utc_now
from tasks.storage.manifest_records import (
    BundleRecord,
    DisposedRecord,
    DocumentRecord,
    ErasedKindRecord,
    ErasedRecord,
    NoDocumentsRecord,
    ResponseRecord,
    RestrictedRecord,
    SourceRecord,
    TriggerRecord,
    UnreadableRecord,
)
from tasks.storage.revision import amend, commit
from tests.conftest import S3
from tests.riskos import Reply, ScriptedS3, Then, Write, http, s3_error, serve_requests
from worker.clients.archive import open_archive
from worker.config.settings import Settings

EVALUATION = Evaluation("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "production", "kyc")
LABELS = ObjectAttributes("application/json")
SCHEMA = Path(__file__).parents[3] / "docs" / "manifest.schema.json"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def record(name: str, /, **facts: Any) -> DocumentRecord:
    """Return a document with its name as content."""
    digest = sha256(name.encode())
    usual = {
        "name": name,
        "kind": "selfie",
        "key": EVALUATION.document_key("selfie", digest, "jpg"),
        "media_type": "image/jpeg",
        "size": len(name),
        "sha256": digest,
        "modified": "2026-01-31T12:00:00",
        "archived_at": "2026-01-31T12:00:01.000Z",
    }
    return DocumentRecord(**usual | facts)


def manifest(*names: str, **facts: Any) -> Manifest:
    usual = {
        "schema": 1,
        "eval_id": EVALUATION.eval_id,
        "environment": EVALUATION.environment,
        "account": EVALUATION.account,
        "outcome": Outcome.ARCHIVED,
        "revision": 1,
        "previous": None,
        "documents": tuple(record(name) for name in names),
        "bundle": BundleRecord(filename="x.zip", size=3, sha256="0" * 64),
        "response": ResponseRecord(status=200, message=None),
        "no_documents": None,
        "trigger": TriggerRecord(source="backfill", run="2026-q3", event_type=None, event_id=None),
        "retrieved_at": "2026-01-31T12:00:00.000Z",
        "archived_at": "2026-01-31T12:00:01.000Z",
        "archiver": archiver(),
    }
    return Manifest(**usual | facts)


SOURCE = SourceRecord(
    status=SourceStatus.PRESENT,
    asked_at="2026-01-31T12:00:00.000Z",
    response=ResponseRecord(status=200, message=None),
)
TOMBSTONE = manifest(
    outcome=Outcome.NO_DOCUMENTS,
    bundle=None,
    response=ResponseRecord(status=400, message="No Documents Found"),
    no_documents=NoDocumentsRecord(reason=NoDocumentsReason.MINOR, evidence=("R844",)),
)
DAMAGED = manifest(
    "front", outcome=Outcome.UNREADABLE, unreadable=(UnreadableRecord(name="back\ufffd", cause="wrong_crc"),)
)


@pytest.fixture(params=["memory", "moto", "folder"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    match request.param:
        case "memory":
            return S3Bucket(MemoryStore())
        case "folder":
            return LocalBucket(tmp_path)
        case _:
            s3: S3 = request.getfixturevalue("s3")
            return S3Bucket(open_archive(Settings(archive_url=f"s3://{s3.bucket}", s3_endpoint=s3.endpoint)))


async def committed(bucket: Bucket) -> StoredManifest:
    found = await read_manifest(bucket, EVALUATION)
    assert found
    return found


async def archive(bucket: Bucket, new: Manifest) -> Outcome:
    """Read the manifest and commit the next one. Try again if another worker was faster."""
    while True:
        before = await read_manifest(bucket, EVALUATION)
        try:
            return await commit(bucket, EVALUATION, new, before)
        except ManifestChanged:
            continue


async def history(bucket: Bucket) -> list[Manifest]:
    """Return all manifests, oldest first. Check that each one names the hash of the previous one."""
    newest = await committed(bucket)
    manifests, previous = [newest.manifest], newest.manifest.previous
    for revision in range(newest.manifest.revision - 1, 0, -1):
        kept = await bucket.read(EVALUATION.revision_key(revision))
        assert kept
        assert sha256(kept.data) == previous
        manifests.append(Manifest.model_validate_json(kept.data))
        previous = manifests[-1].previous
    assert previous is None
    assert [each.revision for each in reversed(manifests)] == list(range(1, newest.manifest.revision + 1))
    return manifests[::-1]


# Holds, erasures and disposals


ERASED_SELFIES = ErasedKindRecord(kind="selfie", receipt="receipts/1.json", at="2026-02-01T00:00:00.000Z")
ERASED_FRONT = ERASED_SELFIES.list_disposed(record("front"), record("front").key, "2026-02-01T00:00:00.000Z")


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (manifest("front"), ManifestOutcome.ARCHIVED),
        (manifest("front", erased=ErasedRecord(receipt="r", at="2026-02-01T00:00:00.000Z")), ManifestOutcome.ERASED),
        (manifest(disposed=(ERASED_FRONT,)), ManifestOutcome.DISPOSED),
        (manifest("back", disposed=(ERASED_FRONT,)), ManifestOutcome.ARCHIVED),
        (DAMAGED, ManifestOutcome.UNREADABLE),
        (TOMBSTONE, ManifestOutcome.NO_DOCUMENTS),
    ],
)
def test_an_erasure_and_disposals_decide_the_outcome(found: Manifest, outcome: ManifestOutcome) -> None:
    assert found.manifest_outcome is outcome


def test_a_legal_hold_covers_the_kinds_that_it_names_or_all() -> None:
    held = manifest("front", matters=("all", "selfies"), matter_kinds={"selfies": ("selfie", "other")})

    assert held.find_matters(["selfie"]) == ("all", "selfies")
    assert held.find_matters(["document_front"]) == ("all",)
    limited = held.model_copy(update={"matters": ("selfies",)})
    assert [limited.is_held(kind) for kind in ("selfie", "other", "document_front", None)] == [True, True, False, True]
    assert [manifest("front").is_held(kind) for kind in ("selfie", None)] == [False, False]


def test_objects_of_an_erased_kind_and_of_its_hashes_must_be_gone() -> None:
    found = manifest("back", erased_kinds=(ERASED_SELFIES,), disposed=(ERASED_FRONT,))
    back = sha256(b"back")

    gone = EVALUATION.document_key("selfie", back, "jpg"), EVALUATION.document_key("other", ERASED_FRONT.sha256, "bin")
    assert [found.must_be_gone(key) for key in (*gone, EVALUATION.quarantine_key(back))] == [True] * 3
    assert not found.must_be_gone(EVALUATION.document_key("document_back", back, "jpg"))
    by_rule = found.model_copy(update={"disposed": (ERASED_FRONT.model_copy(update={"rule": "selfies"}),)})
    assert not by_rule.must_be_gone(gone[1])
    whole = found.model_copy(update={"erased_kinds": ()})
    assert [whole.must_be_gone(key) for key in gone] == [False, False]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (manifest("front"), None),
        (TOMBSTONE, NoDocumentsReason.MINOR),
        (
            manifest(
                outcome=Outcome.WITHHELD,
                restricted=RestrictedRecord(reason=Restriction.MILITARY, evidence=("R1",), withheld=None),
            ),
            NoDocumentsReason.MILITARY,
        ),
    ],
)
def test_a_manifest_without_documents_has_a_reason(found: Manifest, reason: NoDocumentsReason | None) -> None:
    assert found.reason is reason


# The format


def test_the_published_schema_matches_the_code() -> None:
    command = (
        'python -c "import json; from tasks.storage.manifest import schema; print(json.dumps(schema(), indent=1))" '
        "> docs/manifest.schema.json"
    )
    assert SCHEMA.read_text() == json.dumps(schema(), indent=1) + "\n", f"regenerate it: {command}"


def test_the_published_schema_is_a_valid_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert schema()["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$id"]


@pytest.mark.parametrize("each", [manifest("front", "back"), manifest(source=SOURCE), TOMBSTONE, DAMAGED])
def test_a_written_manifest_is_valid_and_is_read_back_unchanged(each: Manifest) -> None:
    written = each.as_json()
    document = json.loads(written)
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    assert document["schema"] == 1
    assert Manifest.model_validate_json(written) == each
    assert written.endswith(b"}\n")


def test_a_manifest_has_every_field_of_the_contract() -> None:
    document = json.loads(manifest("front").as_json())
    assert {
        "schema", "eval_id", "environment", "account", "outcome", "revision", "previous", "documents", "bundle",
        "response", "no_documents", "trigger", "retrieved_at", "archived_at", "archiver",
    } <= set(document)  # fmt: skip
    assert {"name", "kind", "key", "media_type", "size", "sha256", "modified"} <= set(document["documents"][0])
    assert set(document["bundle"]) == {"filename", "size", "sha256"}
    assert set(document["response"]) == {"status", "message"}
    assert set(document["trigger"]) == {"source", "run", "event_type", "event_id"}


CHANGES = [
    ("revision", 0),
    ("previous", "abc"),
    ("previous", "A" * 64),
    ("outcome", "lost"),
    ("environment", "staging"),
    ("schema", 2),
    ("schema", "1"),
    ("archived_at", "2026-01-31T12:00:00+01:00"),
    ("retrieved_at", "yesterday"),
    ("documents", None),
    ("bundle", {"filename": None, "size": -1, "sha256": "0" * 64}),
    ("no_documents", {"reason": "lost", "evidence": []}),
]


@pytest.mark.parametrize(("part", "value"), CHANGES)
async def test_read_manifest_raises_when_a_field_has_an_invalid_value(part: str, value: object) -> None:
    document = json.loads(manifest("front").as_json()) | {part: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    await assert_raises(json.dumps(document).encode())


@pytest.mark.parametrize(
    "part", sorted(json.loads(manifest("front").as_json()).keys() - {"unreadable", "quarantined", "event_at", "erased"})
)
async def test_read_manifest_raises_when_a_field_is_missing(part: str) -> None:
    document = json.loads(manifest("front").as_json())
    del document[part]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    await assert_raises(json.dumps(document).encode())


async def test_a_manifest_without_event_at_is_read(bucket: Bucket) -> None:
    document = json.loads(TOMBSTONE.as_json())
    del document["event_at"]
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    await bucket.replace(EVALUATION.manifest_key, json.dumps(document).encode(), LABELS, None)
    assert (await committed(bucket)).manifest == TOMBSTONE


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.UNCHANGED])
async def test_a_manifest_cannot_have_an_outcome_that_leaves_no_manifest(outcome: Outcome) -> None:
    document = json.loads(manifest("front").as_json()) | {"outcome": outcome.value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    await assert_raises(json.dumps(document).encode())


def test_utc_now_is_the_current_time_in_utc() -> None:
    now = datetime.fromisoformat(utc_now())
    assert utc_now().endswith("Z")
    assert now.tzinfo is not None
    assert abs(datetime.now(UTC) - now) < timedelta(minutes=1)
    assert manifest(archived_at=utc_now())


def test_a_manifest_names_the_program_that_made_it() -> None:
    assert archiver().startswith("docv-archive ")
    assert archiver().split()[1][0].isdigit()


def test_a_manifest_omits_the_request_id_when_there_is_none() -> None:
    with_one = manifest("front", response=ResponseRecord(status=200, message=None, request_id="r-1"))
    assert json.loads(with_one.as_json())["response"] == {"status": 200, "message": None, "request_id": "r-1"}
    assert json.loads(manifest("front").as_json())["response"] == {"status": 200, "message": None}


# Same content


@pytest.mark.parametrize(
    "other",
    [
        manifest("back", "front"),
        manifest("front", "back", revision=7, previous="0" * 64),
        manifest("front", "back", bundle=BundleRecord(filename=None, size=9, sha256="1" * 64)),
        manifest("front", "back", retrieved_at="2027-01-31T12:00:00Z", archived_at="2027-01-31T12:00:00Z"),
        manifest("front", "back", trigger=TriggerRecord(source="webhook", run=None, event_type="e", event_id="i")),
        manifest("front", "back", archiver="docv-archive 9.9", account="other"),
        manifest("front", "back", response=ResponseRecord(status=200, message=None, request_id="r-1")),
        manifest(documents=(record("front"), record("back"), record("older", superseded=True))),
        manifest(documents=(record("front", modified=None), record("back"))),
    ],
)
def test_same_content_ignores_times_trigger_and_packing(other: Manifest) -> None:
    assert manifest("front", "back").same_content(other)
    assert other.same_content(manifest("front", "back"))


@pytest.mark.parametrize(
    "other",
    [
        manifest("front"),
        manifest("front", "back", "selfie"),
        manifest("front", "back", "back"),
        manifest("front", "another"),
        manifest(documents=(record("front"), record("back", superseded=True))),
        manifest(documents=(record("front"), record("back", name="renamed"))),
        manifest(documents=(record("front"), record("back", kind="other"))),
        manifest(documents=(record("front"), record("back", key="elsewhere"))),
        manifest("front", "back", outcome=Outcome.UNREADABLE),
        manifest("front", "back", unreadable=(UnreadableRecord(name="x", cause="wrong_crc"),)),
        manifest("front", "back", response=ResponseRecord(status=404, message=None)),
        manifest("front", "back", response=ResponseRecord(status=200, message="m")),
        manifest("front", "back", no_documents=TOMBSTONE.no_documents),
        manifest("front", "back", source=SOURCE),
        TOMBSTONE,
    ],
)
def test_same_content_is_false_when_outcome_documents_or_response_differ(other: Manifest) -> None:
    assert not manifest("front", "back").same_content(other)
    assert not other.same_content(manifest("front", "back"))


# Read


async def assert_raises(found: bytes) -> None:
    bucket = S3Bucket(MemoryStore())
    await bucket.create(EVALUATION.manifest_key, found, LABELS)
    with pytest.raises(IntegrityError):
        await read_manifest(bucket, EVALUATION)


async def test_read_manifest_raises_when_the_manifest_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = manifest("front").as_json()
    bucket = S3Bucket(MemoryStore())
    await bucket.create(EVALUATION.manifest_key, whole, LABELS)
    monkeypatch.setattr("tasks.storage.manifest.MAX_MANIFEST_BYTES", len(whole))
    assert await read_manifest(bucket, EVALUATION)
    monkeypatch.setattr("tasks.storage.manifest.MAX_MANIFEST_BYTES", len(whole) - 1)
    with pytest.raises(IntegrityError):
        await read_manifest(bucket, EVALUATION)


async def test_read_manifest_returns_none_when_there_is_no_manifest(bucket: Bucket) -> None:
    assert await read_manifest(bucket, EVALUATION) is None


@pytest.mark.parametrize(
    "found", [b"", b"{}", b"[]", b"null", b"\xff", b"{", manifest("front").as_json()[:-2], b"[" * 100_000]
)
async def test_read_manifest_raises_when_the_manifest_is_damaged(found: bytes) -> None:
    await assert_raises(found)


@pytest.mark.parametrize("facts", [{"eval_id": "ffffffff-6e5b-4f3c-9d2a-7c1f0e8b9a10"}, {"environment": "sandbox"}])
async def test_read_manifest_raises_when_the_manifest_is_of_another_evaluation(facts: dict[str, str]) -> None:
    await assert_raises(manifest("front", **facts).as_json())


async def test_a_manifest_with_unknown_fields_is_read(bucket: Bucket) -> None:
    document = json.loads(manifest("front").as_json()) | {"colour": "blue"}
    await bucket.create(EVALUATION.manifest_key, json.dumps(document).encode(), LABELS)
    assert (await committed(bucket)).manifest == manifest("front")


# Commit


@pytest.mark.parametrize("new", [manifest("front"), TOMBSTONE, DAMAGED])
async def test_commit_writes_the_first_manifest_unchanged(bucket: Bucket, new: Manifest) -> None:
    assert await commit(bucket, EVALUATION, new, None) is new.outcome
    found = await committed(bucket)
    assert found.manifest == new
    assert found.stored.data == new.as_json()
    assert await bucket.read(EVALUATION.revision_key(1)) is None


async def test_commit_writes_nothing_when_the_content_is_the_same(bucket: Bucket) -> None:
    await commit(bucket, EVALUATION, manifest("front"), None)
    before = await committed(bucket)
    later = manifest("front", archived_at="2027-01-31T12:00:00Z")
    assert await commit(bucket, EVALUATION, later, before) is Outcome.UNCHANGED
    assert await committed(bucket) == before
    assert await bucket.read(EVALUATION.revision_key(1)) is None


async def test_commit_copies_the_first_revision_and_names_its_hash_in_the_second(bucket: Bucket) -> None:
    await commit(bucket, EVALUATION, manifest("front", "back"), None)
    first = await committed(bucket)
    assert await commit(bucket, EVALUATION, manifest("front", "selfie"), first) is Outcome.ARCHIVED
    second = await committed(bucket)
    kept = await bucket.read(EVALUATION.revision_key(1))
    assert kept
    assert kept.data == first.stored.data
    assert (second.manifest.revision, second.manifest.previous) == (2, sha256(first.stored.data))
    assert second.manifest.documents == (record("front"), record("selfie"), record("back", superseded=True))


async def test_commit_copies_the_previous_manifest_byte_for_byte(bucket: Bucket) -> None:
    written = json.dumps(json.loads(manifest("front").as_json()) | {"colour": "blue"}).encode()
    await bucket.create(EVALUATION.manifest_key, written, LABELS)
    await archive(bucket, manifest("back"))
    kept = await bucket.read(EVALUATION.revision_key(1))
    assert kept
    assert kept.data == written
    assert (await committed(bucket)).manifest.previous == sha256(written)


async def test_a_document_that_comes_back_is_no_longer_superseded(bucket: Bucket) -> None:
    for names in (["front", "back"], ["front"], ["back", "front"]):
        await archive(bucket, manifest(*names))
    assert (await committed(bucket)).manifest.documents == (record("back"), record("front"))
    assert len(await history(bucket)) == 3


async def test_commit_raises_and_writes_nothing_when_another_manifest_is_stored_as_the_revision(bucket: Bucket) -> None:
    await archive(bucket, manifest("front"))
    before = await committed(bucket)
    await bucket.create(EVALUATION.revision_key(1), b"something else", LABELS)
    with pytest.raises(IntegrityError):
        await commit(bucket, EVALUATION, manifest("back"), before)
    assert await committed(bucket) == before


@pytest.mark.parametrize("first", [[], ["front"]])
async def test_commit_raises_for_the_second_of_two_workers_that_read_the_same_manifest(
    bucket: Bucket, first: list[str]
) -> None:
    if first:
        await archive(bucket, manifest(*first))
    before = await read_manifest(bucket, EVALUATION)
    assert await commit(bucket, EVALUATION, manifest("front", "faster"), before) is Outcome.ARCHIVED
    with pytest.raises(ManifestChanged):
        await commit(bucket, EVALUATION, manifest("front", "slower"), before)
    assert await archive(bucket, manifest("front", "slower")) is Outcome.ARCHIVED
    names = [{each.name for each in one.documents if not each.superseded} for one in await history(bucket)]
    assert names == [*([{"front"}] if first else []), {"front", "faster"}, {"front", "slower"}]


@pytest.mark.parametrize("bucket", ["memory", "folder"], indirect=True)  # moto's own writes are not atomic
async def test_no_revision_is_lost_when_many_workers_commit_at_once(bucket: Bucket) -> None:
    ended = await asyncio.gather(*[archive(bucket, manifest(f"worker {number}")) for number in range(12)])
    assert ended == [Outcome.ARCHIVED] * 12
    manifests = await history(bucket)
    current = [each.name for one in manifests for each in one.documents if not each.superseded]
    assert sorted(current) == sorted(f"worker {number}" for number in range(12))
    assert len(manifests[-1].documents) == 12


@pytest.mark.parametrize("bucket", ["memory", "folder"], indirect=True)
async def test_one_manifest_is_written_when_many_workers_commit_the_same_documents(bucket: Bucket) -> None:
    same = [manifest("front", archived_at=f"2026-01-31T12:00:{number:02}Z") for number in range(12)]
    ended = await asyncio.gather(*[archive(bucket, each) for each in same])
    assert sorted(ended) == [Outcome.ARCHIVED] + [Outcome.UNCHANGED] * 11
    assert len(await history(bucket)) == 1


@given(st.lists(st.sets(st.sampled_from(["front", "back", "selfie", "other"])), min_size=1, max_size=6))
@settings(max_examples=40)
def test_every_archived_document_stays_listed_after_any_sequence_of_bundles(bundles: list[set[str]]) -> None:
    async def check_sequence() -> None:
        bucket = S3Bucket(MemoryStore())
        ever: set[str] = set()
        changes = 0
        last: set[str] | None = None
        for names in bundles:
            outcome = await archive(bucket, manifest(*names))
            changes += last != names
            assert outcome is (Outcome.UNCHANGED if last is not None and names <= ever else Outcome.ARCHIVED)
            ever, last = ever | names, names
            listed = (await committed(bucket)).manifest.documents
            assert {each.name for each in listed} == ever
            assert {each.name for each in listed if not each.superseded} == names
            assert len(listed) == len(ever)
        assert len(await history(bucket)) == changes

    asyncio.run(check_sequence())


# Held documents, and their state at the source at the last request


def make_answer(status: SourceStatus, code: int = 200, message: str | None = None, **facts: Any) -> Manifest:
    """Return the manifest of a response, as if it were the first."""
    response = ResponseRecord(status=code, message=message)
    source = SourceRecord(status=status, asked_at="2026-01-31T12:00:00.000Z", response=response)
    return manifest(response=response, source=source, **facts)


def delivered(*names: str, damaged: Sequence[str] = (), size: int = 3) -> Manifest:
    return make_answer(
        SourceStatus.PRESENT,
        documents=tuple(record(name) for name in names),
        outcome=Outcome.UNREADABLE if damaged else Outcome.ARCHIVED,
        unreadable=tuple(UnreadableRecord(name=name, cause="wrong_crc") for name in damaged),
        bundle=BundleRecord(filename=None, size=size, sha256=f"{size:064}"),
    )


NO_DOCUMENTS = make_answer(
    SourceStatus.NONE,
    400,
    "No Documents Found",
    outcome=Outcome.NO_DOCUMENTS,
    bundle=None,
    no_documents=NoDocumentsRecord(reason=NoDocumentsReason.RETENTION_OR_UNKNOWN, evidence=()),
    retrieved_at="2027-01-31T12:00:00.000Z",
)
NOT_FOUND = make_answer(SourceStatus.UNKNOWN, 404, "not found", outcome=Outcome.NOT_FOUND, bundle=None)
REFUSED = make_answer(SourceStatus.UNKNOWN, 400, "bad request", outcome=Outcome.REJECTED, bundle=None)


def at_source(found: Manifest) -> dict[str, str]:
    return {document.name: found.at_source(document).value for document in found.documents}


@pytest.mark.parametrize(
    ("answer", "status", "of_each"),
    [
        (delivered("front"), SourceStatus.PARTLY_GONE, {"front": "yes", "back": "no"}),
        (NO_DOCUMENTS, SourceStatus.GONE, {"front": "no", "back": "no"}),
        (NOT_FOUND, SourceStatus.UNKNOWN, {"front": "unknown", "back": "unknown"}),
        (REFUSED, SourceStatus.UNKNOWN, {"front": "unknown", "back": "unknown"}),
    ],
)
async def test_held_documents_stay_listed_when_riskos_answers_with_fewer(
    bucket: Bucket, answer: Manifest, status: SourceStatus, of_each: dict[str, str]
) -> None:
    await archive(bucket, delivered("front", "back"))
    assert await archive(bucket, answer) is Outcome.UNCHANGED
    found = (await committed(bucket)).manifest
    assert (found.outcome, found.revision, found.source_status) == (Outcome.ARCHIVED, 2, status)
    assert (at_source(found), found.last_response) == (of_each, answer.response)
    jsonschema.validate(json.loads(found.as_json()), json.loads(SCHEMA.read_text()))
    assert await archive(bucket, answer) is Outcome.UNCHANGED
    assert len(await history(bucket)) == 2, "nothing is written the second time"


async def test_a_held_evaluation_keeps_the_response_and_the_bundle_of_its_documents(bucket: Bucket) -> None:
    first = delivered("front")
    await archive(bucket, first)
    await archive(bucket, NO_DOCUMENTS)
    found = (await committed(bucket)).manifest
    assert (found.bundle, found.response, found.retrieved_at) == (first.bundle, first.response, first.retrieved_at)
    assert found.no_documents == NO_DOCUMENTS.no_documents


async def test_documents_are_at_the_source_again_when_riskos_sends_them_again(bucket: Bucket) -> None:
    await archive(bucket, delivered("front", "back"))
    for answer in (NO_DOCUMENTS, NOT_FOUND, delivered("back", "front")):
        assert await archive(bucket, answer) is Outcome.UNCHANGED
    found = (await committed(bucket)).manifest
    assert (found.source_status, found.no_documents) == (SourceStatus.PRESENT, None)
    assert at_source(found) == {"back": "yes", "front": "yes"}


async def test_a_new_document_is_archived_when_others_are_gone(bucket: Bucket) -> None:
    await archive(bucket, delivered("front"))
    assert await archive(bucket, delivered("back")) is Outcome.ARCHIVED
    assert at_source((await committed(bucket)).manifest) == {"back": "yes", "front": "no"}


async def test_a_document_is_not_gone_when_riskos_has_its_content_with_another_kind(bucket: Bucket) -> None:
    await archive(bucket, delivered("front"))
    moved = record("front", kind="other", key=EVALUATION.document_key("other", sha256(b"front"), "jpg"))
    await archive(bucket, delivered().model_copy(update={"documents": (moved,)}))
    found = (await committed(bucket)).manifest
    assert [(each.kind, found.at_source(each)) for each in found.documents] == [("other", "yes"), ("selfie", "yes")]
    assert found.source_status is SourceStatus.PRESENT


@pytest.mark.parametrize(
    ("damaged", "status", "back"),
    [
        ("back", SourceStatus.PRESENT, "yes"),
        ("", SourceStatus.UNKNOWN, "unknown"),
        ("x", SourceStatus.PARTLY_GONE, "no"),
    ],
)
async def test_documents_are_not_gone_when_they_may_be_in_the_damaged_part_of_a_bundle(
    bucket: Bucket, damaged: str, status: SourceStatus, back: str
) -> None:
    await archive(bucket, delivered("front", "back"))
    assert await archive(bucket, delivered(*["front"] if damaged else [], damaged=[damaged])) is Outcome.UNREADABLE
    found = (await committed(bucket)).manifest
    assert (found.source_status, at_source(found)["back"]) == (status, back)


async def test_all_held_documents_are_gone_when_riskos_has_only_another_unreadable_file(bucket: Bucket) -> None:
    await archive(bucket, delivered("front"))
    await archive(bucket, delivered(damaged=["another"]))
    found = (await committed(bucket)).manifest
    assert (found.source_status, at_source(found)) == (SourceStatus.GONE, {"front": "no"})


@pytest.mark.parametrize("first", [delivered("front", damaged=["back"]), delivered(damaged=[""])])
@pytest.mark.parametrize("answer", [NO_DOCUMENTS, NOT_FOUND, REFUSED])
async def test_an_unreadable_evaluation_stays_unreadable_until_riskos_sends_a_better_bundle(
    bucket: Bucket, first: Manifest, answer: Manifest
) -> None:
    await archive(bucket, first)
    assert await archive(bucket, answer) is Outcome.UNCHANGED
    found = (await committed(bucket)).manifest
    assert (found.outcome, found.unreadable, found.bundle) == (Outcome.UNREADABLE, first.unreadable, first.bundle)
    assert await archive(bucket, delivered("front", "back")) is Outcome.ARCHIVED


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        (NOT_FOUND, NO_DOCUMENTS, SourceStatus.NONE),
        (NO_DOCUMENTS, NOT_FOUND, SourceStatus.UNKNOWN),
        (NO_DOCUMENTS, REFUSED, SourceStatus.UNKNOWN),
    ],
)
async def test_a_tombstone_has_the_last_response_of_riskos(
    bucket: Bucket, first: Manifest, second: Manifest, status: SourceStatus
) -> None:
    await archive(bucket, first)
    assert await archive(bucket, second) is second.outcome
    found = (await committed(bucket)).manifest
    assert (found.outcome, found.source_status, found.documents) == (second.outcome, status, ())


@pytest.mark.parametrize("outcome", [Outcome.NO_DOCUMENTS, Outcome.NOT_FOUND, Outcome.REJECTED])
@pytest.mark.parametrize("answer", [delivered("front"), NO_DOCUMENTS, NOT_FOUND])
async def test_a_manifest_of_an_older_release_that_lists_documents_counts_as_archived(
    bucket: Bucket, outcome: Outcome, answer: Manifest
) -> None:
    older = manifest(outcome=outcome, documents=(record("front", superseded=True),), bundle=None)
    assert "source" not in json.loads(older.as_json())
    await bucket.create(EVALUATION.manifest_key, older.as_json(), LABELS)
    found = (await committed(bucket)).manifest
    assert (found.manifest_outcome, found.source_status) == (ManifestOutcome.ARCHIVED, SourceStatus.UNKNOWN)
    assert at_source(found) == {"front": "unknown"}
    assert await archive(bucket, answer) is Outcome.UNCHANGED
    found = (await committed(bucket)).manifest
    assert (found.outcome, found.revision, len(found.documents)) == (Outcome.ARCHIVED, 2, 1)


async def test_a_refresh_adds_the_source_to_a_manifest_of_an_older_release(bucket: Bucket) -> None:
    await archive(bucket, manifest("front"))
    for _ in range(2):
        assert await archive(bucket, delivered("front")) is Outcome.UNCHANGED
    assert [each.source_status for each in await history(bucket)] == [SourceStatus.UNKNOWN, SourceStatus.PRESENT]


ANSWERS = st.sampled_from(
    [
        *(delivered("front"), delivered("front", "back"), delivered("selfie")),
        *(delivered("front", damaged=["back"]), delivered(damaged=[""]), NO_DOCUMENTS, NOT_FOUND, REFUSED),
    ]
)


@given(st.lists(ANSWERS, min_size=1, max_size=8))
@settings(max_examples=60)
def test_every_held_document_stays_listed_after_any_sequence_of_responses(answers: list[Manifest]) -> None:
    async def check_sequence() -> None:
        bucket, held, was_unreadable = S3Bucket(MemoryStore()), set[str](), False
        for answer in answers:
            await archive(bucket, answer)
            held |= {document.sha256 for document in answer.documents}
            if answer.bundle:
                was_unreadable = answer.outcome is Outcome.UNREADABLE
            found = (await committed(bucket)).manifest
            assert {document.sha256 for document in found.documents} == held
            expected = Outcome.UNREADABLE if was_unreadable else Outcome.ARCHIVED if held else answer.outcome
            assert found.outcome is expected
            assert found.last_response == answer.last_response
        await history(bucket)

    asyncio.run(check_sequence())


# Attributes


async def test_the_manifest_and_its_former_revisions_have_tags_and_metadata(s3: S3) -> None:
    bucket = S3Bucket(open_archive(Settings(archive_url=f"s3://{s3.bucket}", s3_endpoint=s3.endpoint)))
    for each in (NO_DOCUMENTS, delivered("front")):
        await commit(bucket, EVALUATION, each, await read_manifest(bucket, EVALUATION), {"team": "kyc"})
    for key, outcome, revision in (
        (EVALUATION.manifest_key, "archived", "2"),
        (EVALUATION.revision_key(1), "no_documents", "1"),
    ):
        location = {"Bucket": s3.bucket, "Key": key}
        tags = {tag["Key"]: tag["Value"] for tag in s3.client.get_object_tagging(**location)["TagSet"]}
        assert tags == {
            "environment": "production",
            "document-kind": "manifest",
            "source": "docv-archive",
            "team": "kyc",
        }
        metadata = s3.client.head_object(**location)["Metadata"]
        assert metadata == {"eval-id": EVALUATION.eval_id, "outcome": outcome, "revision": revision}


# Lost responses


def s3_at(url: str, patience: float = 30.0) -> S3Bucket:
    """Return a bucket at a scripted server, without pauses between retries."""
    no_pause = timedelta(milliseconds=1)
    store = S3Store(
        "archive",
        endpoint=url,
        virtual_hosted_style_request=False,
        region="us-east-1",
        skip_signature=True,
        client_options={"allow_http": True, "timeout": timedelta(seconds=patience)},
        retry_config={
            "max_retries": 2,
            "retry_timeout": timedelta(seconds=30),
            "backoff": {"init_backoff": no_pause, "max_backoff": no_pause, "base": 2},
        },
    )
    return S3Bucket(store)


MANIFEST, REVISION = (f"/archive/{key}" for key in (EVALUATION.manifest_key, EVALUATION.revision_key(1)))
FIRST = manifest("front").as_json()

LOST = {
    "500": Reply(s3_error(500, "InternalError")),
    "a reset": Reply(b"", Then.RESET),
    "412": Reply(s3_error(412, "PreconditionFailed")),
    "409": Reply(s3_error(409, "ConditionalRequestConflict")),
    "no ETag": Reply(http(200)),
    "400": Reply(s3_error(400, "RequestTimeout")),
}


async def commit_at(scripted_s3: ScriptedS3, patience: float = 30.0) -> Outcome:
    """Commit another manifest to a scripted S3 that holds one."""
    async with serve_requests(scripted_s3) as server:
        bucket = s3_at(server.url, patience)
        before = await read_manifest(bucket, EVALUATION)
        return await commit(bucket, EVALUATION, manifest("back"), before)


@pytest.mark.parametrize("reply", LOST.values(), ids=LOST)
async def test_commit_succeeds_for_a_first_manifest_when_the_response_is_lost(reply: Reply) -> None:
    scripted_s3 = ScriptedS3(Write(stores=True, reply=reply))
    assert await commit_at(scripted_s3) is Outcome.ARCHIVED
    assert scripted_s3.objects == {MANIFEST: manifest("back").as_json()}


class LostResponseBucket(S3Bucket):
    """A bucket in memory that writes a manifest, and then loses its tags and the response."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.tags: dict[str, Mapping[str, str]] = {}

    async def put_tags(self, key: str, attributes: ObjectAttributes) -> None:
        self.tags[key] = attributes.tags

    async def replace(self, key: str, data: bytes, attributes: ObjectAttributes, etag: str | None) -> None:
        await super().replace(key, data, attributes, etag)
        self.tags.clear()
        raise WriteUnconfirmed("replace", "no response")


async def test_commit_sets_the_tags_when_the_response_is_lost() -> None:
    bucket = LostResponseBucket()
    await commit(bucket, EVALUATION, manifest("front"), None, {"team": "kyc"})
    assert bucket.tags[EVALUATION.manifest_key]["team"] == "kyc"


@pytest.mark.parametrize("reply", LOST.values(), ids=LOST)
async def test_commit_writes_a_second_manifest_once_when_the_response_is_lost(reply: Reply) -> None:
    scripted_s3 = ScriptedS3(Write(stores=True), Write(stores=True, reply=reply))
    scripted_s3.objects[MANIFEST] = FIRST
    assert await commit_at(scripted_s3) is Outcome.ARCHIVED
    assert scripted_s3.objects.keys() == {MANIFEST, REVISION}
    assert scripted_s3.objects[REVISION] == FIRST
    second = Manifest.model_validate_json(scripted_s3.objects[MANIFEST])
    assert (second.revision, second.previous) == (2, sha256(FIRST))


async def test_commit_reads_the_manifest_back_when_no_response_arrives() -> None:
    scripted_s3 = ScriptedS3(Write(stores=True, reply=Reply(b"", Then.HANG)))
    assert await commit_at(scripted_s3, patience=0.5) is Outcome.ARCHIVED


@pytest.mark.parametrize("reply", [LOST[each] for each in ("a reset", "no ETag", "400", "412")])
async def test_commit_raises_when_the_manifest_did_not_arrive(reply: Reply) -> None:
    scripted_s3 = ScriptedS3(*[Write(stores=False, reply=reply)] * 10)
    with pytest.raises(ManifestChanged):
        await commit_at(scripted_s3)
    assert scripted_s3.objects == {}


@pytest.mark.parametrize("reply", [LOST[each] for each in ("a reset", "no ETag", "400", "412")])
async def test_the_first_manifest_stays_when_the_second_did_not_arrive(reply: Reply) -> None:
    scripted_s3 = ScriptedS3(Write(stores=True), *[Write(stores=False, reply=reply)] * 10)
    scripted_s3.objects[MANIFEST] = FIRST
    with pytest.raises(ManifestChanged):
        await commit_at(scripted_s3)
    assert scripted_s3.objects == {MANIFEST: FIRST, REVISION: FIRST}


async def test_commit_raises_when_the_revision_cannot_be_stored() -> None:
    scripted_s3 = ScriptedS3(Write(stores=False, reply=Reply(s3_error(403, "AccessDenied"))))
    scripted_s3.objects[MANIFEST] = FIRST
    with pytest.raises(StorageError):
        await commit_at(scripted_s3)
    assert scripted_s3.objects == {MANIFEST: FIRST}


async def test_commit_raises_storage_error_when_the_write_is_denied() -> None:
    with pytest.raises(StorageError, match="denied"):
        await commit_at(ScriptedS3(Write(stores=False, reply=Reply(s3_error(403, "AccessDenied")))))


# Disposals and legal holds


def disposed(name: str) -> DisposedRecord:
    gone = record(name)
    return DisposedRecord(
        kind=gone.kind,
        key=gone.key,
        sha256=gone.sha256,
        size=gone.size,
        rule="selfies",
        clock="archived",
        started=date(2026, 1, 31),
        due=date(2029, 2, 1),
        archived_at=gone.archived_at,
        disposed_at="2029-02-01T00:00:00.000Z",
        receipt="receipts/disposals/1.json",
    )


@pytest.mark.parametrize(
    "answer",
    [
        manifest("back"),
        manifest(documents=(), disposed=(disposed("front"),)),
        TOMBSTONE.model_copy(update={"no_documents": None}),
        manifest(outcome=Outcome.NOT_FOUND, bundle=None, response=ResponseRecord(status=404, message=None)),
    ],
    ids=["a bundle", "the same again", "no documents", "not found"],
)
async def test_disposals_and_matters_stay_listed_whatever_riskos_answers(answer: Manifest) -> None:
    bucket = S3Bucket(MemoryStore())
    gone = disposed("front")
    await archive(bucket, manifest(documents=(), disposed=(gone,), matters=("acme-v-bolt",)))

    await archive(bucket, answer)

    now = (await committed(bucket)).manifest
    assert now.disposed == (gone,)
    assert now.matters == ("acme-v-bolt",)
    assert now.manifest_outcome is (ManifestOutcome.ARCHIVED if now.documents else ManifestOutcome.DISPOSED)
    assert now.outcome is Outcome.ARCHIVED


async def test_a_delivery_with_only_due_documents_is_unchanged_when_all_others_were_disposed_of() -> None:
    bucket = S3Bucket(MemoryStore())
    await archive(bucket, manifest(documents=(), disposed=(disposed("front"),)))

    outcome = await archive(bucket, manifest(documents=(), disposed=(disposed("front"), disposed("back"))))

    assert outcome is Outcome.UNCHANGED
    assert [each.sha256 for each in (await committed(bucket)).manifest.disposed] == [
        record(name).sha256 for name in ("front", "back")
    ]


@pytest.mark.parametrize("before", [None, TOMBSTONE, DAMAGED.model_copy(update={"documents": ()})])
async def test_a_delivery_counts_as_withheld_when_all_its_documents_are_due(before: Manifest | None) -> None:
    bucket = S3Bucket(MemoryStore())
    if before:
        await archive(bucket, before)

    outcome = await archive(bucket, manifest(documents=(), disposed=(disposed("front"),)))

    assert outcome is Outcome.WITHHELD
    now = (await committed(bucket)).manifest
    assert (now.outcome, now.manifest_outcome) == (Outcome.ARCHIVED, ManifestOutcome.DISPOSED)


def test_a_bundle_in_quarantine_is_unreadable_even_if_its_readable_documents_were_disposed_of() -> None:
    bundle = BundleRecord(filename="x.zip", size=3, sha256="0" * 64)
    unreadable = DAMAGED.model_copy(update={"documents": (), "disposed": (disposed("front"),)})

    assert unreadable.model_copy(update={"quarantined": (bundle,)}).manifest_outcome is ManifestOutcome.UNREADABLE
    assert unreadable.manifest_outcome is ManifestOutcome.DISPOSED


async def test_a_held_document_stays_held_when_a_worker_lists_it_as_disposed() -> None:
    bucket = S3Bucket(MemoryStore())
    await archive(bucket, manifest("front"))

    await archive(bucket, manifest("back", disposed=(disposed("front"),)))

    now = (await committed(bucket)).manifest
    assert [each.name for each in now.documents] == ["back", "front"]
    assert now.disposed == ()


async def test_a_document_that_was_disposed_of_meanwhile_is_not_listed_again() -> None:
    bucket = S3Bucket(MemoryStore())
    await archive(bucket, manifest("back", disposed=(disposed("front"),)))

    await archive(bucket, manifest("front", "back"))

    assert [each.name for each in (await committed(bucket)).manifest.documents] == ["back"]


async def test_a_document_keeps_the_time_at_which_it_was_first_archived() -> None:
    bucket = S3Bucket(MemoryStore())
    await archive(bucket, manifest(documents=(record("front", archived_at=None),)))

    later = "2027-01-01T00:00:00.000Z"
    again = (record("front", archived_at=later), record("back", archived_at=later))
    await archive(bucket, manifest(documents=again, archived_at=later))

    times = [each.archived_at for each in (await committed(bucket)).manifest.documents]
    assert times == ["2026-01-31T12:00:01.000Z", later], "a manifest of an older version has only its own time"


async def test_amend_retries_and_writes_the_next_revision_when_the_manifest_changed() -> None:
    bucket = S3Bucket(MemoryStore())
    await archive(bucket, manifest("front"))
    tries = []

    def hold(before: Manifest) -> Manifest:
        tries.append(before.revision)
        return before.model_copy(update={"matters": ("acme-v-bolt",)})

    real = bucket.replace
    with patch.object(bucket, "replace", side_effect=[ManifestChanged(), DEFAULT], wraps=real):
        amended = await amend(bucket, EVALUATION, hold)

    assert tries == [1, 1]
    assert [each.matters for each in await history(bucket)] == [(), ("acme-v-bolt",)]
    assert (await committed(bucket)).manifest == amended


async def test_an_amendment_keeps_the_time_at_which_a_document_of_an_older_version_was_archived() -> None:
    bucket = S3Bucket(MemoryStore())
    await archive(bucket, manifest(documents=(record("front", archived_at=None),)))

    await amend(bucket, EVALUATION, lambda before: before.model_copy(update={"matters": ("x",)}))

    assert (await committed(bucket)).manifest.documents[0].archived_at == "2026-01-31T12:00:01.000Z"


@pytest.mark.parametrize(
    ("disposed_of", "status"),
    [("gone", SourceStatus.PRESENT), ("there", SourceStatus.GONE), ("gone too", SourceStatus.PARTLY_GONE)],
)
async def test_the_source_status_after_a_disposal_is_that_of_the_other_documents(
    disposed_of: str, status: SourceStatus
) -> None:
    bucket = S3Bucket(MemoryStore())
    going = ("gone too",) if disposed_of == "gone too" else ()
    await archive(bucket, manifest("there", "gone", *going, source=SOURCE))
    await archive(bucket, manifest("there", source=SOURCE))
    assert (await committed(bucket)).manifest.source_status is SourceStatus.PARTLY_GONE

    def dispose(before: Manifest) -> Manifest:
        kept = tuple(each for each in before.documents if each.name != disposed_of)
        return before.model_copy(update={"documents": kept, "disposed": (disposed(disposed_of),)})

    await amend(bucket, EVALUATION, dispose)

    assert (await committed(bucket)).manifest.source_status is status


async def test_an_amendment_that_changes_nothing_writes_nothing() -> None:
    bucket = S3Bucket(MemoryStore())
    assert await amend(bucket, EVALUATION, lambda before: before) is None

    await archive(bucket, manifest("front"))
    assert await amend(bucket, EVALUATION, lambda _: None) == (await committed(bucket)).manifest
    assert len(await history(bucket)) == 1
