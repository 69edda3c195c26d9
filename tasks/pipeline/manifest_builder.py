"""What a manifest will say: the facts of every step, brought together.

Made of return values only: of what was answered, read and stored, not of what was meant to be.
"""

from tasks.bundle.unpacker import BundleContents
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job
from tasks.model.outcome import Outcome, SourceStatus, reason_from
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
) -> Manifest:
    """Return the manifest as if it were the first; ``tasks.storage.manifest.next_revision`` makes it the next one.

    Args:
        retrieved_at: when RiskOS answered, as ``utc_now`` writes it.
        sealed_with: ID of the key that documents, and bundles in quarantine, are sealed with.
    """
    if isinstance(result, NoBundle):
        outcome, bundle = result.outcome, None
        # A 404, or a refusal of the request, does not say what RiskOS has.
        status = SourceStatus.NONE if outcome is Outcome.NO_DOCUMENTS else SourceStatus.UNKNOWN
        response = ResponseRecord(status=result.status, message=result.message, request_id=result.request_id)
    else:
        outcome, status = Outcome.UNREADABLE if contents.unreadable else Outcome.ARCHIVED, SourceStatus.PRESENT
        bundle = BundleRecord(
            filename=result.filename,
            size=result.size,
            sha256=result.sha256,
            sealed_with=sealed_with if contents.unreadable else None,
        )
        response = ResponseRecord(status=_OK, message=None, request_id=result.request_id)
    trigger, no_documents = job.trigger, None
    if outcome is Outcome.NO_DOCUMENTS:
        no_documents = NoDocumentsRecord(reason=reason_from(job.evidence), evidence=job.evidence)
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
        source=SourceRecord(status=status, asked_at=retrieved_at, response=response),
        no_documents=no_documents,
        trigger=TriggerRecord(
            source=trigger.source, run=trigger.run, event_type=trigger.event_type, event_id=trigger.event_id
        ),
        retrieved_at=retrieved_at,
        archived_at=utc_now(),
        archiver=archiver(),
    )


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
