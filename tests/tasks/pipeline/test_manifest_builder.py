"""What a manifest will say, told from what was answered, read and stored."""

from dataclasses import replace
from uuid import uuid4

import pytest

from tasks.bundle.documents import identify
from tasks.bundle.unpack import Limits, unpack
from tasks.bundle.unpacker import BundleContents
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job, Queue, Trigger
from tasks.model.outcome import Evidence, NoDocumentsReason, Outcome, SourceStatus
from tasks.pipeline.manifest_builder import build_manifest, build_unasked_tombstone
from tasks.pipeline.upload import StoredDocument
from tasks.riskos.response import Bundle, NoBundle
from tasks.storage.manifest import DocumentRecord, ResponseRecord, SourceRecord, UnreadableRecord
from tests.zips import zip_of

EVALUATION = Evaluation(str(uuid4()), "production", "default")
ENTRY = Job(EVALUATION.eval_id, "token", Queue.BACKFILL, "default", False, 0, 0, Trigger("run", run="q3"))  # noqa: FBT003
AT = "2026-11-23T04:00:00.000Z"


@pytest.mark.parametrize("outcome", [Outcome.NO_DOCUMENTS, Outcome.NOT_FOUND, Outcome.REJECTED])
def test_what_riskos_does_not_give_leaves_a_tombstone_with_its_own_words(outcome: Outcome) -> None:
    manifest = build_manifest(
        EVALUATION, ENTRY, NoBundle(outcome, 400, "its words", "r-1"), BundleContents(), [], retrieved_at=AT
    )
    assert (manifest.outcome, manifest.documents, manifest.bundle) == (outcome, (), None)
    assert manifest.response == ResponseRecord(status=400, message="its words", request_id="r-1")
    assert (manifest.no_documents is not None) == (outcome is Outcome.NO_DOCUMENTS)


def test_why_there_are_no_documents_is_unknown_unless_somebody_says() -> None:
    answer = NoBundle(Outcome.NO_DOCUMENTS, 400, "No Documents Found")
    manifest = build_manifest(EVALUATION, ENTRY, answer, BundleContents(), [], retrieved_at=AT)
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
def test_what_a_webhook_told_explains_why_there_are_no_documents(
    evidence: tuple[Evidence, ...], reason: NoDocumentsReason
) -> None:
    answer = NoBundle(Outcome.NO_DOCUMENTS, 400, "No Documents Found")
    manifest = build_manifest(
        EVALUATION, replace(ENTRY, evidence=evidence), answer, BundleContents(), [], retrieved_at=AT
    )
    assert manifest.no_documents is not None
    assert (manifest.no_documents.reason, manifest.no_documents.evidence) == (reason, evidence)


@pytest.mark.parametrize(
    ("evidence", "told"),
    [
        ((Evidence.DOCV_STEP,), ()),
        ((Evidence.NO_DOCV_STEP, Evidence.DOCV_STEP), ()),
        ((Evidence.DOCV_STEP, Evidence.NO_DOCV_STEP, Evidence.UNDER_AGE), (Evidence.UNDER_AGE,)),
    ],
)
def test_a_docv_step_explains_nothing_and_refutes_that_there_was_none(
    evidence: tuple[Evidence, ...], told: tuple[Evidence, ...]
) -> None:
    record = build_unasked_tombstone(EVALUATION, replace(ENTRY, evidence=evidence)).no_documents
    assert record
    assert record.evidence == told


def test_a_tombstone_without_a_request_says_that_riskos_was_not_asked() -> None:
    job = replace(ENTRY, evidence=(Evidence.NO_DOCV_STEP,), event_at=1_769_860_800.512)
    manifest = build_unasked_tombstone(EVALUATION, job)
    assert (manifest.outcome, manifest.documents, manifest.bundle) == (Outcome.NO_DOCUMENTS, (), None)
    assert manifest.response == ResponseRecord(status=0, message=None)
    assert manifest.source == SourceRecord(status=SourceStatus.UNKNOWN, asked_at=None, response=manifest.response)
    assert manifest.event_at == "2026-01-31T12:00:00.512Z"
    assert build_unasked_tombstone(EVALUATION, ENTRY).event_at is None


def test_what_the_manifest_before_knew_stays_known() -> None:
    answer = NoBundle(Outcome.NO_DOCUMENTS, 400, "No Documents Found")
    before = build_unasked_tombstone(EVALUATION, replace(ENTRY, evidence=(Evidence.MILITARY_ID,), event_at=20.0))
    for event_at, latest in ((None, 20), (10.0, 20), (30.0, 30)):
        job = replace(ENTRY, evidence=(Evidence.UNDER_AGE,), event_at=event_at)
        manifest = build_manifest(EVALUATION, job, answer, BundleContents(), [], retrieved_at=AT, previous=before)
        assert manifest.event_at == f"1970-01-01T00:00:{latest}.000Z"
        assert manifest.no_documents
        assert manifest.no_documents.evidence == (Evidence.MILITARY_ID, Evidence.UNDER_AGE)


def test_a_bundle_that_was_read_whole_is_archived_with_each_document_named_as_it_was() -> None:
    documents = tuple(
        identify(member) for member in unpack(zip_of({"case_attachments/a.png": b"text"}), Limits()).members
    )
    stored = [StoredDocument(document, f"key/{document.sha256}") for document in documents]
    answer = Bundle("a.zip", b"zipped", "0" * 64, 6, "r-1")

    manifest = build_manifest(EVALUATION, ENTRY, answer, BundleContents(documents), stored, retrieved_at=AT)

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
        ),
    )
    assert (manifest.retrieved_at, manifest.trigger.source, manifest.trigger.run) == (AT, "run", "q3")
    assert (manifest.revision, manifest.previous) == (1, None)


def test_one_member_that_cannot_be_read_makes_the_evaluation_unreadable() -> None:
    bad = UnreadableRecord(name="a.jpg", cause="wrong_crc")
    answer = Bundle(None, b"", "0" * 64, 0)
    manifest = build_manifest(EVALUATION, ENTRY, answer, BundleContents(unreadable=(bad,)), [], retrieved_at=AT)
    assert (manifest.outcome, manifest.unreadable) == (Outcome.UNREADABLE, (bad,))
