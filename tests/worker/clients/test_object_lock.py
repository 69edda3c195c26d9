"""Objects under Object Lock have a retention date, which moto enforces as S3 does."""

import base64
import hashlib
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import obstore
import pytest
from obstore.store import S3Store

from tasks.storage.bucket import LARGE, ObjectAttributes, S3Bucket, WriteUnconfirmed
from tests.conftest import S3
from tests.riskos import ReceivedRequest, Reply, http, s3_error, serve_requests
from worker.clients.archive import open_archive
from worker.clients.errors import ServiceUnavailable
from worker.clients.object_lock import LockingClient, check_restricted_can_be_erased
from worker.config.settings import Settings, SettingsError

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def locked(s3: S3) -> S3:
    """Return a bucket with Object Lock."""
    bucket = f"locked-{uuid4()}"
    s3.client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    return S3(s3.endpoint, bucket, s3.client)


@pytest.fixture
def plain(locked: S3) -> S3Store:
    archive = open_archive(Settings(archive_url=f"s3://{locked.bucket}/docv", s3_endpoint=locked.endpoint))
    assert isinstance(archive, S3Store)
    return archive


def retention_of(s3: S3, key: str) -> tuple[str, datetime]:
    head: dict[str, Any] = s3.client.head_object(Bucket=s3.bucket, Key=f"docv/{key}")
    return head["ObjectLockMode"], head["ObjectLockRetainUntilDate"].astimezone(UTC)


async def test_an_object_is_locked_for_whole_days(locked: S3, plain: S3Store) -> None:
    bucket = S3Bucket(plain, write_client=LockingClient(plain, "COMPLIANCE", 10, lambda: NOON))
    await bucket.create(
        "document", b"bytes", ObjectAttributes("image/jpeg", {"eval-id": "an ID"}, {"environment": "sandbox"})
    )
    await bucket.replace("manifest.json", b"{}", ObjectAttributes("application/json"), None)
    for key in "document", "manifest.json":
        mode, until = retention_of(locked, key)
        assert mode == "COMPLIANCE"
        assert until == datetime(2026, 12, 4, tzinfo=UTC)
        assert until - NOON >= timedelta(days=10)
    found = await bucket.read("manifest.json")
    assert found
    labels = ObjectAttributes("application/json", tags={"environment": "sandbox"})
    await bucket.replace("manifest.json", b"{} ", labels, found.etag)
    assert await bucket.digest("document")
    assert retention_of(locked, "manifest.json") == ("COMPLIANCE", datetime(2026, 12, 4, tzinfo=UTC))
    for key in "document", "manifest.json":
        tags = locked.client.get_object_tagging(Bucket=locked.bucket, Key=f"docv/{key}")["TagSet"]
        assert tags == [{"Key": "environment", "Value": "sandbox"}]


async def test_each_day_has_its_own_retention_date(locked: S3, plain: S3Store) -> None:
    days = iter([NOON, NOON + timedelta(hours=1), NOON + timedelta(days=1)])
    client = LockingClient(plain, "GOVERNANCE", 1, lambda: next(days))
    first, same, next_day = client(), client(), client()
    assert first is same is not next_day
    await obstore.put_async(next_day, "later", b"x")
    assert retention_of(locked, "later") == ("GOVERNANCE", datetime(2026, 11, 26, tzinfo=UTC))


@pytest.mark.parametrize(
    ("until", "locked_until"),
    [
        (None, date(2026, 12, 4)),
        (date(2026, 11, 24), date(2026, 11, 24)),
        (date(2031, 2, 1), date(2031, 2, 1)),
        (date(2026, 11, 23), None),
        (date(2020, 1, 1), None),
    ],
)
@pytest.mark.parametrize("is_held", [False, True])
async def test_a_write_has_the_end_of_its_lock_and_its_legal_hold(
    locked: S3, plain: S3Store, until: date | None, locked_until: date | None, *, is_held: bool
) -> None:
    bucket = S3Bucket(plain, write_client=LockingClient(plain, "GOVERNANCE", 10, lambda: NOON))
    await bucket.create("x", b"x", ObjectAttributes("image/jpeg", locked_until=until, is_held=is_held))
    head = locked.client.head_object(Bucket=locked.bucket, Key="docv/x")
    assert head.get("ObjectLockMode") == ("GOVERNANCE" if locked_until else None)
    end = head.get("ObjectLockRetainUntilDate")
    assert (end and end.astimezone(UTC).replace(tzinfo=None)) == (
        locked_until and datetime.combine(locked_until, datetime.min.time())
    )
    assert head.get("ObjectLockLegalHoldStatus") == ("ON" if is_held else None)


async def test_a_client_without_a_lock_mode_locks_nothing_and_can_still_place_a_legal_hold(
    locked: S3, plain: S3Store
) -> None:
    for client in (LockingClient(plain), LockingClient(plain, "COMPLIANCE", 10).without_lock()):
        assert client() is client(date(2999, 1, 1)) is plain
        await obstore.put_async(client(date(2999, 1, 1), is_held=True), "x", b"x")
        head = locked.client.head_object(Bucket=locked.bucket, Key="docv/x")
        assert "ObjectLockMode" not in head
        assert head["ObjectLockLegalHoldStatus"] == "ON"


def test_only_the_most_recently_used_clients_are_kept(plain: S3Store) -> None:
    client = LockingClient(plain, "GOVERNANCE", 10, lambda: NOON)
    usual = client()
    for days in range(100):
        assert client(date(2027, 1, 1) + timedelta(days=days)) is not usual
        assert client() is usual
    assert client._get_client.cache_info().currsize < 50


