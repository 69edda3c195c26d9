"""An encrypted bucket keeps every guarantee of a bucket, and the owner of the inner bucket can read nothing."""

import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from tasks.errors import IntegrityError, SealingKeyMissing
from tasks.storage import encrypted_bucket as module
from tasks.storage.bucket import AlreadyExists, Bucket, ObjectAttributes, S3Bucket
from tasks.storage.encrypted_bucket import EncryptedBucket
from tasks.storage.encryption import Keyring
from tasks.storage.local_bucket import LocalBucket

KEY = "sandbox/an ID/selfie/hash.jpg"
CONTENT = b"a selfie " * 1_000
LABELS = ObjectAttributes("image/jpeg", {"eval-id": "an ID"}, {"environment": "sandbox"})
KEYRING = Keyring("2026", {"2026": b"n" * 32})


@pytest.fixture(params=["memory", "folder"])
def inner(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    return S3Bucket(MemoryStore()) if request.param == "memory" else LocalBucket(tmp_path / "archive")


@pytest.fixture
def bucket(inner: Bucket, tmp_path: Path) -> EncryptedBucket:
    return EncryptedBucket(inner, KEYRING, tmp_path)


async def streamed(bucket: EncryptedBucket, key: str = KEY) -> bytes:
    chunks = await bucket.stream(key)
    assert chunks is not None
    return b"".join([chunk async for chunk in chunks])


async def test_an_object_is_read_back_unchanged_and_is_unreadable_in_the_inner_bucket(
    inner: Bucket, bucket: EncryptedBucket
) -> None:
    await bucket.create(KEY, CONTENT, LABELS)
    found, raw = await bucket.read(KEY), await inner.read(KEY)
    assert found
    assert raw
    assert found.data == await streamed(bucket) == CONTENT
    assert await bucket.digest(KEY) == hashlib.sha256(CONTENT).hexdigest()
    assert b"selfie" not in raw.data


async def test_create_does_not_overwrite_and_replace_overwrites_the_read_version(bucket: EncryptedBucket) -> None:
    await bucket.create(KEY, CONTENT, LABELS)
    with pytest.raises(AlreadyExists):
        await bucket.create(KEY, CONTENT, LABELS)
    found = await bucket.read(KEY)
    assert found
    await bucket.replace(KEY, b"another", LABELS, found.etag)
    assert await streamed(bucket) == b"another"


async def test_a_large_object_that_is_sealed_on_disk_is_read_back_unchanged(
    inner: Bucket, bucket: EncryptedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGE", 1_000)
    await bucket.create(KEY, CONTENT, LABELS)
    assert await streamed(bucket) == CONTENT
    assert await bucket.digest(KEY) == hashlib.sha256(CONTENT).hexdigest()


async def test_methods_return_none_when_the_object_does_not_exist(bucket: EncryptedBucket) -> None:
    assert await bucket.read(KEY) is await bucket.digest(KEY) is await bucket.stream(KEY) is None


async def test_an_object_stored_before_encryption_is_read(inner: Bucket, bucket: EncryptedBucket) -> None:
    await inner.create(KEY, CONTENT, LABELS)
    assert await streamed(bucket) == CONTENT


async def test_a_bucket_without_keys_stores_plain_objects_and_cannot_read_sealed_ones(
    inner: Bucket, bucket: EncryptedBucket
) -> None:
    plain = EncryptedBucket(inner, None)
    await plain.create("another", CONTENT, LABELS)
    found = await inner.read("another")
    assert found
    assert found.data == CONTENT
    await bucket.create(KEY, CONTENT, LABELS)
    with pytest.raises(SealingKeyMissing):
        await plain.digest(KEY)


async def test_an_object_does_not_open_under_another_key(inner: Bucket, bucket: EncryptedBucket) -> None:
    await bucket.create(KEY, CONTENT, LABELS)
    raw = await inner.read(KEY)
    assert raw
    await inner.create("elsewhere", raw.data, LABELS)
    with pytest.raises(IntegrityError):
        await streamed(bucket, "elsewhere")


class OneByteBucket(S3Bucket):
    """A bucket that streams objects byte by byte."""

    async def stream(self, key: str) -> AsyncGenerator[bytes, None] | None:
        found = await self.read(key)
        return None if found is None else _yield_bytes(found.data)


async def _yield_bytes(data: bytes) -> AsyncGenerator[bytes, None]:
    for byte in data:
        yield bytes([byte])


@pytest.mark.parametrize("data", [b"", b"x", b"\xff\xd8 a photograph that was not sealed"])
async def test_an_object_is_read_back_when_it_arrives_byte_by_byte(data: bytes) -> None:
    inner = OneByteBucket(MemoryStore())
    bucket = EncryptedBucket(inner, KEYRING)
    await bucket.create("sealed", data, LABELS)
    await inner.create("plain", data, LABELS)
    assert await streamed(bucket, "sealed") == await streamed(bucket, "plain") == data
