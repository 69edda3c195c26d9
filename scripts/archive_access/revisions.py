"""The manifest that is asked for: the current one, or a former one to which the chain of hashes leads back."""

import hashlib

from pydantic import ValidationError

from tasks.bundle.documents import Kind
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket, StoredObject
from tasks.storage.manifest import DocumentRecord, Manifest, StoredManifest, manifest_error


class NotExported(Exception):  # the name says it
    """Something of an evaluation stays in the archive; the sentence says why, without a name out of a bundle."""


async def find_manifest(bucket: Bucket, evaluation: Evaluation, revision: int | None) -> StoredManifest | None:
    """Return the manifest of an evaluation, or None where there is none.

    Args:
        revision: number of a former one; None is the current one.

    Raises:
        NotExported: it cannot be relied upon, or there is no such revision.
        StorageError: the bucket did not say.
    """
    found = await bucket.read(evaluation.manifest_key)
    if found is None:
        return None
    at = _parse(found, evaluation)
    if revision is not None and revision > at.manifest.revision:
        raise NotExported(f"there is no revision {revision}; the current one is {at.manifest.revision}")
    while revision is not None and revision < at.manifest.revision:
        at = await read_previous(bucket, evaluation, at.manifest)
    return at


async def read_previous(bucket: Bucket, evaluation: Evaluation, manifest: Manifest) -> StoredManifest:
    """Return the revision before a manifest, whose hash the manifest has.

    Raises:
        NotExported: it is not in the archive, or cannot be relied upon.
        StorageError: the bucket did not say.
    """
    number = manifest.revision - 1
    found = await bucket.read(evaluation.revision_key(number))
    if found is None:
        raise NotExported(f"revision {number} is not in the archive")
    if hashlib.sha256(found.data).hexdigest() != manifest.previous:
        raise NotExported(f"revision {number} is not the one that revision {number + 1} followed: its hash differs")
    before = _parse(found, evaluation)
    if before.manifest.revision != number:
        raise NotExported(f"revision {number} says that it is revision {before.manifest.revision}")
    return before


def check_key(evaluation: Evaluation, document: DocumentRecord) -> None:
    """See that a document's key is the one this evaluation would have given it.

    Raises:
        NotExported: it is not, and must not be followed.
    """
    extension = extension_of(document)
    expected = evaluation.document_key(document.kind, document.sha256, extension)
    plain = extension.isascii() and extension.isalnum()
    if document.kind not in frozenset(Kind) or not plain or document.key != expected:
        raise NotExported("the manifest names a key that is not this evaluation's; it was not followed")


def extension_of(document: DocumentRecord) -> str:
    """Return the extension that the archive gave a document, by its content."""
    return document.key.rpartition(".")[2]


def _parse(found: StoredObject, evaluation: Evaluation) -> StoredManifest:
    try:
        manifest = Manifest.model_validate_json(found.data)
    except ValidationError:
        raise NotExported(manifest_error(found.data)) from None
    if (manifest.eval_id, manifest.environment) != (evaluation.eval_id, evaluation.environment):
        raise NotExported("the manifest speaks of another evaluation")
    return StoredManifest(manifest, found)
