"""What a manifest will say: the facts of every step, brought together.

Made of return values only: of what was answered, read and stored, not of what was meant to be.
"""

from collections.abc import Sequence
from dataclasses import replace

from tasks.bundle.documents import Document, Kind
from tasks.bundle.unpacker import BundleContents
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job
from tasks.model.outcome import ManifestOutcome, Outcome, SourceStatus, explaining, reason_from
from tasks.pipeline.upload import StoredDocument
from tasks.riskos.response import FetchResult, NoBundle
from tasks.storage.manifest import (
    BundleRecord,
    DocumentRecord,
    Manifest,
    NoDocumentsRecord,
    ResponseRecord,
    SourceRecord,
    TriggerRecord,
    archiver,
    format_utc,
    utc_now,
)

_OK = 200


def build_manifest(
    evaluation: Evaluation,
    job: Job,
    result: FetchResult,
    contents: BundleContents,
    stored: list[StoredDocument],
    *,
    retrieved_at: str,
    sealed_with: str | None = None,
    previous: Manifest | None = None,
) -> Manifest:
    """Return the manifest as if it were the first; ``tasks.storage.manifest.next_revision`` makes it the next one.

    Args:
        retrieved_at: when RiskOS answered, as ``utc_now`` writes it.
        sealed_with: ID of the key that documents, and bundles in quarantine, are sealed with.
        previous: the manifest before, of which evidence and time stay known.
    """
    if isinstance(result, NoBundle):
        outcome, bundle = result.outcome, None
        # A 404, or a refusal of the request, does not say what RiskOS has; without a request nothing does.
        has_none = outcome is Outcome.NO_DOCUMENTS and result.status
        status = SourceStatus.NONE if has_none else SourceStatus.UNKNOWN
        response = ResponseRecord(status=result.status, message=result.message, request_id=result.request_id)
    else:
        outcome, status = Outcome.UNREADABLE if contents.is_damaged else Outcome.ARCHIVED, SourceStatus.PRESENT
        bundle = BundleRecord(
            filename=result.filename,
            size=result.size,
            sha256=result.sha256,
            sealed_with=sealed_with if contents.is_damaged else None,
        )
        response = ResponseRecord(status=_OK, message=None, request_id=result.request_id)
    return Manifest(
        schema=1,
        eval_id=evaluation.eval_id,
        environment=evaluation.environment,  # type: ignore[arg-type]  # checked by pydantic
        account=evaluation.account,
        outcome=outcome,  # type: ignore[arg-type]  # checked by pydantic
        revision=1,
        previous=None,
        documents=tuple(_document(each, sealed_with) for each in stored),
        unreadable=contents.unreadable,
        bundle=bundle,
        response=response,
        source=SourceRecord(status=status, asked_at=retrieved_at if response.status else None, response=response),
        no_documents=_explain(job, previous) if outcome is Outcome.NO_DOCUMENTS else None,
        trigger=_trigger_record(job),
        event_at=_latest_event_at(job, previous),
        retrieved_at=retrieved_at,
        archived_at=utc_now(),
        archiver=archiver(),
    )


def build_unasked_tombstone(evaluation: Evaluation, job: Job) -> Manifest:
    """Return the manifest of an evaluation for which RiskOS need not be asked."""
    answer = NoBundle(Outcome.NO_DOCUMENTS, 0, None)
    return build_manifest(evaluation, job, answer, BundleContents(), [], retrieved_at=utc_now())


def add_evidence(job: Job, tombstone: Manifest) -> Manifest | None:
    """Return a tombstone with the evidence of a job; None if that changes nothing about its reason."""
    if tombstone.manifest_outcome is not ManifestOutcome.NO_DOCUMENTS:
        return None
    explained = _explain(job, tombstone)
    if tombstone.no_documents and set(explained.evidence) == set(tombstone.no_documents.evidence):
        return None
    changes = {
        "no_documents": explained,
        "trigger": _trigger_record(job),
        "event_at": _latest_event_at(job, tombstone),
        "archived_at": utc_now(),
        "archiver": archiver(),
    }
    return tombstone.model_copy(update=changes)


def _explain(job: Job, previous: Manifest | None) -> NoDocumentsRecord:
    known = previous.no_documents.evidence if previous and previous.no_documents else ()
    evidence = explaining((*known, *job.evidence))
    return NoDocumentsRecord(reason=reason_from(evidence), evidence=evidence)


def _trigger_record(job: Job) -> TriggerRecord:
    trigger = job.trigger
    return TriggerRecord(
        source=trigger.source, run=trigger.run, event_type=trigger.event_type, event_id=trigger.event_id
    )


def _latest_event_at(job: Job, previous: Manifest | None) -> str | None:
    moments = [format_utc(job.event_at)] if job.event_at is not None else []
    if previous and previous.event_at:
        moments.append(previous.event_at)
    return max(moments, default=None)


def keep_kinds(documents: Sequence[Document], previous: Manifest | None) -> list[Document]:
    """Return documents with the kinds that a former manifest gives them: what names mean may have changed since.

    Otherwise a bundle that has not changed would make a revision.
    """
    before = {(each.name, each.sha256): each.kind for each in previous.documents} if previous else {}
    kinds = ((document, before.get((document.name, document.sha256))) for document in documents)
    return [replace(document, kind=Kind(kind)) if kind in set(Kind) else document for document, kind in kinds]


def _document(stored: StoredDocument, sealed_with: str | None) -> DocumentRecord:
    document = stored.document
    return DocumentRecord(
        name=document.name,
        kind=document.kind.value,
        key=stored.key,
        media_type=document.media_type,
        size=document.size,
        sha256=document.sha256,
        modified=document.modified,
        named_as=document.name_mismatch,
        sealed_with=sealed_with,
    )
