"""The archive's bucket: the operations that the archive needs, and their implementation on S3.

Only this module translates obstore's exceptions. Their texts contain URL and key, so the translated errors only give
the kind of failure and S3's error code. The translation of each server answer was tested: see ``docs/design.md``.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Protocol

import obstore
from obstore import exceptions as foreign
from obstore.store import ObjectStore

from tasks.errors import Fault, IntegrityError, ManifestChanged, StorageError
from tasks.memory.buffer_pool import Buffer
from tasks.memory.spool import chunks
from tasks.storage.object_tagger import ObjectTagger
from tasks.storage.s3_fault import fault_of
from tasks.storage.write_guard import confirmation, guarded_write
from tasks.telemetry.tracing import s3_request
from worker.clients.object_lock import LockingClient
from worker.clients.s3_errors import explain_obstore_error, explain_page, is_page

LARGE = 16 << 20
"""Bytes of the largest object that is written in one request; larger ones are written in parts."""
_PART = 5 << 20  # the smallest part that S3 accepts
_PARTS_AT_ONCE = 2
_CHUNK = 1 << 20
_LISTED = 1_000
_SMALL = 1 << 19  # hashing this takes less time than waking up a thread
_READ_SECONDS = 30.0
_CONFIRM_ATTEMPTS = 3
_READ_RIGHTS = "s3:GetObject and s3:ListBucket"
_MISSING = (foreign.NotFoundError, FileNotFoundError)
_WRITE_RIGHTS = "s3:PutObject and s3:PutObjectTagging"


class AlreadyExists(Exception):  # an answer rather than an error
    """The store reports that the object of a create-only write exists already; that alone proves nothing."""


class WriteUnconfirmed(StorageError):
    """The store did not confirm whether the object was written; read it back to find out."""


@dataclass(frozen=True, slots=True)
class ObjectAttributes:
    """The attributes of an object; they must not contain personal data because a HEAD request returns them.

    Attributes:
        media_type: content type.
        metadata: user metadata.
        tags: object tags.
        locked_until: day on which Object Lock ends; a past day for no lock, None for the lock of the settings.
        is_held: whether the object is under a legal hold.
    """

    media_type: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    locked_until: date | None = None
    is_held: bool = False


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it was read.

    Attributes:
        data: its bytes.
        etag: opaque value that ``replace`` compares.
    """

    data: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An entry of a listing.

    Attributes:
        key: key below the archive's prefix.
        size: size in bytes.
        modified: when the object was written, in seconds since 1970.
    """

    key: str
    size: int
    modified: float


class Bucket(Protocol):
    """The operations of a bucket; every method raises StorageError if the bucket cannot carry it out."""

    async def create(self, key: str, data: Buffer, attributes: ObjectAttributes) -> None:
        """Write an object unless its key is taken.

        Raises:
            AlreadyExists: the key may be taken; read the object back.
            WriteUnconfirmed: the object may or may not have been written; read it back.
        """

    async def replace(self, key: str, data: bytes, attributes: ObjectAttributes, etag: str | None) -> None:
        """Replace the version of an object that has this ETag, or create the object if ``etag`` is None.

        Raises:
            ManifestChanged: the object has changed since it was read, or may have changed.
            WriteUnconfirmed: the object may or may not have been written; read it back.
        """

    async def read(self, key: str, max_bytes: int | None = None) -> StoredObject | None:
        """Return an object, or None if it does not exist.

        Raises:
            IntegrityError: the object is larger than ``max_bytes``, and was not read.
        """

    async def stream(self, key: str) -> AsyncGenerator[bytes, None] | None:
        """Return an object's bytes in chunks, or None if it does not exist; reading them may raise StorageError."""

    async def digest(self, key: str) -> str | None:
        """Read an object back and return the SHA-256 of its bytes, or None if it does not exist."""

    async def read_beginning(self, key: str, size: int) -> bytes | None:
        """Return the first bytes of an object, at most ``size``, or None if it does not exist."""

    def list_objects(self, prefix: str, after: str = "") -> AsyncGenerator[list[ListedObject], None]:
        """Yield the objects below a prefix that ends with a slash, in batches, in the order of their keys.

        Args:
            after: only yield keys that come after this one.
        """

    async def replace_version(self, key: str, data: Buffer, attributes: ObjectAttributes) -> bool:
        """Write an object over an existing one if the bucket keeps the former version; else return False.

        Raises:
            ManifestChanged: the existing object changed meanwhile.
        """

    async def put_tags(self, key: str, attributes: ObjectAttributes) -> None:
        """Set the tags of an existing object, unless each write sets them."""


