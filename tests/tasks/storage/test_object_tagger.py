"""If S3 refuses tags with an object, they are set afterwards, before a manifest names the object."""

import hashlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from obstore.store import MemoryStore

from tasks.errors import Fault, StorageError
from tasks.model.outcome import Outcome
from tasks.storage.bucket import LARGE, Bucket, ObjectAttributes, S3Bucket, put
from tasks.storage.manifest import read_manifest
from tasks.storage.open_bucket import open_bucket
from tasks.storage.revision import commit
from tests.conftest import S3
from tests.riskos import ReceivedRequest, Reply, Then, http, s3_error, serve_replies, serve_requests
from tests.tasks.storage.test_manifest import EVALUATION, manifest
from worker.clients.archive import open_archive, open_tag_client
from worker.config.settings import Settings

LABELS = ObjectAttributes("image/jpeg", {"eval-id": "1"}, {"environment": "sandbox", "team": "kyc+co"})
DATA = b"abc"


async def put_data(bucket: Bucket, data: bytes = DATA) -> bool:
    return await put(bucket, "a/b", data, hashlib.sha256(data).hexdigest(), LABELS)


def bucket_of(settings: Settings) -> Bucket:
    return open_bucket(open_archive(settings, retries=0), tag_client=open_tag_client(settings))


@pytest.mark.parametrize("size", [3, LARGE + 1])
async def test_tags_are_set_after_each_write(s3: S3, size: int) -> None:
    settings = Settings(archive_url=f"s3://{s3.bucket}/kept", s3_endpoint=s3.endpoint, s3_tags="after_put")
    await put_data(bucket_of(settings), bytes(size))
    tags = s3.client.get_object_tagging(Bucket=s3.bucket, Key="kept/a/b")["TagSet"]
    assert {each["Key"]: each["Value"] for each in tags} == LABELS.tags


async def test_tags_of_a_manifest_and_its_revisions_are_set(s3: S3) -> None:
    settings = Settings(archive_url=f"s3://{s3.bucket}", s3_endpoint=s3.endpoint, s3_tags="after_put")
    bucket = bucket_of(settings)
    await commit(bucket, EVALUATION, manifest("front"), None)
    await commit(bucket, EVALUATION, manifest("back"), await read_manifest(bucket, EVALUATION))
    for key in (EVALUATION.manifest_key, EVALUATION.revision_key(1)):
        tags = s3.client.get_object_tagging(Bucket=s3.bucket, Key=key)["TagSet"]
        assert {"Key": "document-kind", "Value": "manifest"} in tags


def refuse_headers(*refused: str) -> Any:
    """Return an answer like that of an S3 that refuses objects with one of these headers and stores others."""

    def answer(request: ReceivedRequest) -> Reply:
        if request.path.endswith("?tagging"):
            return Reply(http(200))
        if any(name.startswith(refused) for name in request.headers):
            return Reply(s3_error(501, "NotImplemented"))
        return Reply(http(200, headers={"ETag": '"1"'}))

    return answer


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(
    ("refused", "changes"),
    [
        (("x-amz-tagging",), {"s3_tags": "after_put"}),
        (("x-amz-checksum-", "x-amz-sdk-checksum-"), {"s3_checksum": "off"}),
        (("x-amz-tagging", "x-amz-checksum-", "x-amz-sdk-checksum-"), {"s3_tags": "after_put", "s3_checksum": "off"}),
    ],
)
async def test_objects_are_written_without_a_header_that_the_store_refuses(
    refused: tuple[str, ...], changes: Mapping[str, Any]
) -> None:
    async with serve_requests(refuse_headers(*refused)) as server:
        settings = Settings(archive_url="s3://archive", s3_endpoint=server.url)
        with pytest.raises(StorageError):
            await bucket_of(settings).create("a", DATA, LABELS)
        server.requests.clear()
        assert await put_data(bucket_of(settings.model_copy(update=dict(changes))))
    requests = [(request.method, request.path) for request in server.requests]
    tagging = [("PUT", "/archive/a/b?tagging")] if "s3_tags" in changes else []
    assert requests == [("PUT", "/archive/a/b"), *tagging]
    assert all(b"<Value>kyc+co</Value>" in request.body for request in server.requests[1:])


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(
    ("reply", "message", "fault"),
    [
        (s3_error(403, "AccessDenied"), "AccessDenied", Fault.SERVICE),
        (s3_error(403, "ExpiredToken"), "ExpiredToken", Fault.MACHINE),
        (s3_error(503, "SlowDown"), "SlowDown", Fault.UNKNOWN),
        (Reply(b"", Then.RESET), "Error", Fault.UNKNOWN),
    ],
)
async def test_a_write_raises_storage_error_with_the_fault_when_its_tags_cannot_be_set(
    reply: Reply | bytes, message: str, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    async with serve_replies(reply) as server:
        settings = Settings(archive_url="s3://archive", s3_endpoint=server.url, s3_tags="after_put")
        with pytest.raises(StorageError, match=message) as caught:
            await bucket_of(settings).put_tags("a", LABELS)
    assert caught.value.fault is fault


@pytest.mark.usefixtures("s3")
async def test_a_write_raises_a_machine_fault_when_the_tagger_cannot_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        settings = Settings(archive_url="s3://archive", s3_endpoint=endpoint, s3_tags="after_put")
        with pytest.raises(StorageError, match="EndpointConnectionError") as caught:
            await bucket_of(settings).put_tags("a", LABELS)
    assert caught.value.fault is Fault.MACHINE


@dataclass
class StoppedTagger:
    """Sets no tags while it is stopped, like a worker that dies between an object and its tags."""

    stopped: bool = True
    tags: dict[str, Mapping[str, str]] = field(default_factory=dict)

    async def put(self, key: str, tags: Mapping[str, str]) -> None:
        if self.stopped:
            raise StorageError("tag", "stopped")
        self.tags[key] = tags


async def test_the_next_attempt_sets_the_missing_tags_of_an_object() -> None:
    tagger = StoppedTagger()
    bucket = S3Bucket(MemoryStore(), tagger=tagger)  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="stopped"):
        await put_data(bucket)
    tagger.stopped = False
    assert not await put_data(bucket)
    assert tagger.tags == {"a/b": LABELS.tags}


async def test_the_next_attempt_sets_the_missing_tags_of_a_manifest() -> None:
    tagger = StoppedTagger()
    bucket = S3Bucket(MemoryStore(), tagger=tagger)  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="stopped"):
        await commit(bucket, EVALUATION, manifest("front"), None)
    tagger.stopped = False
    before = await read_manifest(bucket, EVALUATION)
    assert before
    assert await commit(bucket, EVALUATION, before.manifest, before) is Outcome.UNCHANGED
    assert tagger.tags[EVALUATION.manifest_key]["document-kind"] == "manifest"


def test_open_tag_client_returns_none_without_the_setting_or_for_a_folder() -> None:
    assert open_tag_client(Settings(archive_url="s3://archive")) is None
    assert open_tag_client(Settings(archive_url="file:///archive", s3_tags="after_put")) is None
