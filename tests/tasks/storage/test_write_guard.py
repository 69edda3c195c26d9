"""The lease is confirmed before an attempt writes an object, or a part of a large one."""

import asyncio
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from tasks.bundle.documents import Document, DocumentSource, Kind
from tasks.errors import LeaseLost, StorageError
from tasks.model.evaluation import Evaluation
from tasks.pipeline.upload import UploadTarget, quarantine_bundle, store_documents
from tasks.riskos.response import Bundle
from tasks.storage.bucket import Bucket, ObjectAttributes, S3Bucket, put
from tasks.storage.encrypted_bucket import EncryptedBucket
from tasks.storage.encryption import Keyring
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.write_guard import WriteGuard
from tests.riskos import Reply, Then, serve_requests

EVALUATION = Evaluation("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "sandbox")
LABELS = ObjectAttributes("application/pdf")


class Lease:
    """A lease that is lost after a number of confirmations."""

    def __init__(self, times: int) -> None:
        self.left = times

    async def confirm(self) -> None:
        if not self.left:
            raise LeaseLost
        self.left -= 1


def guard_of(lease: Lease, seconds: float = 60.0) -> WriteGuard:
    return WriteGuard(lease.confirm, lambda: True, seconds)


def documents(count: int) -> Iterator[Document]:
    for number in range(count):
        data = f"document {number}".encode()
        yield Document(
            name=f"{number}.pdf",
            kind=Kind.OTHER,
            source=DocumentSource.OTHER,
            media_type="application/pdf",
            extension="pdf",
            data=data,
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            modified=None,
            name_mismatch=None,
        )


@pytest.fixture(params=["folder", "memory", "sealed"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    if request.param == "folder":
        return LocalBucket(tmp_path / "archive")
    plain = S3Bucket(MemoryStore())
    return EncryptedBucket(plain, Keyring("k1", {"k1": b"k" * 32})) if request.param == "sealed" else plain


async def test_no_further_document_is_written_when_the_lease_is_lost(bucket: Bucket) -> None:
    guard = guard_of(Lease(5))
    with guard.active(), pytest.raises(LeaseLost):
        await store_documents(UploadTarget(bucket), EVALUATION, list(documents(30)), archived_at="now")
    stored_keys = [key for key in guard.keys if await bucket.read(key)]
    assert len(stored_keys) <= 5
    assert len(guard.keys) == 5
    with guard_of(Lease(0)).active(), pytest.raises(LeaseLost):
        await bucket.replace(EVALUATION.manifest_key, b"{}", LABELS, None)
    assert await bucket.read(EVALUATION.manifest_key) is None


async def test_no_bundle_is_put_into_quarantine_when_the_lease_is_lost(bucket: Bucket) -> None:
    bundle = Bundle(None, b"no zip", hashlib.sha256(b"no zip").hexdigest(), 6)
    with guard_of(Lease(0)).active(), pytest.raises(LeaseLost):
        await quarantine_bundle(UploadTarget(bucket), EVALUATION, bundle)
    assert await bucket.read(EVALUATION.quarantine_key(bundle.sha256)) is None


async def test_the_lease_is_confirmed_before_each_part_of_a_large_object() -> None:
    store = MemoryStore()
    data, lease = b"x" * (22 << 20), Lease(3)
    with guard_of(lease).active(), pytest.raises(LeaseLost):
        await put(S3Bucket(store), "large", data, hashlib.sha256(data).hexdigest(), LABELS)
    assert list(store.list()) == []
    lease = Lease(100)
    with guard_of(lease).active():
        await put(S3Bucket(store), "large", data, hashlib.sha256(data).hexdigest(), LABELS)
    assert lease.left == 100 - 1 - 5, "once before the upload, and before each of five parts"


async def test_a_write_without_a_lease_succeeds(bucket: Bucket) -> None:
    await bucket.create("a", b"1", LABELS)
    assert await bucket.read("a")


async def test_an_upload_is_cancelled_when_it_takes_too_long() -> None:
    async with serve_requests(lambda _: Reply(b"", Then.HANG)) as server:
        store = obstore.store.S3Store(
            "b",
            endpoint=server.url,
            virtual_hosted_style_request=False,
            region="us-east-1",
            access_key_id="testing",
            secret_access_key="testing",  # not a real secret
            client_options={"allow_http": True},
        )
        # The limit of the guard ends the upload. obstore's own timeout would raise another error.
        with guard_of(Lease(100), seconds=0.2).active(), pytest.raises(StorageError, match=r"\(TimeoutError\)"):
            await S3Bucket(store).create("a", b"1", LABELS)


async def test_a_write_to_a_folder_leaves_nothing_when_the_lease_expires_during_the_write(tmp_path: Path) -> None:
    bucket = LocalBucket(tmp_path)
    with WriteGuard(Lease(1).confirm, lambda: False, 60.0).active(), pytest.raises(LeaseLost):
        await bucket.create("a/b", b"1", LABELS)
    assert await bucket.read("a/b") is None


async def test_a_cancelled_write_to_a_folder_ends_before_the_cancellation_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, ended = LocalBucket(tmp_path), []
    create = bucket._create

    def slow(key: str, data: bytes) -> None:
        time.sleep(0.3)
        create(key, data)
        ended.append(key)

    monkeypatch.setattr(bucket, "_create", slow)
    writing = asyncio.create_task(bucket.create("a", b"1", LABELS))
    await asyncio.sleep(0.05)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert ended == ["a"]


async def test_remove_deletes_objects_and_the_folders_that_become_empty(tmp_path: Path) -> None:
    bucket = LocalBucket(tmp_path)
    for key in ("e/i/selfie/1.jpg", "e/i/selfie/2.jpg", "e/i/manifest.json"):
        await bucket.create(key, b"1", LABELS)
    assert await bucket.remove(["e/i/selfie/1.jpg", "e/i/selfie/2.jpg", "e/i/never/there.jpg"])
    assert [path.name for path in (tmp_path / "e" / "i").iterdir()] == ["manifest.json"]