async def put(bucket: Bucket, key: str, data: Buffer, sha256: str, attributes: ObjectAttributes) -> bool:
    """Write an object named by its content, and return when it is confirmed to be stored.

    Returns:
        Whether this call wrote the object; if False, it existed already with the same content.

    Raises:
        StorageError: the object could not be stored.
        IntegrityError: an object with other bytes has its key.
    """
    for _ in range(_CONFIRM_ATTEMPTS):
        try:
            await bucket.create(key, data, attributes)
        except (AlreadyExists, WriteUnconfirmed):
            found = await bucket.digest(key)
            if found == sha256:
                await bucket.put_tags(key, attributes)
                return False
            if found is not None:
                raise IntegrityError("an object's bytes do not match its key") from None
        else:
            return True
    raise StorageError("create", "the store did not accept the object and does not have it")


def check_size(size: int, max_bytes: int | None) -> None:
    """Raise IntegrityError if an object is larger than any valid object with its key."""
    if max_bytes is not None and size > max_bytes:
        raise IntegrityError("an object is too large for its type")


class S3Bucket:
    """A bucket behind obstore: S3, an S3-compatible store, or memory in a test.

    ``Bucket`` documents what each method guarantees.

    Args:
        store: the client, with the archive's prefix.
        storage_class: S3 storage class of documents, or None for the bucket's default.
        write_client: returns the client for a write; None if ``store`` also writes, without locks and legal holds.
        tagger: sets tags after each write; None to send them with the write.
    """

    def __init__(
        self,
        store: ObjectStore,
        storage_class: str | None = None,
        write_client: LockingClient | None = None,
        tagger: ObjectTagger | None = None,
    ) -> None:
        self._store, self._write_client, self._tagger = store, write_client, tagger
        self._extra = {"Storage-Class": storage_class} if storage_class else {}

    async def create(self, key: str, data: Buffer, attributes: ObjectAttributes) -> None:
        """Write an object unless its key is taken."""
        if len(data) > LARGE:
            await self._create_in_parts(key, data, attributes)
        with _translated("create"):
            await self._put(key, data, attributes, self._extra, mode="create", use_multipart=False)
        await self.put_tags(key, attributes)

    async def _put(
        self, key: str, data: Any, attributes: ObjectAttributes, extra: Mapping[str, str], **options: Any
    ) -> None:
        client = self._store
        if self._write_client:
            client = self._write_client(attributes.locked_until, is_held=attributes.is_held)
        async with guarded_write(key):
            with s3_request("PutObject", (foreign.AlreadyExistsError, foreign.PreconditionError)):
                await obstore.put_async(
                    client,
                    key,
                    data,
                    attributes={"Content-Type": attributes.media_type, **attributes.metadata, **extra},
                    tags=None if self._tagger else dict(attributes.tags) or None,
                    **options,
                )

    async def put_tags(self, key: str, attributes: ObjectAttributes) -> None:
        """Set the tags of an existing object, if they are not sent with each write."""
        if self._tagger and attributes.tags:
            async with guarded_write(key):
                with s3_request("PutObjectTagging"):
                    await self._tagger.put(key, attributes.tags)

    async def _create_in_parts(self, key: str, data: Buffer, attributes: ObjectAttributes) -> None:
        """Write a large object in parts, so that it is never completely in memory.

        obstore cannot send a create-only upload in parts, so the object is looked up before and read back afterwards.
        A second write is harmless, because the key is named by the content. Only the object read back counts.

        Raises:
            AlreadyExists: the object exists.
            WriteUnconfirmed: raised after every write; read the object back.
        """
        with contextlib.suppress(_ObjectMissing):
            with _translated("read"):
                await self._head(key)
            raise AlreadyExists
        parts = _split_parts(data, confirmation())
        with _translated("create"):
            await self._put(key, parts, attributes, self._extra, chunk_size=_PART, max_concurrency=_PARTS_AT_ONCE)
        raise WriteUnconfirmed("create", "it was written in parts")

    async def replace(self, key: str, data: bytes, attributes: ObjectAttributes, etag: str | None) -> None:
        """Replace the version of an object that has this ETag, or create the object if ``etag`` is None."""
        try:
            with _translated("replace"):
                mode = {"e_tag": etag} if etag else "create"
                await self._put(key, data, attributes, {}, mode=mode, use_multipart=False)
        except AlreadyExists:
            raise ManifestChanged from None
        await self.put_tags(key, attributes)

    async def read(self, key: str, max_bytes: int | None = None) -> StoredObject | None:
        """Return an object, or None if it does not exist; raise IntegrityError if it is larger than ``max_bytes``."""
        try:
            with _translated("read"):
                # Manifests are small. Without this limit, it takes ten minutes to detect a bucket that never answers.
                async with asyncio.timeout(_READ_SECONDS):
                    result = await self._get(key)
                    check_size(result.meta["size"], max_bytes)
                    data = await result.bytes_async()
        except _ObjectMissing:
            return None
        return StoredObject(data=bytes(data), etag=str(result.meta["e_tag"]))

    async def digest(self, key: str) -> str | None:
        """Read an object back and return the SHA-256 of its bytes, or None if it does not exist."""
        return await sha256_of(await self.stream(key))

    async def read_beginning(self, key: str, size: int) -> bytes | None:
        """Return the first bytes of an object, at most ``size``, or None if it does not exist."""
        try:
            with _translated("read"):
                result = await self._get(key, {"range": (0, size)})
                return bytes(await result.bytes_async())
        except _ObjectMissing:
            return None

    async def replace_version(self, key: str, data: Buffer, attributes: ObjectAttributes) -> bool:
        """Write an object over an existing one if the bucket keeps the former version; else return False."""
        with _translated("read"):
            there = await self._head(key)
        # S3 returns no version without versioning, and "null" if versioning is suspended.
        if there.get("version") in {None, "null"}:
            return False
        try:
            with _translated("replace"):
                mode = {"e_tag": there["e_tag"]}
                await self._put(key, data, attributes, self._extra, mode=mode, use_multipart=False)
        except AlreadyExists:
            raise ManifestChanged from None
        await self.put_tags(key, attributes)
        return True

    async def list_objects(self, prefix: str, after: str = "") -> AsyncGenerator[list[ListedObject], None]:
        """Yield the objects below a prefix that ends with a slash, in batches, in the order of their keys."""
        with _translated("list"):
            pages = obstore.list(self._store, prefix, offset=after or None, chunk_size=_LISTED)
            has_more = True
            while True:
                # obstore sends no request after a page that is not full.
                with s3_request("ListObjectsV2") if has_more else contextlib.nullcontext():
                    found = await anext(pages, None)
                if found is None:
                    return
                has_more = len(found) == _LISTED
                yield [ListedObject(each["path"], each["size"], each["last_modified"].timestamp()) for each in found]

    async def stream(self, key: str) -> AsyncGenerator[bytes, None] | None:
        """Return an object's bytes in chunks, or None if it does not exist."""
        try:
            with _translated("read"):
                result = await self._get(key)
        except _ObjectMissing:
            return None
        return _chunks(result)

    async def _get(self, key: str, options: Any = None) -> Any:
        with s3_request("GetObject", _MISSING):
            result = await obstore.get_async(self._store, key, options=options)
        if result.meta["e_tag"] is None:
            # S3 sends an ETag with each object. A response without one is a proxy's page.
            raise StorageError("read", str(explain_page("200")))
        return result

    async def _head(self, key: str) -> Any:
        with s3_request("HeadObject", _MISSING):
            return await obstore.head_async(self._store, key)


