"""Manifests for the unit tests of verify, and a bucket in memory."""

import hashlib
from collections.abc import Mapping
from typing import Any

from obstore.store import MemoryStore

from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome
from tasks.storage.bucket import ListedObject, ObjectAttributes, S3Bucket
from tasks.storage.manifest import Manifest
from tasks.storage.manifest_records import BundleRecord, DocumentRecord, ResponseRecord, TriggerRecord

EVALUATION = Evaluation("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "sandbox")
CONTENT = b"a selfie"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
AT = "2026-11-23T04:00:00.000Z"


def document(**changes: Any) -> DocumentRecord:
    """Return the record of a selfie with some changes."""
    key = EVALUATION.document_key("selfie", SHA256, "jpg")
    facts = {"name": "user_uploaded/a.jpg", "kind": "selfie", "key": key, "media_type": "image/jpeg", "modified": None}
    return DocumentRecord.model_validate(facts | {"size": len(CONTENT), "sha256": SHA256} | changes)


def manifest(revision: int = 1, before: bytes | None = None, **changes: Any) -> Manifest:
    """Return the manifest of a selfie with some changes.

    Args:
        before: bytes of the previous manifest.
    """
    facts = {
        "schema": 1,
        "eval_id": EVALUATION.eval_id,
        "environment": "sandbox",
        "account": "default",
        "outcome": Outcome.ARCHIVED,
        "revision": revision,
        "previous": hashlib.sha256(before).hexdigest() if before else None,
        "documents": (document(),),
        "bundle": BundleRecord(filename=None, size=1, sha256="b" * 64),
        "response": ResponseRecord(status=200, message=None),
        "no_documents": None,
        "trigger": TriggerRecord(source="backfill", run=None, event_type=None, event_id=None),
        "retrieved_at": AT,
        "archived_at": AT,
        "archiver": "docv-archive",
    }
    return Manifest.model_validate(facts | changes)


async def bucket_with(objects: Mapping[str, bytes]) -> S3Bucket:
    """Return a bucket in memory with these objects."""
    bucket = S3Bucket(MemoryStore())
    for key, data in objects.items():
        await bucket.create(key, data, ObjectAttributes("application/json"))
    return bucket


def list_objects(objects: Mapping[str, bytes]) -> dict[str, ListedObject]:
    """Return these objects as a listing contains them, by key."""
    return {key: ListedObject(key, len(data), 0.0) for key, data in objects.items()}