def _accept_upload(request: ReceivedRequest) -> Reply:
    """Act as an S3 that accepts a multipart upload; moto does not record its headers."""
    match request.method, "uploadId" in request.path:
        case "POST", False:
            ids = b"<Bucket>ours</Bucket><Key>k</Key><UploadId>an upload</UploadId>"
            return Reply(http(200, b"<InitiateMultipartUploadResult>" + ids + b"</InitiateMultipartUploadResult>"))
        case "PUT", True:
            checksum = request.headers["x-amz-checksum-sha256"]
            return Reply(http(200, headers={"ETag": '"of a part"', "x-amz-checksum-sha256": checksum}))
        case "POST", True:
            return Reply(
                http(200, b"<CompleteMultipartUploadResult><ETag>whole</ETag></CompleteMultipartUploadResult>")
            )
    return Reply(s3_error(404, "NoSuchKey"))


@pytest.mark.usefixtures("s3")
async def test_a_multipart_upload_has_the_headers_of_a_put_and_a_checksum_for_each_part() -> None:
    # Under Object Lock, S3 demands a checksum header for each part, and the same ones to complete the upload (API
    # Reference, "UploadPart" and "CompleteMultipartUpload").
    data, key = bytes(range(256)) * (LARGE // 256) + b"more", "arn:aws:kms:us-east-1:1:key/2"
    async with serve_requests(_accept_upload) as server:
        store = open_archive(Settings(archive_url="s3://ours", s3_endpoint=server.url, kms_key_id=key))
        assert isinstance(store, S3Store)
        bucket = S3Bucket(store, "STANDARD_IA", LockingClient(store, "COMPLIANCE", 10, lambda: NOON))
        with pytest.raises(WriteUnconfirmed, match="in parts"):
            await bucket.create(
                "large.jpg", data, ObjectAttributes("image/jpeg", {"eval-id": "an ID"}, {"source": "other"})
            )

    _, begun, *parts, completed = server.requests
    wanted = {
        "x-amz-object-lock-mode": "COMPLIANCE",
        "x-amz-object-lock-retain-until-date": "2026-12-04T00:00:00.000Z",
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": key,
        "x-amz-server-side-encryption-bucket-key-enabled": "true",
        "x-amz-checksum-algorithm": "SHA256",
        "x-amz-storage-class": "STANDARD_IA",
        "x-amz-meta-eval-id": "an ID",
        "x-amz-tagging": "source=other",
        "content-type": "image/jpeg",
    }
    assert {name: begun.headers.get(name) for name in wanted} == wanted
    signed = re.search("SignedHeaders=([^,]*)", begun.headers["authorization"])
    assert signed
    assert set(wanted) <= set(signed[1].split(";"))

    checksums = {part.headers["x-amz-checksum-sha256"] for part in parts}
    assert {base64.b64encode(hashlib.sha256(part.body).digest()).decode() for part in parts} == checksums
    assert b"".join(part.body for part in sorted(parts, key=lambda part: part.path)) == data
    named = re.findall(rb"<ChecksumSHA256>([^<]*)</ChecksumSHA256>", completed.body)
    assert (len(named), {each.decode() for each in named}) == (len(parts), checksums)


@pytest.mark.usefixtures("s3")
async def test_a_locked_put_has_a_checksum_and_never_overwrites() -> None:
    async with serve_requests(lambda _: Reply(http(200, headers={"ETag": '"1"'}))) as server:
        store = open_archive(Settings(archive_url="s3://ours", s3_endpoint=server.url))
        assert isinstance(store, S3Store)
        await S3Bucket(store, write_client=LockingClient(store, "GOVERNANCE", 1)).create(
            "k", b"abc", ObjectAttributes("image/png")
        )
    (put,) = server.requests
    assert put.headers["x-amz-checksum-sha256"] == base64.b64encode(hashlib.sha256(b"abc").digest()).decode()
    assert (put.headers["x-amz-object-lock-mode"], put.headers["if-none-match"]) == ("GOVERNANCE", "*")


def with_default_retention(locked: S3, mode: str) -> Settings:
    """Set the default retention of a bucket; return settings that archive restricted images in it."""
    rule = {"DefaultRetention": {"Mode": mode, "Days": 1}}
    locked.client.put_object_lock_configuration(
        Bucket=locked.bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    return Settings(archive_url=f"s3://{locked.bucket}/docv", s3_endpoint=locked.endpoint, restricted="archive")


async def test_archiving_restricted_images_is_refused_if_the_bucket_locks_them_permanently(locked: S3) -> None:
    settings = with_default_retention(locked, "COMPLIANCE")
    with pytest.raises(SettingsError, match="default retention is COMPLIANCE"):
        await check_restricted_can_be_erased(settings, locked.bucket)
    await check_restricted_can_be_erased(settings.model_copy(update={"restricted": "withhold"}), locked.bucket)


async def test_archiving_restricted_images_is_accepted_for_any_other_bucket(s3: S3, locked: S3) -> None:
    settings = with_default_retention(locked, "GOVERNANCE")
    await check_restricted_can_be_erased(settings, locked.bucket)
    await check_restricted_can_be_erased(settings, s3.bucket)


async def test_archiving_restricted_images_is_refused_if_the_default_retention_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "a-key")
    async with serve_requests(lambda _: Reply(s3_error(403, "AccessDenied"))) as server:
        settings = Settings(archive_url="s3://ours", s3_endpoint=server.url, restricted="archive")
        with pytest.raises(ServiceUnavailable, match="need s3:GetBucketObjectLockConfiguration"):
            await check_restricted_can_be_erased(settings, "ours")
    with pytest.raises(ServiceUnavailable, match="does not answer"):
        await check_restricted_can_be_erased(settings, "ours")
