from pathlib import Path

import pytest

from scripts.verify.s3_objects import _of_the_whole, open_s3_lister
from tasks.errors import StorageError
from tasks.memory.spool import Spool
from tasks.storage.bucket import ObjectAttributes, S3Bucket
from tests.archives import PREFIX, BucketEditor
from tests.conftest import S3
from tests.riskos import http, serve_replies
from worker.clients.archive import open_archive
from worker.config.settings import Settings

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def settings_for(s3: S3) -> Settings:
    return Settings(archive_url=f"s3://{s3.bucket}/{PREFIX}", s3_endpoint=s3.endpoint)


async def test_objects_are_listed_in_order_without_those_of_other_prefixes(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "100")  # page size of moto; that of S3 is 1,000
    editor = BucketEditor(s3)
    keys = sorted([f"a/{number:04}" for number in range(150)] + ["a//b", "b/", "../x", "ä b+c%20"], key=str.encode)
    for key in keys:
        s3.client.put_object(Bucket=s3.bucket, Key=f"{PREFIX}/{key}", Body=b"x")
    s3.client.put_object(Bucket=s3.bucket, Key=f"{PREFIX}-of-another/a", Body=b"x")
    assert len(editor.listed()) == len(keys) + 1
    async with open_s3_lister(settings_for(s3)) as lister:
        found = [stored async for some in lister.walk("") for stored in some]
        assert [stored.key for stored in found] == keys
        assert [stored.key async for some in lister.walk("a/00") for stored in some] == keys[2:102]
        assert [name async for some in lister.list_folders("") for name in some] == ["..", "a", "b"]
        assert [name async for some in lister.list_folders("a/") for name in some] == [""]


async def test_metadata_tags_checksum_and_lock_are_returned(s3: S3) -> None:
    store = open_archive(settings_for(s3))
    assert not isinstance(store, Path)
    labels = ObjectAttributes("image/jpeg", {"eval-id": "0b54"}, {"source": "other"})
    await S3Bucket(store).create("abc", b"abc", labels)
    async with open_s3_lister(settings_for(s3)) as lister:
        facts = await lister.head("abc")
        assert facts
        assert (facts.sha256, facts.metadata, facts.tags, facts.lock) == (ABC, labels.metadata, labels.tags, None)
        assert await lister.head("abd") is None


async def test_a_checksum_of_parts_is_not_used(s3: S3, tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put([bytes(1 << 20)] * 17)
    store = open_archive(settings_for(s3))
    assert not isinstance(store, Path)
    with pytest.raises(StorageError, match="in parts"):
        await S3Bucket(store).create("large", spool.mapped(), ObjectAttributes("image/jpeg"))
    async with open_s3_lister(settings_for(s3)) as lister:
        facts = await lister.head("large")
    assert facts
    assert facts.sha256 is None


@pytest.mark.parametrize(
    ("head", "sha256"),
    [
        ({}, None),
        ({"x-amz-checksum-sha256": "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="}, ABC),
        ({"x-amz-checksum-sha256": "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=-3"}, None),
        (
            {
                "x-amz-checksum-sha256": "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
                "x-amz-checksum-type": "COMPOSITE",
            },
            None,
        ),
        ({"x-amz-checksum-sha256": "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=", "etag": '"00-3"'}, None),
        ({"x-amz-checksum-sha256": "abcd"}, None),
        ({"x-amz-checksum-sha256": "?"}, None),
    ],
)
def test_only_a_checksum_of_the_whole_object_is_used(head: dict[str, str], sha256: str | None) -> None:
    assert _of_the_whole(head) == sha256


async def test_a_bucket_that_does_not_answer_is_a_storage_error(s3: S3) -> None:
    settings = Settings(archive_url="s3://there-is-no-such-bucket/x", s3_endpoint=s3.endpoint)
    async with open_s3_lister(settings) as lister:
        with pytest.raises(StorageError, match="NoSuchBucket"):
            _ = [some async for some in lister.walk("")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Sign in</html>",
        b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        b"<ListBucketResult><Contents>",
    ],
)
async def test_an_incomplete_listing_is_a_storage_error(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    async with serve_replies(http(200, body)) as server:
        settings = Settings(archive_url="s3://archive", s3_endpoint=server.url)
        async with open_s3_lister(settings) as lister:
            with pytest.raises(StorageError, match="list"):
                _ = [some async for some in lister.walk("")]
