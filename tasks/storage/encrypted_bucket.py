"""A bucket whose objects are sealed on our side; it gives back what was put in, sealed or not."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

from tasks.memory.buffer_pool import Buffer
from tasks.memory.spool import Spool
from tasks.storage.bucket import LARGE, Bucket, ObjectAttributes, StoredObject, sha256_of
from tasks.storage.encryption import Keyring, StreamOpener, is_plain, seal


class EncryptedBucket:
    """Seals what is written and opens what is read.

    Args:
        bucket: where the sealed objects are.
        keyring: the keys; None where there are none: then nothing is sealed, and what is sealed cannot be read.
        spool_dir: folder for what is too large for memory.
    """

    def __init__(self, bucket: Bucket, keyring: Keyring | None, spool_dir: Path | None = None) -> None:
        self._bucket, self._keyring, self._spool_dir = bucket, keyring, spool_dir

    async def create(self, key: str, data: Buffer, attributes: ObjectAttributes) -> None:
        """See Bucket."""
        await self._bucket.create(key, await self._encrypt(key, data), attributes)

    async def replace(self, key: str, data: bytes, attributes: ObjectAttributes, etag: str | None) -> None:
        """See Bucket."""
        await self._bucket.replace(key, bytes(await self._encrypt(key, data)), attributes, etag)

    async def read(self, key: str) -> StoredObject | None:
        """See Bucket; raises IntegrityError or SealingKeyMissing where it does not open, too."""
        found = await self._bucket.read(key)
        if found is None or is_plain(found.data):
            return found
        return StoredObject(data=await asyncio.to_thread(self._decrypt, key, found.data), etag=found.etag)

    async def digest(self, key: str) -> str | None:
        """See Bucket; raises IntegrityError or SealingKeyMissing where it does not open, too."""
        return await sha256_of(await self.stream(key))

    async def stream(self, key: str) -> AsyncGenerator[bytes, None] | None:
        """See Bucket; raises IntegrityError or SealingKeyMissing where it does not open, too."""
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
        # No thread is woken for what is not sealed.
        opened = chunk if plain else await asyncio.to_thread(opening.update, chunk)
        if opened:
            yield opened
    rest = b"" if plain else await asyncio.to_thread(opening.finish)
    if rest:
        yield rest
