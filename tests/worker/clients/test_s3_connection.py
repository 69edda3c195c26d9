"""boto3's client of S3 parses the times of S3 in each of their formats."""

import asyncio
from datetime import UTC, datetime

import pytest

from tests.riskos import http, serve_replies
from worker.clients.s3_connection import connect_s3

AT = datetime(2026, 11, 23, 19, 5, 2, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ACCESS_KEY_ID": "testing",
        "SECRET_ACCESS_KEY": "testing",
        "DEFAULT_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)


@pytest.mark.parametrize("time", ["2026-11-23T19:05:02.000Z", "2026-11-23T19:05:02Z", "2026-11-23T21:05:02+02:00"])
async def test_the_time_of_an_object_in_a_listing_is_parsed(time: str) -> None:
    body = f"<ListBucketResult><Contents><Key>a</Key><LastModified>{time}</LastModified></Contents></ListBucketResult>"
    async with serve_replies(http(200, body.encode())) as server:
        listed = await asyncio.to_thread(lambda: connect_s3(server.url).client.list_objects_v2(Bucket="ours"))
    assert [each["LastModified"] for each in listed["Contents"]] == [AT]


async def test_the_time_of_an_object_in_a_header_is_parsed() -> None:
    async with serve_replies(http(200, headers={"Last-Modified": "Mon, 23 Nov 2026 19:05:02 GMT"})) as server:
        head = await asyncio.to_thread(lambda: connect_s3(server.url).client.head_object(Bucket="ours", Key="a"))
    assert head["LastModified"] == AT
