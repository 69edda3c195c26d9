"""The archive's bucket: the few things we ask of it, on S3.

obstore's exceptions are translated here and nowhere else. Its texts hold URL and key, so ours only name the
kind of failure. What each answer of a server turns into was tried one by one: ``docs/design.md``.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import obstore
from obstore import exceptions as foreign
from obstore.store import ObjectStore

from tasks.errors import IntegrityError, ManifestChanged, StorageError
from tasks.memory.buffer_pool import Buffer
from tasks.memory.spool import chunks

LARGE = 16 << 20
"""A larger object is written in parts."""
_PART = 5 << 20  # the least that S3 takes
_PARTS_AT_ONCE = 2
_CHUNK = 1 << 20
_SMALL = 1 << 19  # hashed sooner than a thread wakes up
_READ_SECONDS = 30.0
_CONFIRM_ATTEMPTS = 3


class AlreadyExists(Exception):  # an answer rather than an error
    """A create-only write met something, or so the store says: that alone proves nothing."""


class WriteUnconfirmed(StorageError):
    """The store did not say whether the object was written; a look will tell."""


@dataclass(frozen=True, slots=True)
class ObjectAttributes:
    """What an object says of itself, apart from its bytes. Anyone who may HEAD sees it: no personal data.

    Attributes:
        media_type: its content type.
        metadata: user metadata.
        tags: object tags.
    """

    media_type: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it was read.

    Attributes:
        data: its bytes.
        etag: what ``replace`` compares; opaque.
    """

    data: bytes
    etag: str


class Bucket(Protocol):
    """What we ask of a bucket. Every method raises StorageError when the bucket does not do it."""

    async def create(self, key: str, data: Buffer, attributes: ObjectAttributes) -> None:
        """Write an object unless there is one.

        Raises:
            AlreadyExists: there may be one; have a look.
            WriteUnconfirmed: it may or may not have been written; have a look.
        """

    async def replace(self, key: str, data: bytes, attributes: ObjectAttributes, etag: str | None) -> None:
        """Write an object if it still is the version we read, or still is not there (None).

        Raises:
            ManifestChanged: it is another one by now, or may be.
            WriteUnconfirmed: it may or may not have been written; have a look.
        """

    async def read(self, key: str) -> StoredObject | None:
        """Return an object, or None where there is none."""

    async def stream(self, key: str) -> AsyncGenerator[bytes, None] | None:
        """Return an object's bytes, chunk by chunk; None where there is none. Reading may raise StorageError."""

    async def digest(self, key: str) -> str | None:
        """Return the SHA-256 of an object's bytes, read back; None where there is none."""


async def put(bucket: Bucket, key: str, data: Buffer, sha256: str, attributes: ObjectAttributes) -> None:
    """Write one object named by its content, and do not come back before it is certain to be there.

    Raises:
        StorageError: it is not there.
        IntegrityError: under its key are other bytes.
    """
    for _ in range(_CONFIRM_ATTEMPTS):
        try:
            await bucket.create(key, data, attributes)
        except (AlreadyExists, WriteUnconfirmed):
            found = await bucket.digest(key)
            if found == sha256:
                return
            if found is not None:
                raise IntegrityError("an object's bytes are not those its key names") from None
        else:
            return
    raise StorageError("create", "the store neither took it nor had it")


