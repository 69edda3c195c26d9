"""What a manifest will say: the facts of every step, brought together.

Made of return values only: of what was answered, read and stored, not of what was meant to be.
"""

from tasks.bundle.unpacker import BundleContents
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job
from tasks.model.outcome import Evidence, Outcome, reason_from
from tasks.pipeline.upload import StoredDocument
from tasks.riskos.response import FetchResult, NoBundle
from tasks.storage.manifest import (
    BundleRecord,
    DocumentRecord,
    Manifest,
    NoDocumentsRecord,
    ResponseRecord,
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
    absent = result if isinstance(result, NoBundle) else None
    outcome, trigger = _outcome(result, contents), job.trigger
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
        bundle=_bundle(result, sealed_with if contents.unreadable else None),
        response=ResponseRecord(status=absent.status if absent else _OK, message=absent.message if absent else None),
        no_documents=_no_documents(outcome, job.evidence),
        trigger=TriggerRecord(
            source=trigger.source, run=trigger.run, event_type=trigger.event_type, event_id=trigger.event_id
        ),
        retrieved_at=retrieved_at,
        archived_at=utc_now(),
        archiver=archiver(),
    )


def _outcome(result: FetchResult, contents: BundleContents) -> Outcome:
    if isinstance(result, NoBundle):
        return result.outcome
    return Outcome.UNREADABLE if contents.unreadable else Outcome.ARCHIVED


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


def _bundle(result: FetchResult, sealed_with: str | None) -> BundleRecord | None:
    if isinstance(result, NoBundle):
        return None
    return BundleRecord(filename=result.filename, size=result.size, sha256=result.sha256, sealed_with=sealed_with)


def _no_documents(outcome: Outcome, evidence: tuple[Evidence, ...]) -> NoDocumentsRecord | None:
    if outcome is not Outcome.NO_DOCUMENTS:
        return None
    return NoDocumentsRecord(reason=reason_from(evidence), evidence=evidence)
