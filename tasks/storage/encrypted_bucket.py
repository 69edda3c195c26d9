"""A bucket that seals objects before they are sent, and returns their plain bytes whether they are sealed or not."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

from tasks.memory.buffer_pool import Buffer
from tasks.memory.spool import Spool
from tasks.storage.bucket import LARGE, Bucket, ListedObject, ObjectAttributes, StoredObject, sha256_of
from tasks.storage.encryption import BEGINNING, Keyring, StreamOpener, is_plain, key_id_of, seal


class EncryptedBucket:
    """A bucket that seals objects on write and opens them on read.

    ``Bucket`` documents what each method guarantees.

    Args:
        bucket: the bucket of the sealed objects.
        keyring: the keys; without a keyring, no object is sealed and sealed objects cannot be read.
        spool_dir: folder for sealed objects that are too large for memory.
    """

    def __init__(self, bucket: Bucket, keyring: Keyring | None, spool_dir: Path | None = None) -> None:
        self._bucket, self._keyring, self._spool_dir = bucket, keyring, spool_dir

    async def create(self, key: str, data: Buffer, attributes: ObjectAttributes) -> None:
        """Seal and write an object unless its key is taken."""
        await self._bucket.create(key, await self._encrypt(key, data), attributes)

    async def replace(self, key: str, data: bytes, attributes: ObjectAttributes, etag: str | None) -> None:
        """Seal an object and replace the version that has this ETag, or create it if ``etag`` is None."""
        await self._bucket.replace(key, bytes(await self._encrypt(key, data)), attributes, etag)

    async def read(self, key: str, max_bytes: int | None = None) -> StoredObject | None:
        """Return an opened object, or None if it does not exist.

        Raises:
            IntegrityError: the object is larger than ``max_bytes``, or cannot be opened.
            SealingKeyMissing: the settings do not have the key that it is sealed with.
        """
        found = await self._bucket.read(key, max_bytes)
        if found is None or is_plain(found.data):
            return found
        return StoredObject(data=await asyncio.to_thread(self._decrypt, key, found.data), etag=found.etag)

    async def digest(self, key: str) -> str | None:
        """Read an object back and return the SHA-256 of its plain bytes, or None if it does not exist.

        Raises:
            IntegrityError: the object cannot be opened.
            SealingKeyMissing: the settings do not have the key that it is sealed with.
        """
        found = await self.examine(key)
        return found and found[0]

    async def examine(self, key: str) -> tuple[str, str | None] | None:
        """Read an object back and return the SHA-256 of its plain bytes and the ID of its key; raise as ``digest``.

        Return None as the ID of an unsealed object, and None for an object that does not exist.
        """
        chunks = await self._bucket.stream(key)
        if chunks is None:
            return None
        opening = StreamOpener(key, self._keyring)
        sha256 = await sha256_of(_decrypt_stream(chunks, opening))
        return sha256 or "", opening.key_id

    async def find_key_id(self, key: str) -> str | None:
        """Return the ID of the key that an object is sealed with, or None if it is unsealed or does not exist."""
        return key_id_of(await self._bucket.read_beginning(key, BEGINNING) or b"")

    async def read_beginning(self, key: str, size: int) -> bytes | None:
        """Return the first bytes of an object as they are stored, without opening it."""
        return await self._bucket.read_beginning(key, size)

    def list_objects(self, prefix: str, after: str = "") -> AsyncGenerator[list[ListedObject], None]:
        """Yield the objects below a prefix that ends with a slash; sizes are those of the stored objects."""
        return self._bucket.list_objects(prefix, after)

    async def replace_version(self, key: str, data: Buffer, attributes: ObjectAttributes) -> bool:
        """Seal and write an object over an existing one if the bucket keeps the former version; else return False."""
        return await self._bucket.replace_version(key, await self._encrypt(key, data), attributes)

    async def put_tags(self, key: str, attributes: ObjectAttributes) -> None:
        """Set the tags of an existing object, unless each write sets them."""
        await self._bucket.put_tags(key, attributes)

    async def stream(self, key: str) -> AsyncGenerator[bytes, None] | None:
        """Return an opened object's bytes in chunks, or None if it does not exist.

        Reading the chunks raises IntegrityError or SealingKeyMissing if the object cannot be opened.
        """
        chunks = await self._bucket.stream(key)
        return None if chunks is None else _decrypt_stream(chunks, StreamOpener(key, self._keyring))

    async def _encrypt(self, key: str, data: Buffer) -> Buffer:
        if self._keyring is None:
            return data
        return await asyncio.to_thread(_encrypt_to_spool, data, key, self._keyring, self._spool_dir)

    def _decrypt(self, key: str, data: bytes) -> bytes:
        opening = StreamOpener(key, self._keyring)
        return opening.update(data) + opening.finish()


def _encrypt_to_spool(data: Buffer, key: str, keyring: Keyring, spool_dir: Path | None) -> Buffer:
    if len(data) <= LARGE:
        return b"".join(seal(data, key, keyring))
    with contextlib.closing(Spool(spool_dir)) as spool:
        spool.put(seal(data, key, keyring))
        return spool.mapped()


async def _decrypt_stream(chunks: AsyncGenerator[bytes, None], opening: StreamOpener) -> AsyncGenerator[bytes, None]:
    plain: bool | None = None
    async for chunk in chunks:
        if plain is None:
            plain = is_plain(chunk)
        # Bytes of an unsealed object need no thread.
        opened = chunk if plain else await asyncio.to_thread(opening.update, chunk)
        if opened:
            yield opened
    rest = b"" if plain else await asyncio.to_thread(opening.finish)
    if rest:
        yield rest
