"""Build the manifest of an evaluation from the results of every step.

It is built from return values only, so it records what was received, read and stored, and never an intention.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tasks.bundle.documents import Document, Kind
from tasks.bundle.unpacker import BundleContents
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job
from tasks.model.outcome import Evidence, Outcome, SourceStatus, reason_from, restriction_from, select_explaining
from tasks.pipeline.upload import StoredDocument
from tasks.riskos.response import Bundle, FetchResult, NoBundle, WithheldBundle
from tasks.storage.manifest import Manifest, archiver, format_utc, utc_now
from tasks.storage.manifest_records import (
    BundleRecord,
    DisposedRecord,
    DocumentRecord,
    NoDocumentsRecord,
    PaddingRecord,
    ResponseRecord,
    RestrictedRecord,
    SourceRecord,
    TriggerRecord,
    WithheldRecord,
)

QUARANTINE_SOURCE = "quarantine"
"""The trigger's source if a bundle was read again."""
_OK = 200


def build_manifest(
    evaluation: Evaluation,
    job: Job,
    result: FetchResult,
    contents: BundleContents,
    *,
    retrieved_at: str,
    sealed_with: str | None = None,
    previous: Manifest | None = None,
) -> Manifest:
    """Return the manifest as revision 1, without documents; ``add_documents`` adds them.

    ``tasks.storage.revision.next_revision`` turns it into the next revision.

    Args:
        retrieved_at: when RiskOS answered, in the format of ``utc_now``.
        sealed_with: ID of the key that bundles in quarantine are sealed with.
        previous: the previous manifest; its evidence and the time of its event still count.
    """
    outcome, status, bundle, code, message = _describe(result, contents, sealed_with)
    response = ResponseRecord(status=code, message=message, request_id=result.request_id)
    return Manifest(
        schema=1,
        eval_id=evaluation.eval_id,
        environment=evaluation.environment,  # type: ignore[arg-type]  # checked by pydantic
        account=evaluation.account,
        outcome=outcome,  # type: ignore[arg-type]  # checked by pydantic
        revision=1,
        previous=None,
        documents=(),
        unreadable=contents.unreadable,
        bundle=bundle,
        quarantined=(bundle,) if bundle and contents.is_damaged else (),
        response=response,
        source=SourceRecord(status=status, asked_at=retrieved_at if response.status else None, response=response),
        no_documents=_explain(known_evidence(job, previous)) if outcome is Outcome.NO_DOCUMENTS else None,
        restricted=_restrict(job, previous, result),
        trigger=_trigger_record(job),
        event_at=_latest_event_at(job, previous),
        retrieved_at=retrieved_at,
        archived_at=utc_now(),
        archiver=archiver(),
    )


def _describe(
    result: FetchResult, contents: BundleContents, sealed_with: str | None
) -> tuple[Outcome, SourceStatus, BundleRecord | None, int, str | None]:
    """Return outcome, status of the source, bundle, HTTP status and message of an answer."""
    match result:
        case NoBundle():
            # A 404 or a refused request does not say whether RiskOS has documents. Status 0 means there was no request.
            has_none = result.outcome is Outcome.NO_DOCUMENTS and result.status
            status = SourceStatus.NONE if has_none else SourceStatus.UNKNOWN
            return result.outcome, status, None, result.status, result.message
        case WithheldBundle():
            return Outcome.WITHHELD, SourceStatus.PRESENT, None, _OK, None
    bundle = BundleRecord(
        filename=result.filename,
        size=result.size,
        sha256=result.sha256,
        sealed_with=sealed_with if contents.is_damaged else None,
        padding=_padding(contents),
    )
    return Outcome.UNREADABLE if contents.is_damaged else Outcome.ARCHIVED, SourceStatus.PRESENT, bundle, _OK, None


def add_documents(
    manifest: Manifest, stored: Iterable[StoredDocument], disposed: Iterable[DisposedRecord] = (), *, archived_at: str
) -> Manifest:
    """Return a manifest with the documents that were stored, and those that were due when they arrived.

    Args:
        archived_at: when they were archived, in the format of ``utc_now``.
    """
    return manifest.model_copy(
        update={
            "documents": tuple(_document(each, archived_at) for each in stored),
            "disposed": (*manifest.disposed, *disposed),
            "archived_at": utc_now(),
        }
    )


def build_reread_manifest(before: Manifest, contents: BundleContents) -> Manifest:
    """Return the manifest of a bundle that was read again from quarantine, without documents.

    The recorded answer of RiskOS stays.

    Args:
        before: the manifest that names the bundle.
    """
    source = before.source
    if source and not before.is_asked_since:
        source = source.model_copy(update={"status": SourceStatus.PRESENT})
    return before.model_copy(
        update={
            "outcome": Outcome.UNREADABLE if contents.is_damaged else Outcome.ARCHIVED,
            "documents": (),
            "bundle": before.bundle and before.bundle.model_copy(update={"padding": _padding(contents)}),
            "unreadable": contents.unreadable,
            "quarantined": before.quarantined_bundles,
            "unconfirmed": before.unconfirmed and contents.is_damaged,
            "source": source,
            "trigger": before.trigger.model_copy(update={"source": QUARANTINE_SOURCE}),
            "archiver": archiver(),
        }
    )


