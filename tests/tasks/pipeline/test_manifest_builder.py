"""A manifest is built from an answer, its documents and their objects."""

import json
import struct
from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

import pytest

from tasks.bundle.documents import Document, identify
from tasks.bundle.unpack import unpack
from tasks.bundle.unpacker import BundleContents
from tasks.bundle.zip import Limits, Padding
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job, Queue, Trigger
from tasks.model.outcome import Evidence, NoDocumentsReason, Outcome, SourceStatus
from tasks.pipeline.manifest_builder import add_documents, build_manifest, build_tombstone_without_request, keep_keys
from tasks.pipeline.upload import StoredDocument
from tasks.riskos.response import Bundle, NoBundle
from tasks.storage.manifest import Manifest
from tasks.storage.manifest_records import (
    BundleRecord,
    DocumentRecord,
    PaddingRecord,
    ResponseRecord,
    SourceRecord,
    UnreadableRecord,
)
from tests.zips import Raw, forged, zip_of

EVALUATION = Evaluation(str(uuid4()), "production", "default")
JOB = Job(EVALUATION.eval_id, "token", Queue.BACKFILL, "default", False, 0, 0, Trigger("run", run="q3"))  # noqa: FBT003
AT = "2026-11-23T04:00:00.000Z"


@pytest.mark.parametrize("outcome", [Outcome.NO_DOCUMENTS, Outcome.NOT_FOUND, Outcome.REJECTED])
def test_a_tombstone_has_the_message_of_riskos(outcome: Outcome) -> None:
    manifest = build_manifest(
        EVALUATION, JOB, NoBundle(outcome, 400, "its message", "r-1"), BundleContents(), retrieved_at=AT
    )
    assert (manifest.outcome, manifest.documents, manifest.bundle) == (outcome, (), None)
    assert manifest.response == ResponseRecord(status=400, message="its message", request_id="r-1")
    assert (manifest.no_documents is not None) == (outcome is Outcome.NO_DOCUMENTS)


def test_the_reason_is_unknown_without_evidence() -> None:
    answer = NoBundle(Outcome.NO_DOCUMENTS, 400, "No Documents Found")
    manifest = build_manifest(EVALUATION, JOB, answer, BundleContents(), retrieved_at=AT)
    assert manifest.no_documents is not None
    assert manifest.no_documents.reason is NoDocumentsReason.RETENTION_OR_UNKNOWN
    assert manifest.no_documents.evidence == ()


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        ((Evidence.MILITARY_ID,), NoDocumentsReason.MILITARY),
        ((Evidence.UNDER_AGE,), NoDocumentsReason.MINOR),
        ((Evidence.UNDER_AGE, Evidence.MILITARY_ID), NoDocumentsReason.MILITARY),
        ((Evidence.NO_DOCV_STEP,), NoDocumentsReason.NO_DOCV_STEP),
        ((Evidence.NO_DOCV_STEP, Evidence.UNDER_AGE), NoDocumentsReason.MINOR),
    ],
)
def test_evidence_gives_the_reason_why_there_are_no_documents(
    evidence: tuple[Evidence, ...], reason: NoDocumentsReason
) -> None:
    answer = NoBundle(Outcome.NO_DOCUMENTS, 400, "No Documents Found")
    manifest = build_manifest(EVALUATION, replace(JOB, evidence=evidence), answer, BundleContents(), retrieved_at=AT)
    assert manifest.no_documents is not None
    assert (manifest.no_documents.reason, manifest.no_documents.evidence) == (reason, evidence)


@pytest.mark.parametrize(
    ("evidence", "recorded"),
    [
        ((Evidence.DOCV_STEP,), ()),
        ((Evidence.NO_DOCV_STEP, Evidence.DOCV_STEP), ()),
        ((Evidence.DOCV_STEP, Evidence.NO_DOCV_STEP, Evidence.UNDER_AGE), (Evidence.UNDER_AGE,)),
    ],
)
def test_evidence_of_a_docv_step_is_not_recorded_and_removes_evidence_of_no_step(
    evidence: tuple[Evidence, ...], recorded: tuple[Evidence, ...]
) -> None:
    record = build_tombstone_without_request(EVALUATION, replace(JOB, evidence=evidence)).no_documents
    assert record
    assert record.evidence == recorded


def test_a_tombstone_without_a_request_has_status_0() -> None:
    job = replace(JOB, evidence=(Evidence.NO_DOCV_STEP,), event_at=1_769_860_800.512)
    manifest = build_tombstone_without_request(EVALUATION, job)
    assert (manifest.outcome, manifest.documents, manifest.bundle) == (Outcome.NO_DOCUMENTS, (), None)
    assert manifest.response == ResponseRecord(status=0, message=None)
    assert manifest.source == SourceRecord(status=SourceStatus.UNKNOWN, asked_at=None, response=manifest.response)
    assert manifest.event_at == "2026-01-31T12:00:00.512Z"
    assert build_tombstone_without_request(EVALUATION, JOB).event_at is None


def test_the_evidence_of_the_previous_manifest_is_kept() -> None:
    answer = NoBundle(Outcome.NO_DOCUMENTS, 400, "No Documents Found")
    before = build_tombstone_without_request(EVALUATION, replace(JOB, evidence=(Evidence.MILITARY_ID,), event_at=20.0))
    for event_at, latest in ((None, 20), (10.0, 20), (30.0, 30)):
        job = replace(JOB, evidence=(Evidence.UNDER_AGE,), event_at=event_at)
        manifest = build_manifest(EVALUATION, job, answer, BundleContents(), retrieved_at=AT, previous=before)
        assert manifest.event_at == f"1970-01-01T00:00:{latest}.000Z"
        assert manifest.no_documents
        assert manifest.no_documents.evidence == (Evidence.MILITARY_ID, Evidence.UNDER_AGE)


