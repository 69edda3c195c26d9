"""Read a manifest, the current or a former one, and say what it is if it is none."""

import hashlib
from dataclasses import dataclass

from pydantic import ValidationError

from scripts.verify.objects_api import ListedObject
from scripts.verify.problems import Difference, Problem
from tasks.errors import StorageError
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest, manifest_error

_LARGEST = 64 << 20
"""Bytes; that of 65,535 documents is smaller."""


@dataclass(frozen=True, slots=True)
class ManifestRecord:
    """A manifest as it stands in the archive.

    Attributes:
        key: where.
        manifest: what it says.
        sha256: hash of its bytes.
    """

    key: str
    manifest: Manifest
    sha256: str


async def read_record(
    bucket: Bucket, evaluation: Evaluation, key: str, stored: ListedObject | None
) -> ManifestRecord | Difference | None:
    """Return a manifest, or what is wrong with it; None where there is none.

    Args:
        stored: as it was listed; None where it was not.
    """
    if stored and not 0 <= stored.size <= _LARGEST:
        return _wrong(evaluation, key, Problem.MANIFEST_DAMAGED, "it is no file, or larger than any manifest")
    try:
        found = await bucket.read(key)
    except StorageError as error:
        return _wrong(evaluation, key, Problem.NOT_READ, str(error))
    if found is None:
        return None
    try:
        manifest = Manifest.model_validate_json(found.data)
    except ValidationError:
        return _wrong(evaluation, key, Problem.MANIFEST_DAMAGED, manifest_error(found.data))
    if (manifest.eval_id, manifest.environment) != (evaluation.eval_id, evaluation.environment):
        return _wrong(evaluation, key, Problem.MANIFEST_FOREIGN, "it speaks of another evaluation or environment")
    return ManifestRecord(key, manifest, hashlib.sha256(found.data).hexdigest())


def _wrong(evaluation: Evaluation, key: str, problem: Problem, detail: str) -> Difference:
    return Difference(evaluation.eval_id, key, problem, detail)
