"""What stays of an erasure: who asked for it, when and why, and what went.

    receipts/{environment}/{eval_id}/{time}.json

It is written before anything is removed, without ``completed_at``; that is filled in when all is done. So an erasure
that was cut off is seen, and the same command completes it.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scripts.erase.stock import ObjectVersion, ObjectVersions
from tasks.errors import IntegrityError, ManifestChanged
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket, ObjectAttributes, WriteUnconfirmed, put
from tasks.storage.manifest import archiver, utc_now

_LABELS = ObjectAttributes("application/json")
_NAMED_BY_CONTENT = re.compile(r"/([0-9a-f]{64})\.[a-z0-9]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class ErasureRequest:
    """What an operator asks for.

    Attributes:
        reason: why, in the operator's words.
        by: the operator's name.
        host: the machine it was asked on.
        bypass_governance: remove also what a GOVERNANCE retention keeps.
    """

    reason: str
    by: str
    host: str
    bypass_governance: bool = False


class Receipt(BaseModel):
    """The receipt of one erasure; no name out of a bundle is in it."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    schema_: Literal[1] = Field(alias="schema", description="Version of this format.")
    eval_id: str
    environment: str
    by: str
    host: str
    reason: str
    objects: int = Field(ge=0, description="Objects that were there.")
    versions: int = Field(ge=0, description="Their versions and delete markers.")
    size: int = Field(ge=0, description="Bytes of all versions.")
    documents: tuple[str, ...] = Field(description="SHA-256 of each document, and of each bundle in quarantine.")
    manifest: str | None = Field(description="SHA-256 of the manifest; null where there was none.")
    requested_at: str
    completed_at: str | None
    archiver: str

    def as_json(self) -> bytes:
        """Return the receipt as it stands in the archive."""
        return (self.model_dump_json(by_alias=True, indent=1) + "\n").encode()


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """A receipt and where it is."""

    key: str
    receipt: Receipt


def make_receipt(
    evaluation: Evaluation, asked: ErasureRequest, items: Sequence[ObjectVersion], manifest: bytes | None
) -> Receipt:
    """Return the receipt of what is about to go.

    Args:
        items: what is about to go.
        manifest: the manifest's bytes, or None.
    """
    contents = filter(None, (_NAMED_BY_CONTENT.search(item.key) for item in items))
    return Receipt(
        schema=1,
        eval_id=evaluation.eval_id,
        environment=evaluation.environment,
        by=asked.by,
        host=asked.host,
        reason=asked.reason,
        objects=len({item.key for item in items}),
        versions=len(items),
        size=sum(item.size for item in items),
        documents=tuple(sorted({found[1] for found in contents})),
        manifest=hashlib.sha256(manifest).hexdigest() if manifest else None,
        requested_at=utc_now(),
        completed_at=None,
        archiver=archiver(),
    )


async def begin(bucket: Bucket, receipt: Receipt) -> StoredReceipt:
    """Write the receipt of an erasure that begins.

    Raises:
        StorageError: it may not be there.
    """
    key = f"{_folder(receipt.environment, receipt.eval_id)}{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.json"
    data = receipt.as_json()
    await put(bucket, key, data, hashlib.sha256(data).hexdigest(), _LABELS)
    return StoredReceipt(key, receipt)


async def find_unfinished(bucket: Bucket, keys: Iterable[str]) -> StoredReceipt | None:
    """Return the receipt among these of an erasure that was cut off, or None.

    Raises:
        IntegrityError: one of them is no receipt of ours.
        StorageError: the bucket did not say.
    """
    for key in keys:
        found = await bucket.read(key)
        if found and (kept := StoredReceipt(key, _parsed(found.data))).receipt.completed_at is None:
            return kept
    return None


async def complete(bucket: Bucket, kept: StoredReceipt) -> StoredReceipt:
    """Write down that an erasure is done.

    Raises:
        ManifestChanged: somebody else wrote the receipt in between.
        StorageError: it may not be written.
    """
    found = await bucket.read(kept.key)
    done = kept.receipt.model_copy(update={"completed_at": utc_now()})
    try:
        await bucket.replace(kept.key, done.as_json(), _LABELS, found.etag if found else None)
    except (ManifestChanged, WriteUnconfirmed):
        # Our own write may have reached the store although its answer did not reach us.
        there = await bucket.read(kept.key)
        if there is None or _parsed(there.data).completed_at is None:
            raise
    return StoredReceipt(kept.key, done)


def keys_of(stock: ObjectVersions, evaluation: Evaluation) -> list[str]:
    """Return the keys of an evaluation's receipts, the oldest first."""
    return [key for key in stock.keys(_folder(evaluation.environment, evaluation.eval_id)) if key.endswith(".json")]


def _folder(environment: str, eval_id: str) -> str:
    return f"receipts/{environment}/{eval_id}/"


def _parsed(data: bytes) -> Receipt:
    try:
        return Receipt.model_validate_json(data)
    except ValidationError:
        raise IntegrityError("a receipt is damaged or of a newer format") from None
