"""The key ID of a sealed object is read from the object. Plain bytes are not accepted as sealed ones."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from scripts.archive_access.open_bucket import open_archive_bucket
from tasks.bundle.documents import Document, DocumentSource, Kind
from tasks.errors import IntegrityError
from tasks.model.evaluation import Evaluation
from tasks.pipeline.upload import UploadTarget, find_key_id, quarantine_bundle, store_documents
from tasks.riskos.response import Bundle
from tasks.storage.bucket import Bucket, S3Bucket
from tasks.storage.encrypted_bucket import EncryptedBucket
from tasks.storage.encryption import Keyring
from tasks.storage.local_bucket import LocalBucket
from tests.conftest import S3
from worker.config.settings import Settings

EVALUATION = Evaluation("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "sandbox")
KEYS = {"k1": b"1" * 32, "k2": b"2" * 32}
DATA = b"%PDF-1.4 a document"
SHA256 = hashlib.sha256(DATA).hexdigest()
DOCUMENT = Document(
    name="a.pdf",
    kind=Kind.OTHER,
    source=DocumentSource.OTHER,
    media_type="application/pdf",
    extension="pdf",
    data=DATA,
    sha256=SHA256,
    size=len(DATA),
    modified=None,
    name_mismatch=None,
)
KEY = EVALUATION.document_key("other", SHA256, "pdf")
BUNDLE = Bundle(None, DATA, SHA256, len(DATA))


def sealing_target(bucket: Bucket, key_id: str) -> UploadTarget:
    return UploadTarget(EncryptedBucket(bucket, Keyring(key_id, KEYS)), sealed_with=key_id)


async def store_document(target: UploadTarget, *plain: str) -> str | None:
    """Store the document, and return the ID of its encryption key."""
    (stored,) = await store_documents(target, EVALUATION, [DOCUMENT], archived_at="now", plain=plain)
    return stored.sealed_with


async def read_bytes(bucket: Bucket, key: str) -> bytes:
    found = await bucket.read(key)
    assert found
    return found.data


@pytest.fixture(params=["memory", "folder"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    """A bucket without versions."""
    return LocalBucket(tmp_path / "archive") if request.param == "folder" else S3Bucket(MemoryStore())


@pytest.fixture
async def versioned(s3: S3) -> AsyncIterator[Bucket]:
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    async with open_archive_bucket(Settings(archive_url=f"s3://{s3.bucket}/kyc", s3_endpoint=s3.endpoint)) as bucket:
        yield bucket


async def test_an_existing_object_keeps_its_encryption_key(bucket: Bucket) -> None:
    assert await store_document(sealing_target(bucket, "k1")) == "k1"
    assert await store_document(sealing_target(bucket, "k2")) == "k1"
    assert await store_document(sealing_target(bucket, "k1")) == "k1"


async def test_sealed_with_is_none_without_a_keyring(bucket: Bucket) -> None:
    for _ in range(2):
        assert await store_document(UploadTarget(bucket)) is None


async def test_plain_bytes_raise_integrity_error_when_the_bucket_cannot_replace_them(bucket: Bucket) -> None:
    plain, target = UploadTarget(bucket), sealing_target(bucket, "k1")
    await store_document(plain)
    key = await quarantine_bundle(plain, EVALUATION, BUNDLE)
    with pytest.raises(IntegrityError, match="unsealed"):
        await store_document(target)
    with pytest.raises(IntegrityError, match="unsealed"):
        await quarantine_bundle(target, EVALUATION, BUNDLE)
    assert [await read_bytes(bucket, each) for each in (KEY, key)] == [DATA, DATA]


async def test_plain_bytes_are_replaced_by_sealed_ones_when_the_bucket_keeps_versions(
    versioned: Bucket, s3: S3
) -> None:
    plain, target = UploadTarget(versioned), sealing_target(versioned, "k1")
    await store_document(plain)
    key = await quarantine_bundle(plain, EVALUATION, BUNDLE)
    assert await store_document(target) == "k1"
    assert await quarantine_bundle(target, EVALUATION, BUNDLE) == key
    for each in (KEY, key):
        assert DATA not in await read_bytes(versioned, each)
        assert await find_key_id(target, each) == "k1"
        assert await target.bucket.digest(each) == SHA256
        versions = s3.client.list_object_versions(Bucket=s3.bucket, Prefix=f"kyc/{each}")["Versions"]
        assert len(versions) == 2
    tags = s3.client.get_object_tagging(Bucket=s3.bucket, Key=f"kyc/{KEY}")["TagSet"]
    assert {"Key": "document-kind", "Value": "other"} in tags


async def test_an_object_stays_plain_when_its_manifest_lists_it_as_plain(bucket: Bucket) -> None:
    plain, target = UploadTarget(bucket), sealing_target(bucket, "k1")
    await store_document(plain)
    key = await quarantine_bundle(plain, EVALUATION, BUNDLE)
    assert await store_document(target, KEY) is None
    assert await quarantine_bundle(target, EVALUATION, BUNDLE, plain=[key]) == key
    assert await find_key_id(target, key) is None
    assert await read_bytes(bucket, KEY) == DATA


async def test_read_beginning_returns_the_whole_object_when_it_is_shorter(bucket: Bucket, versioned: Bucket) -> None:
    for each in (bucket, versioned):
        await store_document(UploadTarget(each))
        assert await each.read_beginning(KEY, 4) == DATA[:4]
        assert await each.read_beginning(KEY, 4_000) == DATA
        assert await each.read_beginning("sandbox/none", 4) is None