class S3Bucket:
    """A bucket behind obstore: S3 and what speaks like it, or memory in a test.

    Args:
        store: the client, with the archive's prefix.
        storage_class: S3 storage class of documents, or None for the bucket's own.
        write_client: what gives the client to write with, where that is another one.
    """

    def __init__(
        self,
        store: ObjectStore,
        storage_class: str | None = None,
        write_client: Callable[[], ObjectStore] | None = None,
    ) -> None:
        self._store = store
        self._write_client = write_client or (lambda: store)
        self._extra = {"Storage-Class": storage_class} if storage_class else {}

    async def create(self, key: str, data: Buffer, attributes: ObjectAttributes) -> None:
        """See Bucket."""
        headers = {"Content-Type": attributes.media_type, **attributes.metadata, **self._extra}
        if len(data) > LARGE:
            await self._create_in_parts(key, data, headers, dict(attributes.tags))
        with _translated("create"):
            await obstore.put_async(
                self._write_client(),
                key,
                data,
                attributes=headers,
                tags=dict(attributes.tags) or None,
                mode="create",
                use_multipart=False,
            )

    async def _create_in_parts(self, key: str, data: Buffer, attributes: dict[str, str], tags: dict[str, str]) -> None:
        """Write a large object in parts, so that not all of it is in memory at once.

        S3 has no create-only for parts as obstore sends them. So there is a look before, and one afterwards: writing
        the same content under the key that names it does no harm, and what is there in the end is what counts.

        Raises:
            AlreadyExists: there is one.
            WriteUnconfirmed: always, when it was written; have a look.
        """
        with contextlib.suppress(_ObjectMissing):
            with _translated("read"):
                await obstore.head_async(self._store, key)
            raise AlreadyExists
        with _translated("create"):
            await obstore.put_async(
                self._write_client(),
                key,
                _split_parts(data),
                attributes=attributes,
                tags=tags or None,
                chunk_size=_PART,
                max_concurrency=_PARTS_AT_ONCE,
            )
        raise WriteUnconfirmed("create", "it was written in parts")

    async def replace(self, key: str, data: bytes, attributes: ObjectAttributes, etag: str | None) -> None:
        """See Bucket."""
        try:
            with _translated("replace"):
                await obstore.put_async(
                    self._write_client(),
                    key,
                    data,
                    attributes={"Content-Type": attributes.media_type, **attributes.metadata},
                    tags=dict(attributes.tags) or None,
                    mode={"e_tag": etag} if etag else "create",
                    use_multipart=False,
                )
        except AlreadyExists:
            raise ManifestChanged from None

    async def read(self, key: str) -> StoredObject | None:
        """See Bucket."""
        try:
            with _translated("read"):
                # Manifests are small. A bucket that does not answer at all would be noticed after ten minutes only.
                async with asyncio.timeout(_READ_SECONDS):
                    result = await obstore.get_async(self._store, key)
                    data = await result.bytes_async()
        except _ObjectMissing:
            return None
        return StoredObject(data=bytes(data), etag=str(result.meta["e_tag"]))

    async def digest(self, key: str) -> str | None:
        """See Bucket."""
        return await sha256_of(await self.stream(key))

    async def stream(self, key: str) -> AsyncGenerator[bytes, None] | None:
        """See Bucket."""
        try:
            with _translated("read"):
                result = await obstore.get_async(self._store, key)
        except _ObjectMissing:
            return None
        return _chunks(result)


async def sha256_of(chunks: AsyncIterator[bytes] | None) -> str | None:
    """Return the SHA-256 of what a bucket streams; None where there is nothing."""
    if chunks is None:
        return None
    digest = hashlib.sha256()
    async for chunk in chunks:
        if len(chunk) <= _SMALL:
            digest.update(chunk)
        else:
            # It may be some megabytes: others have turns meanwhile, and hashing needs no interpreter.
            await asyncio.to_thread(digest.update, chunk)
    return digest.hexdigest()


async def _chunks(result: Any) -> AsyncGenerator[bytes, None]:
    with _translated("read"):
        if result.meta["size"] <= _CHUNK:
            yield bytes(await result.bytes_async())
            return
        async for chunk in result.stream(min_chunk_size=_CHUNK):
            yield bytes(chunk)


async def _split_parts(data: Buffer) -> AsyncIterator[bytes]:
    for part in chunks(data, 0, len(data), _PART):
        yield bytes(part)


class _ObjectMissing(StorageError):
    """There is no such object, or no such bucket."""


@contextlib.contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except (foreign.AlreadyExistsError, foreign.PreconditionError):
        raise AlreadyExists from None
    except (foreign.NotFoundError, FileNotFoundError) as error:
        # A missing bucket comes as a missing object; only its text tells them apart.
        if "NoSuchBucket" in str(error) or doing != "read":
            raise StorageError(doing, "the bucket does not exist") from None
        raise _ObjectMissing(doing, "it does not exist") from None
    except (foreign.PermissionDeniedError, foreign.UnauthenticatedError, PermissionError):
        raise StorageError(doing, "access is denied") from None
    except (foreign.BaseError, OSError, ValueError) as error:
        raise WriteUnconfirmed(doing, type(error).__name__) from None
