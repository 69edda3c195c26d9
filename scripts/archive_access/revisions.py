"""Read the current manifest of an evaluation, or a former one through the chain of hashes."""

import hashlib

import orjson
from pydantic import ValidationError

from tasks.bundle.documents import Kind
from tasks.errors import IntegrityError
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket, StoredObject
from tasks.storage.manifest import MAX_MANIFEST_BYTES, Manifest, StoredManifest
from tasks.storage.manifest_records import DocumentRecord


class NotExported(Exception):  # named for what happened
    """Something cannot be exported. The message says why, without names from a bundle."""


async def find_manifest(bucket: Bucket, evaluation: Evaluation, revision: int | None) -> StoredManifest | None:
    """Return the manifest of an evaluation, or None if it does not exist.

    Args:
        revision: number of a former one; None for the current one.

    Raises:
        NotExported: it cannot be relied on, or there is no such revision.
        StorageError: the bucket does not answer.
    """
    found = await _read(bucket, evaluation.manifest_key)
    if found is None:
        return None
    at = _parse(found, evaluation)
    if revision is not None and revision > at.manifest.revision:
        raise NotExported(f"there is no revision {revision}; the current one is {at.manifest.revision}")
    while revision is not None and revision < at.manifest.revision:
        at = await read_previous(bucket, evaluation, at.manifest)
    return at


async def read_previous(bucket: Bucket, evaluation: Evaluation, manifest: Manifest) -> StoredManifest:
    """Return the revision before a manifest, after comparing its hash with the one in the manifest.

    Raises:
        NotExported: it is not in the archive, or cannot be relied on.
        StorageError: the bucket does not answer.
    """
    number = manifest.revision - 1
    found = await _read(bucket, evaluation.revision_key(number))
    if found is None:
        raise NotExported(f"revision {number} is not in the archive")
    if hashlib.sha256(found.data).hexdigest() != manifest.previous:
        raise NotExported(
            f"revision {number} is not the predecessor that revision {number + 1} names: its hash differs"
        )
    before = _parse(found, evaluation)
    if before.manifest.revision != number:
        raise NotExported(f"revision {number} says that it is revision {before.manifest.revision}")
    return before


def check_key(evaluation: Evaluation, document: DocumentRecord) -> None:
    """Check that a document's key belongs to its evaluation.

    Raises:
        NotExported: it does not, so it must not be read.
    """
    is_own = evaluation.is_document_key(document.key, document.kind, document.sha256)
    if document.kind not in frozenset(Kind) or not is_own:
        raise NotExported("the manifest names a key that is not this evaluation's; it was not followed")


async def _read(bucket: Bucket, key: str) -> StoredObject | None:
    try:
        return await bucket.read(key, MAX_MANIFEST_BYTES)
    except IntegrityError as error:
        raise NotExported(str(error)) from None


def _parse(found: StoredObject, evaluation: Evaluation) -> StoredManifest:
    try:
        manifest = Manifest.model_validate_json(found.data)
    except ValidationError:
        raise NotExported(manifest_error(found.data)) from None
    if (manifest.eval_id, manifest.environment) != (evaluation.eval_id, evaluation.environment):
        raise NotExported("the manifest belongs to another evaluation")
    return StoredManifest(manifest, found)


def manifest_error(data: bytes) -> str:
    """Return why bytes are not a manifest, in a sentence that repeats none of them."""
    try:
        facts = orjson.loads(data)
    except orjson.JSONDecodeError:
        return "the manifest is not valid JSON"
    version = facts.get("schema") if isinstance(facts, dict) else None
    if isinstance(version, int) and version > 1:
        return f"the manifest has a newer format ({version}): use a newer docv-archive"
    return "the manifest does not match its schema, docs/manifest.schema.json"
