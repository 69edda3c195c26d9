"""Commit the next revision of a manifest: what the archive holds stays, and next to it stands what RiskOS had."""

import hashlib
from collections.abc import Mapping

from tasks.errors import ManifestChanged
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome, SourceStatus
from tasks.storage.bucket import Bucket, ObjectAttributes, WriteUnconfirmed, put
from tasks.storage.manifest import DocumentRecord, Manifest, SourceRecord, StoredManifest

_MEDIA_TYPE = "application/json"
# The tag of documents names the folder of the bundle that they came from; a manifest comes from this program.
_SOURCE_TAG = "docv-archive"


async def commit(
    bucket: Bucket,
    evaluation: Evaluation,
    manifest: Manifest,
    previous: StoredManifest | None,
    tags: Mapping[str, str] | None = None,
) -> Outcome:
    """Write the manifest, after everything it names; return how the evaluation ended by that.

    The manifest before is kept under ``revisions/`` first. Replacing compares what is there with what we
    read, so that two workers cannot lose each other's revision.

    Args:
        tags: the user's own tags.

    Raises:
        ManifestChanged: another worker wrote one in the meantime; look it up again.
        StorageError: it may not be there.
        IntegrityError: another manifest is kept under the same revision.
    """
    record = next_revision(previous, manifest)
    if previous and previous.manifest.same_content(record):
        return Outcome.UNCHANGED
    if previous:
        kept, labels = previous.stored.data, manifest_attributes(evaluation, previous.manifest, tags)
        await put(bucket, evaluation.revision_key(record.revision - 1), kept, hashlib.sha256(kept).hexdigest(), labels)
    data, labels = record.as_json(), manifest_attributes(evaluation, record, tags)
    try:
        await bucket.replace(evaluation.manifest_key, data, labels, previous.stored.etag if previous else None)
    except (ManifestChanged, WriteUnconfirmed):
        # Our own write may have reached the store although its answer did not reach us.
        found = await bucket.read(evaluation.manifest_key)
        if found is None or found.data != data:
            raise ManifestChanged from None
    return Outcome.UNCHANGED if previous and not _has_news(previous.manifest, record) else record.outcome


def next_revision(previous: StoredManifest | None, manifest: Manifest) -> Manifest:
    """Return the manifest as the revision that follows the one before.

    What the archive holds stays listed, whatever RiskOS answers now. After an erasure the revisions begin again.
    """
    if previous is None:
        return manifest
    before, digest = previous.manifest, hashlib.sha256(previous.stored.data).hexdigest()
    if before.erased:
        return manifest.model_copy(update={"previous": digest})
    numbered = manifest.model_copy(update={"revision": before.revision + 1, "previous": digest})
    if manifest.bundle:
        return _add_to_held(before, numbered)
    return _keep_held(before, numbered) if before.holds_anything else numbered


def _keep_held(before: Manifest, answered: Manifest) -> Manifest:
    """Return what follows if RiskOS sent no bundle: outcome, documents and bundle stay, the source's part is new."""
    is_gone = answered.source_status is SourceStatus.NONE
    documents = [
        document.model_copy(update={"superseded": is_gone or document.superseded}) for document in before.documents
    ]
    return answered.model_copy(
        update={
            "outcome": Outcome(before.manifest_outcome),
            "documents": tuple(documents),
            "unreadable": before.unreadable,
            "bundle": before.bundle,
            "response": before.response,
            "retrieved_at": before.retrieved_at,
            "source": _with_status(answered.source, SourceStatus.GONE) if is_gone else answered.source,
        }
    )


def _add_to_held(before: Manifest, delivered: Manifest) -> Manifest:
    """Return what follows if RiskOS sent a bundle: held documents that are not in it come after those that are."""
    present = {document.key for document in delivered.documents}
    # Existing objects are not written again, so they stay sealed with their old key.
    sealed = {document.key: document.sealed_with for document in before.documents}
    documents = [
        document.model_copy(update={"sealed_with": sealed.get(document.key, document.sealed_with)})
        for document in delivered.documents
    ]
    others = [
        document.model_copy(update={"superseded": _is_superseded(document, delivered)})
        for document in before.documents
        if document.key not in present
    ]
    source = delivered.source
    if others and _is_unreadable_as_a_whole(delivered):
        source = _with_status(source, SourceStatus.UNKNOWN)
    elif any(document.superseded for document in others):
        has_some = documents or not all(document.superseded for document in others)
        source = _with_status(source, SourceStatus.PARTLY_GONE if has_some else SourceStatus.GONE)
    return delivered.model_copy(update={"documents": (*documents, *others), "source": source})


def _is_superseded(document: DocumentRecord, delivered: Manifest) -> bool:
    """Return whether RiskOS does not have a held document any more, by the bundle that it sent."""
    if document.sha256 in {each.sha256 for each in delivered.documents}:
        return False
    # What could not be read may be this document.
    may_be_unreadable = document.name in {each.name for each in delivered.unreadable}
    return document.superseded if may_be_unreadable or _is_unreadable_as_a_whole(delivered) else True


def _is_unreadable_as_a_whole(manifest: Manifest) -> bool:
    return any(not each.name for each in manifest.unreadable)


def _with_status(source: SourceRecord | None, status: SourceStatus) -> SourceRecord | None:
    return source and source.model_copy(update={"status": status})


def _has_news(before: Manifest, record: Manifest) -> bool:
    """Return whether a revision says more than that RiskOS has less, or again, of what the archive holds."""
    if not record.holds_anything or before.manifest_outcome is not record.manifest_outcome:
        return True
    held = {(document.name, document.kind, document.key) for document in before.documents}
    new = {(document.name, document.kind, document.key) for document in record.documents} - held
    return bool(new) or before.unreadable != record.unreadable


def manifest_attributes(
    evaluation: Evaluation, manifest: Manifest, tags: Mapping[str, str] | None = None
) -> ObjectAttributes:
    """Return what the object of a manifest, current or former, says of itself.

    Args:
        tags: the user's own tags.
    """
    return ObjectAttributes(
        media_type=_MEDIA_TYPE,
        metadata={
            "eval-id": evaluation.eval_id,
            "outcome": manifest.manifest_outcome.value,
            "revision": str(manifest.revision),
        },
        tags={
            **(tags or {}),
            "environment": evaluation.environment,
            "document-kind": "manifest",
            "source": _SOURCE_TAG,
        },
    )
