"""Put documents into the archive: document → object.

Objects are named by the hash of their content and written *create only*: nothing is ever overwritten, and
whoever comes second finds his own bytes there. But "already there" is no proof (S3 says so, too, when two
writers conflict and neither has written), so it is checked by reading back.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from tasks.bundle.documents import Document
from tasks.memory.buffer_pool import Buffer
from tasks.memory.byte_budget import ByteBudget
from tasks.memory.spool import drop_pages
from tasks.model.evaluation import Evaluation
from tasks.riskos.response import Bundle
from tasks.storage.bucket import LARGE, Bucket, ObjectAttributes, put

_PUTS_AT_ONCE = 8
_UPLOADS = 64 << 20


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document that is in the archive.

    Attributes:
        document: the document.
        key: where it is.
    """

    document: Document
    key: str


@dataclass(frozen=True, slots=True)
class UploadTarget:
    """Where and how objects are put.

    Attributes:
        bucket: the archive's bucket, for documents and bundles in quarantine.
        tags: the user's own tags.
        sealed_with: ID of the key that it seals with, None where it does not.
        uploads: bytes that may be on their way at once.
    """

    bucket: Bucket
    tags: dict[str, str] = field(default_factory=dict)
    sealed_with: str | None = None
    uploads: ByteBudget = field(default_factory=lambda: ByteBudget(_UPLOADS))


async def store_documents(
    target: UploadTarget, evaluation: Evaluation, documents: Sequence[Document], *, archived_at: str
) -> list[StoredDocument]:
    """Put every document into the archive; return them in the same order, when all of them are there.

    Raises:
        StorageError: one of them is not there.
        IntegrityError: under one of the keys are other bytes.
    """
    stored = [
        StoredDocument(document, evaluation.document_key(document.kind, document.sha256, document.extension))
        for document in documents
    ]
    at_once = asyncio.Semaphore(_PUTS_AT_ONCE)

    async def put_one(key: str, document: Document) -> None:
        async with at_once:
            labels = _make_attributes(evaluation, document, target.tags, archived_at)
            await _upload(target, key, document.data, document.sha256, labels)

    distinct = {each.key: each.document for each in stored}
    try:
        async with asyncio.TaskGroup() as group:
            for key, document in distinct.items():
                group.create_task(put_one(key, document))
    except ExceptionGroup as failed:
        # One of them tells what becomes of the evaluation. (What `except*` raises stays a group on early 3.11.)
        raise failed.exceptions[0] from None
    return stored


async def quarantine_bundle(target: UploadTarget, evaluation: Evaluation, bundle: Bundle) -> str:
    """Keep a bundle that cannot be read, as it is; return its key.

    Raises:
        StorageError: it is not there.
        IntegrityError: under its key are other bytes.
    """
    key = evaluation.quarantine_key(bundle.sha256)
    labels = ObjectAttributes("application/zip", {"eval-id": evaluation.eval_id, "sha256": bundle.sha256})
    await _upload(target, key, bundle.data, bundle.sha256, labels)
    return key


async def _upload(target: UploadTarget, key: str, data: Buffer, sha256: str, attributes: ObjectAttributes) -> None:
    async with target.uploads.reserve(min(len(data), LARGE)):
        await put(target.bucket, key, data, sha256, attributes)
    drop_pages(data)


def _make_attributes(
    evaluation: Evaluation, document: Document, tags: dict[str, str], archived_at: str
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
            **tags,
            "environment": evaluation.environment,
            "document-kind": document.kind.value,
            "source": document.source.value,
        },
    )