def test_padding_is_recorded_only_if_the_bundle_has_some() -> None:
    answer = Bundle("a.zip", b"zipped", "0" * 64, 6, "r-1")

    def bundle_record(padding: Padding) -> BundleRecord | None:
        contents = BundleContents(padding=padding)
        return build_manifest(EVALUATION, JOB, answer, contents, retrieved_at=AT).bundle

    padded, plain = bundle_record(Padding(1, 0)), bundle_record(Padding(0, 0))
    assert padded
    assert padded.padding == PaddingRecord(before=1, after=0)
    assert plain
    assert "padding" not in json.loads(plain.as_json())


def test_a_document_with_conflicting_names_has_kind_other_and_lists_them() -> None:
    def documents_of(*extra: bytes) -> tuple[Document, ...]:
        bundle = forged(*(Raw(name=b"front.jpg", central={"extra": each}) for each in extra))
        return tuple(map(identify, unpack(bundle, Limits()).members))

    def manifest_of(documents: Sequence[Document]) -> Manifest:
        stored = [StoredDocument(document, f"key/{document.sha256}") for document in documents]
        answer = Bundle("a.zip", b"zipped", "0" * 64, 6, "r-1")
        contents = BundleContents(tuple(documents))
        return add_documents(build_manifest(EVALUATION, JOB, answer, contents, retrieved_at=AT), stored, archived_at=AT)

    before = manifest_of(documents_of(b""))
    assert before.documents[0].kind == "document_front"
    assert not {"name_conflict", "name_encoding"} & before.documents[0].model_dump().keys()

    wrong = struct.pack("<2HBL", 0x7075, 6, 1, 0) + b"x"
    (record,) = manifest_of(keep_keys(documents_of(wrong), EVALUATION, before)).documents
    assert (record.name, record.kind, record.name_conflict) == ("front.jpg", "other", ("x",))
    assert json.loads(record.as_json())["name_conflict"] == ["x"]


def test_a_whole_bundle_is_archived_with_the_original_names() -> None:
    documents = tuple(
        identify(member) for member in unpack(zip_of({"case_attachments/a.png": b"text"}), Limits()).members
    )
    stored = [StoredDocument(document, f"key/{document.sha256}") for document in documents]
    answer = Bundle("a.zip", b"zipped", "0" * 64, 6, "r-1")

    draft = build_manifest(EVALUATION, JOB, answer, BundleContents(documents), retrieved_at=AT)
    manifest = add_documents(draft, stored, archived_at=AT)

    assert manifest.outcome is Outcome.ARCHIVED
    assert manifest.response == ResponseRecord(status=200, message=None, request_id="r-1")
    assert manifest.bundle is not None
    assert (manifest.bundle.filename, manifest.bundle.size, manifest.bundle.sha256) == ("a.zip", 6, "0" * 64)
    assert manifest.documents == (
        DocumentRecord(
            name="case_attachments/a.png",
            kind="attachment",
            key=f"key/{documents[0].sha256}",
            media_type="text/plain",
            size=4,
            sha256=documents[0].sha256,
            modified=documents[0].modified,
            named_as="image/png",
            archived_at=AT,
        ),
    )
    assert (manifest.retrieved_at, manifest.trigger.source, manifest.trigger.run) == (AT, "run", "q3")
    assert (manifest.revision, manifest.previous) == (1, None)


def test_an_evaluation_is_unreadable_when_one_member_cannot_be_read() -> None:
    bad = UnreadableRecord(name="a.jpg", cause="wrong_crc")
    answer = Bundle(None, b"", "0" * 64, 0)
    manifest = build_manifest(EVALUATION, JOB, answer, BundleContents(unreadable=(bad,)), retrieved_at=AT)
    assert (manifest.outcome, manifest.unreadable) == (Outcome.UNREADABLE, (bad,))


@pytest.mark.parametrize(
    ("stored", "extension"),
    [
        ((("attachment", "own", "bin"),), "bin"),
        ((("attachment", "own", "bin"), ("attachment", "own", "dat")), "bin"),
        ((("attachment", "another", "bin"),), "txt"),
        ((("other", "own", "bin"),), "txt"),
        ((("attachment", "own", "b/in"),), "txt"),
        ((), "txt"),
    ],
)
def test_a_stored_document_keeps_the_extension_of_its_key(
    stored: tuple[tuple[str, str, str], ...], extension: str
) -> None:
    """The bundle has the bytes under a new name, and the manifest already lists them with other extensions."""
    (document,) = (identify(each) for each in unpack(zip_of({"case_attachments/new": b"text"}), Limits()).members)
    evaluations = {"own": EVALUATION, "another": Evaluation(str(uuid4()), "production")}
    records = tuple(
        DocumentRecord(
            name="case_attachments/old",
            kind=kind,
            key=evaluations[owner].document_key(kind, document.sha256, suffix),
            media_type="application/octet-stream",
            size=4,
            sha256=document.sha256,
            modified=None,
        )
        for kind, owner, suffix in stored
    )
    before = build_tombstone_without_request(EVALUATION, JOB).model_copy(update={"documents": records})

    assert keep_keys([document], EVALUATION, before) == [replace(document, extension=extension)]