async def sha256_of(chunks: AsyncIterator[bytes] | None) -> str | None:
    """Return the SHA-256 of streamed bytes, or None if there is no stream."""
    if chunks is None:
        return None
    digest = hashlib.sha256()
    async for chunk in chunks:
        if len(chunk) <= _SMALL:
            digest.update(chunk)
        else:
            # Hashing releases the GIL, so other tasks can run while a thread hashes some megabytes.
            await asyncio.to_thread(digest.update, chunk)
    return digest.hexdigest()


async def _chunks(result: Any) -> AsyncGenerator[bytes, None]:
    with _translated("read"):
        if result.meta["size"] <= _CHUNK:
            yield bytes(await result.bytes_async())
            return
        async for chunk in result.stream(min_chunk_size=_CHUNK):
            yield bytes(chunk)


async def _split_parts(data: Buffer, confirm: Callable[[], Awaitable[None]]) -> AsyncIterator[bytes]:
    for part in chunks(data, 0, len(data), _PART):
        # An error raised here aborts the upload.
        await confirm()
        yield bytes(part)


class _ObjectMissing(StorageError):
    """The object or the bucket does not exist."""


@contextlib.contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except (foreign.AlreadyExistsError, foreign.PreconditionError):
        raise AlreadyExists from None
    except _MISSING as error:
        # obstore reports a missing bucket as a missing object. Only the text of the error differs.
        if is_page(error):
            raise StorageError(doing, str(explain_page("404"))) from None
        if "NoSuchBucket" in str(error) or doing != "read":
            raise StorageError(doing, "the bucket does not exist", Fault.SERVICE) from None
        raise _ObjectMissing(doing, "it does not exist") from None
    except (foreign.PermissionDeniedError, foreign.UnauthenticatedError, PermissionError) as error:
        raise StorageError(doing, _explain(error, doing), fault_of(error)) from None
    except (foreign.BaseError, OSError, ValueError) as error:
        fault = fault_of(error)
        # A refusal is a definite answer. Without an answer or a connection, an earlier try may have written the object.
        kind = StorageError if fault is Fault.SERVICE else WriteUnconfirmed
        raise kind(doing, _explain(error, doing), fault) from None


def _explain(error: Exception, doing: str) -> str:
    return str(explain_obstore_error(error, _READ_RIGHTS if doing == "read" else _WRITE_RIGHTS))
