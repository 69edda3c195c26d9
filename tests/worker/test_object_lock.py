"""What is written under Object Lock says until when it is kept; moto keeps it as S3 does."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import obstore
import pytest
from obstore.store import S3Store

from tasks.bucket import Labels, ObjectBucket
from tests.conftest import S3
from worker.archive_client import open_archive
from worker.object_lock import LockingClient
from worker.settings import Settings

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def locked(s3: S3) -> S3:
    """A bucket that was made with Object Lock."""
    bucket = f"locked-{uuid4()}"
    s3.client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    return S3(s3.endpoint, bucket, s3.client)


@pytest.fixture
def plain(locked: S3) -> S3Store:
    archive = open_archive(Settings(archive_url=f"s3://{locked.bucket}/docv", s3_endpoint=locked.endpoint))
    assert isinstance(archive, S3Store)
    return archive


def kept(s3: S3, key: str) -> tuple[str, datetime]:
    head: dict[str, Any] = s3.client.head_object(Bucket=s3.bucket, Key=f"docv/{key}")
    return head["ObjectLockMode"], head["ObjectLockRetainUntilDate"].astimezone(UTC)


async def test_what_is_written_is_kept_for_whole_days(locked: S3, plain: S3Store) -> None:
    bucket = ObjectBucket(plain, writing=LockingClient(plain, "COMPLIANCE", 10, lambda: NOON))
    await bucket.create("document", b"bytes", Labels("image/jpeg", {"eval-id": "an ID"}, {"environment": "sandbox"}))
    await bucket.replace("manifest.json", b"{}", Labels("application/json"), None)
    for key in "document", "manifest.json":
        mode, until = kept(locked, key)
        assert mode == "COMPLIANCE"
        assert until == datetime(2026, 12, 4, tzinfo=UTC)
        assert until - NOON >= timedelta(days=10)
    found = await bucket.read("manifest.json")
    assert found
    await bucket.replace("manifest.json", b"{} ", Labels("application/json"), found.version)
    assert await bucket.digest("document")
    tags = locked.client.get_object_tagging(Bucket=locked.bucket, Key="docv/document")["TagSet"]
    assert tags == [{"Key": "environment", "Value": "sandbox"}]


async def test_each_day_has_its_own_end(locked: S3, plain: S3Store) -> None:
    days = iter([NOON, NOON + timedelta(hours=1), NOON + timedelta(days=1)])
    client = LockingClient(plain, "GOVERNANCE", 1, lambda: next(days))
    first, same, next_day = client(), client(), client()
    assert first is same is not next_day
    await obstore.put_async(next_day, "later", b"x")
    assert kept(locked, "later") == ("GOVERNANCE", datetime(2026, 11, 26, tzinfo=UTC))
