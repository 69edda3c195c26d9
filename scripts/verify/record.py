"""Read a manifest, current or former, or find out why it is not valid."""

import hashlib
from dataclasses import dataclass

from pydantic import ValidationError

from scripts.archive_access.revisions import manifest_error
from scripts.verify.problems import Difference, Problem
from tasks.errors import IntegrityError, StorageError
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket, ListedObject
from tasks.storage.manifest import MAX_MANIFEST_BYTES, Manifest


@dataclass(frozen=True, slots=True)
class ManifestRecord:
    """A manifest in the archive.

    Attributes:
        key: its key.
        manifest: its content.
        sha256: hash of its bytes.
    """

    key: str
    manifest: Manifest
    sha256: str


async def read_record(
    bucket: Bucket, evaluation: Evaluation, key: str, stored: ListedObject | None
) -> ManifestRecord | Difference | None:
    """Return a manifest, a difference if it cannot be relied on, or None if it does not exist.

    Args:
        stored: the object in the listing; None if it is not there.
    """
    if stored and not 0 <= stored.size <= MAX_MANIFEST_BYTES:
        return _wrong(evaluation, key, Problem.MANIFEST_DAMAGED, "it is not a file, or is too large for a manifest")
    try:
        found = await bucket.read(key, MAX_MANIFEST_BYTES)
    except (IntegrityError, StorageError) as error:
        problem = Problem.NOT_READ if isinstance(error, StorageError) else Problem.MANIFEST_DAMAGED
        return _wrong(evaluation, key, problem, str(error))
    if found is None:
        return None
    try:
        manifest = Manifest.model_validate_json(found.data)
    except ValidationError:
        return _wrong(evaluation, key, Problem.MANIFEST_DAMAGED, manifest_error(found.data))
    if (manifest.eval_id, manifest.environment) != (evaluation.eval_id, evaluation.environment):
        return _wrong(evaluation, key, Problem.MANIFEST_FOREIGN, "it belongs to another evaluation or environment")
    return ManifestRecord(key, manifest, hashlib.sha256(found.data).hexdigest())


def _wrong(evaluation: Evaluation, key: str, problem: Problem, detail: str) -> Difference:
    return Difference(evaluation.eval_id, key, problem, detail)