def mark_lenient(manifest: Manifest, before: Manifest, cause: str | None) -> Manifest:
    """Return a manifest that records for each document why its bundle was refused, if no accepted bundle had it.

    Args:
        before: the manifest before the bundle was read again.
        cause: the cause of the refusal, or None.
    """
    taken_whole = {(each.name, each.key) for each in before.documents if not each.lenient}
    documents = tuple(
        each if (each.name, each.key) in taken_whole else each.model_copy(update={"lenient": cause})
        for each in manifest.documents
    )
    return manifest.model_copy(update={"documents": documents})


def _padding(contents: BundleContents) -> PaddingRecord | None:
    return PaddingRecord(**contents.padding._asdict()) if any(contents.padding) else None


def build_tombstone_without_request(evaluation: Evaluation, job: Job) -> Manifest:
    """Return the manifest of an evaluation that needs no request to RiskOS."""
    answer = NoBundle(Outcome.NO_DOCUMENTS, 0, None)
    return build_manifest(evaluation, job, answer, BundleContents(), retrieved_at=utc_now())


def add_facts(job: Job, before: Manifest) -> Manifest | None:
    """Return the manifest with the additional facts of a job, or None if neither its reason nor its clock changes.

    Held documents stay even if the evidence restricts them, because an operator has to decide. The marker of an erasure
    stays as it is.
    """
    changes, event_at = _explain_further(job, before), _latest_event_at(job, before)
    if before.erased or (not changes and bool(event_at) == bool(before.event_at)):
        return None
    changes |= {
        "trigger": _trigger_record(job),
        "event_at": event_at,
        "archived_at": utc_now(),
        "archiver": archiver(),
    }
    return before.model_copy(update=changes)


def _explain_further(job: Job, before: Manifest) -> dict[str, object]:
    """Return the fields of a manifest that the evidence of a job changes."""
    evidence = select_explaining((*before.evidence, *job.evidence))
    restriction = restriction_from(evidence)
    if set(evidence) == set(before.evidence):
        return {}
    if before.no_documents_reason:
        return {"no_documents": _explain(evidence)}
    if restriction and (before.holds_anything or before.restricted):
        withheld = before.restricted.withheld if before.restricted else None
        return {"restricted": RestrictedRecord(reason=restriction, evidence=evidence, withheld=withheld)}
    return {}


def known_evidence(job: Job, previous: Manifest | None) -> tuple[str, ...]:
    """Return the evidence of a job and of the previous manifest, except its outdated ``NOT_COMPLETE``."""
    before = previous.evidence if previous else ()
    return select_explaining((*(each for each in before if each != Evidence.NOT_COMPLETE), *job.evidence))


def _restrict(job: Job, previous: Manifest | None, result: FetchResult) -> RestrictedRecord | None:
    """Return the record of restricted images, or None unless RiskOS delivered such images or the archive holds some."""
    evidence = known_evidence(job, previous)
    restriction = restriction_from(evidence)
    is_tombstone = isinstance(result, NoBundle) and not (previous and previous.holds_anything)
    if restriction is None or is_tombstone:
        return None
    withheld = previous.restricted.withheld if previous and previous.restricted else None
    if isinstance(result, WithheldBundle):
        withheld = WithheldRecord(documents=result.documents, bytes=result.size)
    elif isinstance(result, Bundle):
        withheld = None
    return RestrictedRecord(reason=restriction, evidence=evidence, withheld=withheld)


def _explain(evidence: tuple[str, ...]) -> NoDocumentsRecord:
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


def keep_keys(documents: Sequence[Document], evaluation: Evaluation, previous: Manifest | None) -> list[Document]:
    """Return documents with the kinds and extensions of their keys in the previous manifest.

    A newer release may classify names and signatures differently, and would store the same bytes a second time.
    A kind is not kept if the document had several names and the kind was derived from one of them.
    """
    if previous is None:
        return list(documents)
    kinds = {(each.name, each.sha256): Kind(each.kind) for each in previous.documents if each.kind in set(Kind)}
    extensions = {
        (each.kind, each.sha256): each.key.rpartition(".")[2]
        for each in reversed(previous.documents)
        if evaluation.is_document_key(each.key, each.kind, each.sha256)
    }
    kept = [
        each if each.name_conflict else replace(each, kind=kinds.get((each.name, each.sha256), each.kind))
        for each in documents
    ]
    return [replace(each, extension=extensions.get((each.kind.value, each.sha256), each.extension)) for each in kept]


def _document(stored: StoredDocument, archived_at: str) -> DocumentRecord:
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
        name_encoding=document.name_encoding,
        name_conflict=document.name_conflict,
        sealed_with=stored.sealed_with,
        archived_at=archived_at,
    )
