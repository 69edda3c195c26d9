"""The archive is opened with the settings, and a bad answer is reported in one sentence."""

import contextlib
import os
import stat
from pathlib import Path

import obstore
import pytest

from tests.conftest import S3
from tests.riskos import Reply, Then, http, s3_error, serve_replies
from worker.clients.archive import NO_ETAG, check_archive, check_conditional_writes, open_archive
from worker.clients.errors import ServiceUnavailable
from worker.config.settings import Settings, SettingsError


def with_(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update=changes)


@pytest.fixture
def _no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))


async def test_a_missing_folder_is_made_for_its_owner_only(tmp_path: Path, settings: Settings) -> None:
    folder = tmp_path / "a b" / "100%" / "archive"
    archive = open_archive(with_(settings, archive_url=folder.as_uri()))
    assert archive == folder
    await check_archive(archive, settings)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    await check_archive(archive, settings)


async def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "archive"):
        with pytest.raises(ServiceUnavailable, match="cannot be created"):
            await check_archive(folder, settings)


@pytest.mark.skipif(os.geteuid() == 0, reason="root ignores file permissions")
async def test_a_folder_that_is_not_writable_is_an_error(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "archive").mkdir(mode=0o500)
    with pytest.raises(ServiceUnavailable, match="cannot be written to"):
        await check_archive(tmp_path / "archive", settings)


async def test_the_check_of_a_bucket_leaves_nothing_in_it(settings: Settings, s3: S3) -> None:
    settings = with_(settings, archive_url=f"s3://{s3.bucket}/of/ours", s3_endpoint=s3.endpoint)
    await check_archive(open_archive(settings), settings)
    assert s3.client.list_objects_v2(Bucket=s3.bucket)["KeyCount"] == 0


async def test_a_missing_bucket_is_an_error(settings: Settings, s3: S3) -> None:
    settings = with_(settings, archive_url="s3://no-such-bucket-here/of/ours", s3_endpoint=s3.endpoint)
    with pytest.raises(ServiceUnavailable, match=r"s3://no-such-bucket-here/of/ours.*no such bucket.*DOCV_ARCHIVE_URL"):
        await check_archive(open_archive(settings), settings)


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(
    ("reply", "advice"),
    [
        (s3_error(403, "AccessDenied"), "s3:GetObject"),
        (s3_error(403, "InvalidAccessKeyId"), "check AWS_ACCESS_KEY_ID"),
        (s3_error(401, "Unauthorized"), "s3:GetObject"),
        (s3_error(400, "AuthorizationHeaderMalformed"), "DOCV_S3_ENDPOINT"),
        (Reply(b"", Then.CLOSE), "DOCV_S3_ENDPOINT"),
        (http(200, b"<html>"), "a web page came instead of S3's answer"),
        (http(404, b"<html>"), "a web page came instead of S3's answer"),
    ],
)
async def test_a_bucket_with_an_unexpected_answer_is_an_error(
    settings: Settings, reply: Reply | bytes, advice: str
) -> None:
    async with serve_replies(reply) as server:
        settings = with_(settings, archive_url="s3://ours", s3_endpoint=server.url)
        with pytest.raises(ServiceUnavailable, match=advice) as caught:
            await check_archive(open_archive(settings), settings)
    assert "testing" not in str(caught.value)  # credentials for the tests


@pytest.mark.usefixtures("s3")
async def test_the_region_of_a_bucket_is_reported_if_only_a_header_has_it(settings: Settings) -> None:
    elsewhere = http(301, headers={"x-amz-bucket-region": "eu-west-3"})
    async with serve_replies(elsewhere) as server:
        settings = with_(settings, archive_url="s3://ours", s3_endpoint=server.url)
        with pytest.raises(ServiceUnavailable, match="in another region, eu-west-3; set AWS_DEFAULT_REGION=eu-west-3"):
            await check_archive(open_archive(settings), settings)


@pytest.mark.usefixtures("s3")
async def test_an_endpoint_without_a_server_is_an_error(settings: Settings, unused_address: str) -> None:
    settings = with_(settings, archive_url="s3://ours", s3_endpoint=f"http://{unused_address}")
    with pytest.raises(ServiceUnavailable, match="DOCV_S3_ENDPOINT"):
        await check_archive(open_archive(settings), settings)


async def test_the_check_of_conditional_writes_leaves_nothing_in_a_bucket(settings: Settings, s3: S3) -> None:
    settings = with_(settings, archive_url=f"s3://{s3.bucket}/of/ours", s3_endpoint=s3.endpoint)
    await check_conditional_writes(open_archive(settings), settings)
    assert s3.client.list_objects_v2(Bucket=s3.bucket)["KeyCount"] == 0


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(
    ("reply", "is_refused"),
    [
        (http(200, headers={"ETag": '"1"'}), True),
        (s3_error(501, "NotImplemented"), True),
        (s3_error(412, "PreconditionFailed"), False),
        (s3_error(404, "NoSuchKey"), False),
        (s3_error(403, "AccessDenied"), False),
    ],
)
async def test_a_store_that_ignores_conditions_is_refused(
    settings: Settings, reply: bytes, *, is_refused: bool
) -> None:
    async with serve_replies(reply) as server:
        settings = with_(settings, archive_url="s3://ours", s3_endpoint=server.url)
        refusal = pytest.raises(
            SettingsError, match=r"s3://ours: this S3 has no conditional writes \(If-Match\).*use an S3"
        )
        with refusal if is_refused else contextlib.nullcontext():
            await check_conditional_writes(open_archive(settings, retries=0), settings)
    assert server.requests[0].headers["if-match"] == NO_ETAG


@pytest.mark.usefixtures("_no_credentials")
def test_a_bucket_cannot_be_opened_without_credentials(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="AWS_ACCESS_KEY_ID"):
        open_archive(with_(settings, archive_url="s3://ours"))


@pytest.mark.usefixtures("_no_credentials")
def test_a_folder_needs_no_credentials(settings: Settings, tmp_path: Path) -> None:
    assert open_archive(settings) == tmp_path / "archive"


async def test_documents_are_encrypted_with_the_key_of_the_settings(settings: Settings, s3: S3) -> None:
    key = "arn:aws:kms:us-east-1:123456789012:key/0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"
    encrypted = with_(settings, archive_url=f"s3://{s3.bucket}", s3_endpoint=s3.endpoint, kms_key_id=key)
    await obstore.put_async(open_archive(encrypted), "with", b"x")
    await obstore.put_async(open_archive(with_(encrypted, kms_key_id=None)), "without", b"x")
    head = s3.client.head_object(Bucket=s3.bucket, Key="with")
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key)
    assert head["BucketKeyEnabled"]
    assert "SSEKMSKeyId" not in s3.client.head_object(Bucket=s3.bucket, Key="without")


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize("header", ["AES256", "aws:kms"])
async def test_each_write_has_the_encryption_header_of_the_settings(settings: Settings, header: str) -> None:
    async with serve_replies(http(200, headers={"ETag": '"1"'})) as server:
        demanded = with_(settings, archive_url="s3://ours", s3_endpoint=server.url, sse=header)
        await obstore.put_async(open_archive(demanded), "with", b"x")
        await obstore.put_async(open_archive(with_(demanded, sse=None)), "without", b"x")
    name = "x-amz-server-side-encryption"
    assert [request.headers.get(name) for request in server.requests] == [header, None]
    assert f"{name}-aws-kms-key-id" not in server.requests[0].headers
