"""boto3's client of S3: the times that S3 tells, in each form that it has for them."""

import asyncio
from datetime import UTC, datetime

import pytest

from scripts.archive_access.s3_client import make_s3_client
from tests.riskos import http, saying

AT = datetime(2026, 11, 23, 19, 5, 2, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ACCESS_KEY_ID": "testing",
        "SECRET_ACCESS_KEY": "testing",
        "DEFAULT_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)


@pytest.mark.parametrize("told", ["2026-11-23T19:05:02.000Z", "2026-11-23T19:05:02Z", "2026-11-23T21:05:02+02:00"])
async def test_a_listing_tells_when_an_object_was_written(told: str) -> None:
    body = f"<ListBucketResult><Contents><Key>a</Key><LastModified>{told}</LastModified></Contents></ListBucketResult>"
    async with saying(http(200, body.encode())) as server:
        listed = await asyncio.to_thread(lambda: make_s3_client(server.url).list_objects_v2(Bucket="ours"))
    assert [each["LastModified"] for each in listed["Contents"]] == [AT]


async def test_a_header_tells_it_as_http_does() -> None:
    async with saying(http(200, headers={"Last-Modified": "Mon, 23 Nov 2026 19:05:02 GMT"})) as server:
        head = await asyncio.to_thread(lambda: make_s3_client(server.url).head_object(Bucket="ours", Key="a"))
    assert head["LastModified"] == AT
