"""Store documents as objects in the archive.

Objects are named by the hash of their content and written *create only*, so nothing is ever overwritten. If two
workers write the same document, the second one finds the same bytes. "Already exists" alone proves nothing, because
S3 also gives this answer if two writers conflict and neither has written. The object is therefore read back.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Protocol, cast

from tasks.bundle.documents import Document
from tasks.errors import IntegrityError
from tasks.memory.buffer_pool import Buffer
from tasks.memory.byte_budget import ByteBudget
from tasks.memory.spool import drop_pages
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Restriction
from tasks.riskos.response import Bundle
from tasks.storage.bucket import LARGE, Bucket, ObjectAttributes, put

_PUTS_AT_ONCE = 8
_UPLOADS = 64 << 20


class _Sealing(Protocol):
    async def find_key_id(self, key: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document that is in the archive.

    Attributes:
        document: the document.
        key: key of its object.
        sealed_with: ID of the key that the object is sealed with, or None if it is not sealed.
    """

    document: Document
    key: str
    sealed_with: str | None = None


@dataclass(frozen=True, slots=True)
class UploadTarget:
    """The bucket and the options for uploads.

    Attributes:
        bucket: the archive's bucket, for documents and bundles in quarantine.
        tags: the user's own tags.
        sealed_with: ID of the key that the bucket seals with, or None if it does not seal.
        restriction: why its objects must not be kept, or None if they may be.
        is_held: returns whether documents of a kind are under a legal hold; None for a bundle.
        uploads: budget of bytes that are uploaded at the same time.
        put_seconds: time limit of one upload.
    """

    bucket: Bucket
    tags: dict[str, str] = field(default_factory=dict)
    sealed_with: str | None = None
    restriction: Restriction | None = None
    is_held: Callable[[str | None], bool] = lambda _: False
    uploads: ByteBudget = field(default_factory=lambda: ByteBudget(_UPLOADS))
    put_seconds: float = 60.0


async def store_documents(
    target: UploadTarget,
    evaluation: Evaluation,
    documents: Sequence[Document],
    *,
    archived_at: str,
    plain: Collection[str] = (),
    locks: Mapping[str, date] | None = None,
) -> list[StoredDocument]:
    """Store every document in the archive; return them in the same order when all are confirmed to be stored.

    Args:
        plain: keys of objects that may exist unsealed, because a manifest records them as unsealed.
        locks: the day on which Object Lock ends, by key; without it, the lock of the settings.

    Raises:
        StorageError: a document could not be stored.
        IntegrityError: an object with other bytes has one of the keys, or an object is unsealed that must be sealed.
    """
    stored = [
        StoredDocument(each, evaluation.document_key(each.kind, each.sha256, each.extension)) for each in documents
    ]
    at_once = asyncio.Semaphore(_PUTS_AT_ONCE)

    async def put_one(key: str, document: Document) -> None:
        async with at_once:
            labels = _make_attributes(evaluation, document, target, archived_at)
            labels = replace(labels, locked_until=locks.get(key) if locks else None)
            sealed_with[key] = await _upload(
                target, key, document.data, document.sha256, labels, may_be_plain=key in plain
            )

    sealed_with: dict[str, str | None] = {}
    distinct = {each.key: each.document for each in stored}
    try:
        async with asyncio.TaskGroup() as group:
            for key, document in distinct.items():
                group.create_task(put_one(key, document))
    except ExceptionGroup as failed:
        # The first error decides the verdict. (An error raised in `except*` stays a group on early 3.11.)
        raise failed.exceptions[0] from None
    return [replace(each, sealed_with=sealed_with[each.key]) for each in stored]


async def quarantine_bundle(
    target: UploadTarget, evaluation: Evaluation, bundle: Bundle, *, plain: Collection[str] = ()
) -> str:
    """Store an unreadable bundle unchanged in quarantine; return its key.

    Args:
        plain: as in ``store_documents``.

    Raises:
        StorageError: the bundle could not be stored.
        IntegrityError: an object with other bytes has its key, or the object is unsealed and must be sealed.
    """
    key = evaluation.quarantine_key(bundle.sha256)
    metadata = {"eval-id": evaluation.eval_id, "sha256": bundle.sha256}
    labels = ObjectAttributes("application/zip", metadata, _restricted_tag(target), is_held=target.is_held(None))
    await _upload(target, key, bundle.data, bundle.sha256, labels, may_be_plain=key in plain)
    return key


async def find_key_id(target: UploadTarget, key: str) -> str | None:
    """Return the ID of the key that an object is sealed with, read from the object, or None if it is not sealed."""
    return await cast("_Sealing", target.bucket).find_key_id(key) if target.sealed_with else None


async def _upload(
    target: UploadTarget, key: str, data: Buffer, sha256: str, attributes: ObjectAttributes, *, may_be_plain: bool
) -> str | None:
    """Store an object in the archive; return the ID of the key that it is sealed with."""
    async with target.uploads.reserve(min(len(data), LARGE)):
        if await put(target.bucket, key, data, sha256, attributes):
            sealed_with = target.sealed_with
        else:
            # Another attempt wrote the object, perhaps sealed with another key or unsealed.
            sealed_with = await find_key_id(target, key)
            if target.sealed_with and not sealed_with and not may_be_plain:
                sealed_with = await _seal_existing(target, key, data, attributes)
    drop_pages(data)
    return sealed_with


async def _seal_existing(target: UploadTarget, key: str, data: Buffer, attributes: ObjectAttributes) -> str | None:
    """Write the sealed form over an unsealed object that no manifest names; the bucket keeps the former version."""
    if not await target.bucket.replace_version(key, data, attributes):
        raise IntegrityError("an object is there unsealed that must be sealed")
    return target.sealed_with


def _restricted_tag(target: UploadTarget) -> dict[str, str]:
    return {"restricted": target.restriction.value} if target.restriction else {}


def _make_attributes(
    evaluation: Evaluation, document: Document, target: UploadTarget, archived_at: str
) -> ObjectAttributes:
    return ObjectAttributes(
        media_type=document.media_type,
        metadata={
            "eval-id": evaluation.eval_id,
            "sha256": document.sha256,
            "document-kind": document.kind.value,
            "archived-at": archived_at,
        },
        tags={
            **target.tags,
            **_restricted_tag(target),
            "environment": evaluation.environment,
            "document-kind": document.kind.value,
            "source": document.source.value,
        },
        is_held=target.is_held(document.kind),
    )
