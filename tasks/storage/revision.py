"""Commit the next revision of a manifest, which lists held documents next to the documents that RiskOS has now."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from tasks.errors import ManifestChanged
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import ManifestOutcome, Outcome, SourceStatus
from tasks.storage.bucket import Bucket, ObjectAttributes, WriteUnconfirmed, put
from tasks.storage.manifest import Manifest, StoredManifest, archiver, read_manifest, utc_now
from tasks.storage.manifest_records import DocumentRecord, SourceRecord

_MEDIA_TYPE = "application/json"
_AMENDMENTS = 5
# On documents, this tag names the folder of the bundle that they came from; manifests come from this program.
_SOURCE_TAG = "docv-archive"


async def commit(
    bucket: Bucket,
    evaluation: Evaluation,
    manifest: Manifest,
    previous: StoredManifest | None,
    tags: Mapping[str, str] | None = None,
) -> Outcome:
    """Write the manifest, after all objects that it names; return the outcome of the evaluation.

    The previous manifest is first copied to ``revisions/``. The new one replaces it by compare-and-swap, so that two
    workers cannot overwrite each other's revision.

    Args:
        tags: the user's own tags.

    Raises:
        ManifestChanged: another worker wrote a manifest in the meantime; read it again.
        StorageError: the manifest may not have been written.
        IntegrityError: another manifest is stored under the same revision.
    """
    record = next_revision(previous, manifest)
    if previous and previous.manifest.same_content(record):
        await complete_tags(bucket, evaluation, previous.manifest, tags)
        return Outcome.UNCHANGED
    await _write(bucket, evaluation, record, previous, tags)
    if previous and not _has_news(previous.manifest, record):
        return Outcome.UNCHANGED
    return Outcome.WITHHELD if record.manifest_outcome is ManifestOutcome.DISPOSED else record.outcome


async def amend(
    bucket: Bucket,
    evaluation: Evaluation,
    change: Callable[[Manifest], Manifest | None],
    tags: Mapping[str, str] | None = None,
) -> Manifest | None:
    """Write a changed manifest as the next revision, on top of revisions that workers write meanwhile.

    Args:
        change: returns the changed manifest, or None if nothing is to be changed; called again after a conflict.
        tags: the user's own tags.

    Returns:
        The current manifest, or None if there is none.

    Raises:
        ManifestChanged: the manifest changed during every try.
        StorageError: the manifest may not have been written.
        IntegrityError: the manifest cannot be read, or another one is stored under the same revision.
    """
    for _ in range(_AMENDMENTS):
        previous = await read_manifest(bucket, evaluation)
        if previous is None:
            return None
        changed = change(previous.manifest)
        if changed is None:
            return previous.manifest
        record = changed.model_copy(
            update={
                "revision": previous.manifest.revision + 1,
                "previous": hashlib.sha256(previous.stored.data).hexdigest(),
                "documents": _with_first_times(previous.manifest, changed.documents),
                "source": _source_of_remaining(previous.manifest, changed),
                "archived_at": utc_now(),
                "archiver": archiver(),
            }
        )
        try:
            await _write(bucket, evaluation, record, previous, tags)
        except ManifestChanged:
            continue
        return record
    raise ManifestChanged


async def _write(
    bucket: Bucket,
    evaluation: Evaluation,
    record: Manifest,
    previous: StoredManifest | None,
    tags: Mapping[str, str] | None,
) -> None:
    """Keep a copy of the previous manifest, and replace it by compare-and-swap."""
    data, attributes = record.as_json(), manifest_attributes(evaluation, record, tags)
    if previous:
        kept, key = previous.stored.data, evaluation.revision_key(record.revision - 1)
        # The copy is under a legal hold if the evaluation is from now on.
        former = replace(manifest_attributes(evaluation, previous.manifest, tags), is_held=attributes.is_held)
        await put(bucket, key, kept, hashlib.sha256(kept).hexdigest(), former)
    try:
        await bucket.replace(evaluation.manifest_key, data, attributes, previous.stored.etag if previous else None)
    except (ManifestChanged, WriteUnconfirmed):
        # This write may have reached the store even if its response was lost.
        found = await bucket.read(evaluation.manifest_key)
        if found is None or found.data != data:
            raise ManifestChanged from None
        await complete_tags(bucket, evaluation, record, tags)


async def complete_tags(
    bucket: Bucket, evaluation: Evaluation, manifest: Manifest, tags: Mapping[str, str] | None = None
) -> None:
    """Set the tags of an existing manifest, in case the worker that wrote it was stopped before it set them.

    Args:
        tags: the user's own tags.
    """
    await bucket.put_tags(evaluation.manifest_key, manifest_attributes(evaluation, manifest, tags))


def next_revision(previous: StoredManifest | None, manifest: Manifest) -> Manifest:
    """Return the manifest as the revision after the previous one.

    Held documents stay listed, whatever RiskOS answers now, and so do disposals, erased kinds and legal holds. After an
    erasure of the whole evaluation, the revisions begin again.
    """
    if previous is None:
        return manifest
    before, digest = previous.manifest, hashlib.sha256(previous.stored.data).hexdigest()
    if before.erased:
        manifest = _keep_disposals(before, manifest)
        return manifest.model_copy(update={"previous": digest})
    manifest = _leave_out_erased(before, manifest)
    known = {each.sha256 for each in before.disposed}
    held = {each.sha256 for each in before.documents}
    due_on_arrival = [each for each in manifest.disposed if each.sha256 not in known | held]
    numbered = manifest.model_copy(
        update={
            "revision": before.revision + 1,
            "previous": digest,
            "disposed": (*before.disposed, *due_on_arrival),
            "matters": before.matters,
            "matter_kinds": before.matter_kinds,
            "erased_kinds": before.erased_kinds,
        }
    )
    if manifest.bundle:
        record = _add_to_held(before, numbered)
    else:
        record = _keep_held(before, numbered) if before.has_held_anything else numbered
    # A worker may have read the manifest before a document was disposed of, and stored the same bytes again.
    documents = tuple(each for each in record.documents if each.sha256 not in known)
    rest = record.model_copy(update={"documents": _with_first_times(before, documents)})
    return rest.model_copy(update={"source": _source_of_remaining(record, rest)})


def _leave_out_erased(before: Manifest, manifest: Manifest) -> Manifest:
    """Return a manifest without documents of erased kinds, which a worker may have stored before they were erased."""
    kinds = {each.kind: each for each in before.erased_kinds}
    if not kinds:
        return manifest
    held = {each.sha256 for each in before.documents}
    gone = {
        each.key: kinds[each.kind].list_disposed(each, each.key, manifest.archived_at)
        for each in manifest.documents
        if each.kind in kinds and each.sha256 not in held
    }
    hashes = {each.sha256 for each in gone.values()}
    documents = tuple(each for each in manifest.documents if each.kind not in kinds and each.sha256 not in hashes)
    return manifest.model_copy(
        update={"documents": documents, "disposed": (*manifest.disposed, *gone.values()), "quarantined": ()}
    )


def _keep_disposals(marker: Manifest, manifest: Manifest) -> Manifest:
    """Return the first manifest after an erasure, without documents that a rule had disposed of before it."""
    known = {each.sha256 for each in marker.disposed}
    due_on_arrival = (each for each in manifest.disposed if each.sha256 not in known)
    had_some = known and manifest.source_status is SourceStatus.NONE
    return manifest.model_copy(
        update={
            "documents": tuple(each for each in manifest.documents if each.sha256 not in known),
            "disposed": (*marker.disposed, *due_on_arrival),
            "source": _with_status(manifest.source, SourceStatus.GONE) if had_some else manifest.source,
        }
    )


def _source_of_remaining(before: Manifest, rest: Manifest) -> SourceRecord | None:
    """Return the source record for the documents that are left; without any, it still says whether RiskOS had some."""
    has_fewer = len(rest.documents) < len(before.documents)
    if not has_fewer or rest.source_status not in {SourceStatus.PRESENT, SourceStatus.PARTLY_GONE}:
        return rest.source
    superseded = {each.superseded for each in rest.documents}
    if True not in superseded:
        return _with_status(rest.source, SourceStatus.PRESENT)
    return _with_status(rest.source, SourceStatus.PARTLY_GONE if False in superseded else SourceStatus.GONE)


def _with_first_times(before: Manifest, documents: Iterable[DocumentRecord]) -> tuple[DocumentRecord, ...]:
    """Return documents with the time at which each was first archived; older manifests know only their own time."""
    known = {each.key: each.archived_at or before.archived_at for each in before.documents}
    return tuple(each.model_copy(update={"archived_at": known.get(each.key, each.archived_at)}) for each in documents)


def _keep_held(before: Manifest, answered: Manifest) -> Manifest:
    """Return the revision if nothing was stored: outcome, documents and bundle stay, ``source`` is new."""
    is_gone = answered.source_status is SourceStatus.NONE
    is_disposed = before.manifest_outcome is ManifestOutcome.DISPOSED
    documents = [
        document.model_copy(update={"superseded": is_gone or document.superseded}) for document in before.documents
    ]
    return answered.model_copy(
        update={
            "outcome": before.outcome if is_disposed else Outcome(before.manifest_outcome),
            "documents": tuple(documents),
            "unreadable": before.unreadable,
            "bundle": before.bundle,
            "quarantined": before.quarantined_bundles,
            "response": before.response,
            "retrieved_at": before.retrieved_at,
            "source": _with_status(answered.source, SourceStatus.GONE if is_gone else SourceStatus.UNKNOWN),
            "restricted": answered.restricted or before.restricted,
        }
    )


def _add_to_held(before: Manifest, delivered: Manifest) -> Manifest:
    """Return the revision if RiskOS sent a bundle; its documents come first, then the other held documents."""
    if delivered.is_asked_since:
        return _add_read_again(before, delivered)
    present = {document.key for document in delivered.documents}
    others = [
        document.model_copy(update={"superseded": _is_superseded(document, delivered)})
        for document in before.documents
        if document.key not in present
    ]
    source = delivered.source
    if others and _is_unreadable_as_a_whole(delivered):
        source = _with_status(source, SourceStatus.UNKNOWN)
    elif any(document.superseded for document in others):
        has_some = delivered.documents or not all(document.superseded for document in others)
        source = _with_status(source, SourceStatus.PARTLY_GONE if has_some else SourceStatus.GONE)
    in_quarantine = [each for each in before.quarantined_bundles if each not in delivered.quarantined]
    return delivered.model_copy(
        update={
            "documents": (*delivered.documents, *others),
            "quarantined": (*delivered.quarantined, *in_quarantine),
            "restricted": delivered.restricted or before.restricted,
            "source": source,
        }
    )


def _add_read_again(before: Manifest, reread: Manifest) -> Manifest:
    """Return the revision if a bundle was read again after a later answer of RiskOS; the facts of that answer stay."""
    superseded = {each.key: each.superseded for each in before.documents}
    is_gone = before.source_status is SourceStatus.GONE
    documents = [each.model_copy(update={"superseded": superseded.pop(each.key, is_gone)}) for each in reread.documents]
    others = [each for each in before.documents if each.key in superseded]
    return reread.model_copy(update={"documents": (*documents, *others)})


def _is_superseded(document: DocumentRecord, delivered: Manifest) -> bool:
    """Return whether RiskOS no longer has a held document, judging by the bundle that it sent."""
    if document.sha256 in {each.sha256 for each in delivered.documents}:
        return False
    # The file that could not be read may be this document.
    may_be_unreadable = document.name in {each.name for each in delivered.unreadable}
    return document.superseded if may_be_unreadable or _is_unreadable_as_a_whole(delivered) else True


def _is_unreadable_as_a_whole(manifest: Manifest) -> bool:
    return any(not each.name for each in manifest.unreadable)


def _with_status(source: SourceRecord | None, status: SourceStatus) -> SourceRecord | None:
    return source and source.model_copy(update={"status": status})


def _has_news(before: Manifest, record: Manifest) -> bool:
    """Return whether a revision adds something that the archive did not hold.

    It adds nothing if it only says that RiskOS no longer has a held document, or has it again.
    """
    if record.manifest_outcome is ManifestOutcome.DISPOSED:
        return before.manifest_outcome is not ManifestOutcome.DISPOSED
    if before.unconfirmed or not record.holds_anything or before.manifest_outcome is not record.manifest_outcome:
        return True
    held = {(document.name, document.kind, document.key) for document in before.documents}
    new = {(document.name, document.kind, document.key) for document in record.documents} - held
    return bool(new) or before.unreadable != record.unreadable


def manifest_attributes(
    evaluation: Evaluation, manifest: Manifest, tags: Mapping[str, str] | None = None
) -> ObjectAttributes:
    """Return the attributes of the object of a manifest, current or former.

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
            **({"restricted": manifest.restricted.reason.value} if manifest.restricted else {}),
            "environment": evaluation.environment,
            "document-kind": "manifest",
            "source": _SOURCE_TAG,
        },
        is_held=manifest.is_held(None),
    )
