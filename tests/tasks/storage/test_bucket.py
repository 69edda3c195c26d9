import asyncio
import base64
import hashlib
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore import exceptions as foreign
from obstore.store import MemoryStore, S3Store

from tasks.errors import Fault, IntegrityError, ManifestChanged, StorageError
from tasks.memory.spool import Spool
from tasks.storage.bucket import LARGE, AlreadyExists, Bucket, ObjectAttributes, S3Bucket, WriteUnconfirmed, _translated
from tasks.storage.local_bucket import LocalBucket
from tests.conftest import S3
from tests.riskos import Reply, ScriptedS3, Then, Write, http, s3_error, serve_replies, serve_requests
from tests.tls import server_context, tls_server
from worker.clients.archive import open_archive
from worker.config.settings import Settings

KEY = "sandbox/0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10/selfie/ab.jpg"
LABELS = ObjectAttributes("image/jpeg", {"eval-id": "0b54a4d4"}, {"environment": "sandbox"})
CONTENT = b"a selfie"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def open_s3_bucket(s3: S3, *, bucket: str | None = None, storage_class: str | None = None) -> S3Bucket:
    """Open an archive under a prefix of a bucket, as a worker does."""
    store = open_archive(Settings(archive_url=f"s3://{bucket or s3.bucket}/the/archive", s3_endpoint=s3.endpoint))
    assert isinstance(store, S3Store)
    return S3Bucket(store, storage_class)


@pytest.fixture(params=["memory", "moto", "folder"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    match request.param:
        case "memory":
            return S3Bucket(MemoryStore())
        case "folder":
            return LocalBucket(tmp_path / "archive")
        case _:
            return open_s3_bucket(request.getfixturevalue("s3"))


async def version_of(bucket: Bucket, key: str = KEY) -> str:
    found = await bucket.read(key)
    assert found
    return found.etag


# The same tests for all buckets


async def test_read_raises_when_the_object_is_too_large(bucket: Bucket) -> None:
    await bucket.create(KEY, CONTENT, LABELS)
    found = await bucket.read(KEY, len(CONTENT))
    assert found
    assert found.data == CONTENT
    with pytest.raises(IntegrityError):
        await bucket.read(KEY, len(CONTENT) - 1)
    assert await bucket.read("not/there", 0) is None


async def test_stream_yields_a_large_object_in_chunks(bucket: Bucket) -> None:
    data = bytes(range(256)) * 60_000
    await bucket.create(KEY, data, LABELS)
    chunks = await bucket.stream(KEY)
    assert chunks is not None
    assert b"".join([chunk async for chunk in chunks]) == data
    assert await bucket.stream(f"{KEY}-not") is None


async def test_read_returns_the_bytes_that_were_created(bucket: Bucket) -> None:
    await bucket.create(KEY, CONTENT, LABELS)
    found = await bucket.read(KEY)
    assert found
    assert found.data == CONTENT
    assert await bucket.digest(KEY) == sha256(CONTENT)


async def test_methods_return_none_when_the_object_does_not_exist(bucket: Bucket) -> None:
    await bucket.create(KEY, CONTENT, LABELS)
    for key in (KEY + "x", "elsewhere/ab.jpg", KEY.rpartition("/")[0] + "/cd.jpg"):
        assert await bucket.read(key) is None
        assert await bucket.digest(key) is None


@pytest.mark.parametrize("data", [b"another", CONTENT, b""])
async def test_create_raises_when_the_object_exists(bucket: Bucket, data: bytes) -> None:
    await bucket.create(KEY, CONTENT, LABELS)
    with pytest.raises(AlreadyExists):
        await bucket.create(KEY, data, LABELS)
    assert await bucket.digest(KEY) == sha256(CONTENT)


async def test_an_object_may_be_empty(bucket: Bucket) -> None:
    await bucket.create(KEY, b"", LABELS)
    found = await bucket.read(KEY)
    assert found
    assert found.data == b""
    assert await bucket.digest(KEY) == sha256(b"")


async def test_create_writes_a_memory_map_that_is_larger_than_a_chunk(bucket: Bucket) -> None:
    data, spool = bytes(range(256)) * (3 << 12), Spool(None)
    spool.put([data])
    await bucket.create(KEY, spool.mapped(), LABELS)
    assert await bucket.digest(KEY) == sha256(data)


async def test_replace_succeeds_once_for_the_version_that_was_read(bucket: Bucket) -> None:
    await bucket.create(KEY, CONTENT, LABELS)
    version = await version_of(bucket)
    await bucket.replace(KEY, b"second", LABELS, version)
    with pytest.raises(ManifestChanged):
        await bucket.replace(KEY, b"third", LABELS, version)
    assert await bucket.digest(KEY) == sha256(b"second")
    await bucket.replace(KEY, b"third", LABELS, await version_of(bucket))
    assert await bucket.digest(KEY) == sha256(b"third")


async def test_replace_without_a_version_raises_when_the_object_exists(bucket: Bucket) -> None:
    await bucket.replace(KEY, CONTENT, LABELS, None)
    with pytest.raises(ManifestChanged):
        await bucket.replace(KEY, b"another", LABELS, None)
    assert await bucket.digest(KEY) == sha256(CONTENT)


@pytest.mark.parametrize("version", ["", '"0123456789abcdef0123456789abcdef"'])
async def test_replace_raises_with_a_version_that_does_not_exist(bucket: Bucket, version: str) -> None:
    if version:
        with pytest.raises(ManifestChanged):
            await bucket.replace(KEY, CONTENT, LABELS, version)
        assert await bucket.read(KEY) is None
    await bucket.create(KEY, CONTENT, LABELS)
    with pytest.raises(ManifestChanged):
        await bucket.replace(KEY, b"another", LABELS, version or "none")
    assert await bucket.digest(KEY) == sha256(CONTENT)


async def test_replace_raises_with_the_version_of_another_object(bucket: Bucket) -> None:
    await bucket.create(KEY, CONTENT, LABELS)
    await bucket.create(KEY + "2", CONTENT + b"2", LABELS)
    with pytest.raises(ManifestChanged):
        await bucket.replace(KEY, b"another", LABELS, await version_of(bucket, KEY + "2"))


@pytest.mark.parametrize("bucket", ["memory", "folder"], indirect=True)  # moto's own writes are not atomic
async def test_one_of_many_concurrent_writes_succeeds(bucket: Bucket) -> None:
    contents = [f"writer {number}".encode() for number in range(12)]

    async def winners(*writes: object) -> list[int]:
        ended = await asyncio.gather(*writes, return_exceptions=True)
        assert all(isinstance(one, AlreadyExists | ManifestChanged) for one in ended if one is not None)
        return [number for number, one in enumerate(ended) if one is None]

    (created,) = await winners(*[bucket.create(KEY, content, LABELS) for content in contents])
    assert await bucket.digest(KEY) == sha256(contents[created])
    version = await version_of(bucket)
    (replaced,) = await winners(*[bucket.replace(KEY, content + b"!", LABELS, version) for content in contents])
    assert await bucket.digest(KEY) == sha256(contents[replaced] + b"!")


@given(data=st.binary(), segments=st.lists(st.from_regex(r"[a-z0-9_-]{1,12}", fullmatch=True), min_size=1, max_size=4))
@settings(max_examples=25)
def test_any_bytes_are_read_back_unchanged(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, segments: list[str]
) -> None:
    async def write_and_read(bucket: Bucket, key: str) -> None:
        await bucket.create(key, data, LABELS)
        found = await bucket.read(key)
        assert found
        assert found.data == data
        assert await bucket.digest(key) == sha256(data)

    key = "/".join(segments)
    asyncio.run(write_and_read(S3Bucket(MemoryStore()), key))
    asyncio.run(write_and_read(LocalBucket(tmp_path_factory.mktemp("archive")), key))


async def pieces_of(bucket: Bucket, key: str = KEY) -> list[bytes] | None:
    pieces = await bucket.stream(key)
    return None if pieces is None else [piece async for piece in pieces]


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (5 << 20) + 3])
async def test_stream_yields_chunks_of_bytes_that_make_up_the_object(bucket: Bucket, size: int) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    await bucket.create(KEY, data, LABELS)
    pieces = await pieces_of(bucket)
    assert pieces is not None
    assert b"".join(pieces) == data
    assert all(isinstance(piece, bytes) for piece in pieces)


async def test_stream_returns_none_when_the_object_does_not_exist(bucket: Bucket) -> None:
    assert await pieces_of(bucket) is None


async def test_a_stream_can_be_closed_early(bucket: Bucket) -> None:
    await bucket.create(KEY, bytes(3 << 20), LABELS)
    pieces = await bucket.stream(KEY)
    assert pieces
    assert await anext(pieces)
    await pieces.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(pieces)


# Objects in S3


async def test_a_document_in_s3_has_its_attributes_and_a_checked_hash(s3: S3) -> None:
    labels = ObjectAttributes(
        "image/jpeg",
        {"eval-id": "0b54a4d4", "sha256": sha256(CONTENT), "document-kind": "selfie", "archived-at": "2026-01-31Z"},
        {"environment": "sandbox", "source": "user_uploaded", "cost centre": "a+b=c/d:e.f-g@h_1"},
    )
    await open_s3_bucket(s3).create(KEY, CONTENT, labels)
    location = {"Bucket": s3.bucket, "Key": f"the/archive/{KEY}"}
    head = s3.client.head_object(**location, ChecksumMode="ENABLED")
    assert head["ContentType"] == "image/jpeg"
    assert head["Metadata"] == labels.metadata
    assert base64.b64decode(head["ChecksumSHA256"]).hex() == sha256(CONTENT)
    assert "StorageClass" not in head
    tags = s3.client.get_object_tagging(**location)["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == labels.tags


@pytest.mark.usefixtures("s3")  # for its credentials
async def test_create_sends_the_hash_to_s3() -> None:
    async with serve_requests(ScriptedS3()) as server:
        store = open_archive(Settings(archive_url="s3://archive", s3_endpoint=server.url))
        bucket = S3Bucket(store)
        await bucket.create("document", CONTENT, LABELS)
        await bucket.replace("manifest", CONTENT, LABELS, None)
    checksums = [request.headers["x-amz-checksum-sha256"] for request in server.requests]
    assert [base64.b64decode(each).hex() for each in checksums] == [sha256(CONTENT)] * 2
    assert [request.headers["if-none-match"] for request in server.requests] == ["*", "*"]


async def test_documents_have_the_storage_class_of_the_settings_and_manifests_the_default(s3: S3) -> None:
    bucket = open_s3_bucket(s3, storage_class="STANDARD_IA")
    await bucket.create("document", CONTENT, LABELS)
    await bucket.replace("manifest", CONTENT, LABELS, None)
    listed = s3.client.list_objects_v2(Bucket=s3.bucket)["Contents"]
    assert {each["Key"]: each["StorageClass"] for each in listed} == {
        "the/archive/document": "STANDARD_IA",
        "the/archive/manifest": "STANDARD",
    }


async def test_a_manifest_in_s3_keeps_its_attributes_when_it_is_replaced(s3: S3) -> None:
    bucket = open_s3_bucket(s3)
    labels = ObjectAttributes("application/json", {"eval-id": "0b54a4d4"})
    await bucket.replace("manifest", b"{}", labels, None)
    await bucket.replace("manifest", b"[]", labels, await version_of(bucket, "manifest"))
    head = s3.client.head_object(Bucket=s3.bucket, Key="the/archive/manifest", ChecksumMode="ENABLED")
    assert (head["ContentType"], head["Metadata"]) == ("application/json", labels.metadata)
    assert base64.b64decode(head["ChecksumSHA256"]).hex() == sha256(b"[]")


async def test_a_document_of_usual_size_is_written_in_one_request(s3: S3) -> None:
    data = bytes(6 << 20)
    await open_s3_bucket(s3).create(KEY, data, LABELS)
    head = s3.client.head_object(Bucket=s3.bucket, Key=f"the/archive/{KEY}", ChecksumMode="ENABLED")
    assert (head["ContentLength"], "-" in head["ETag"]) == (len(data), False)


async def test_a_large_document_is_written_in_parts_and_has_to_be_confirmed(s3: S3, tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put([bytes([number]) * (1 << 20) for number in range(18)])
    data = spool.mapped()
    with pytest.raises(WriteUnconfirmed):
        await open_s3_bucket(s3).create(KEY, data, LABELS)
    head = s3.client.head_object(Bucket=s3.bucket, Key=f"the/archive/{KEY}")
    tags = s3.client.get_object_tagging(Bucket=s3.bucket, Key=f"the/archive/{KEY}")["TagSet"]
    assert (head["ContentLength"], "-" in head["ETag"], head["ContentType"]) == (18 << 20, True, LABELS.media_type)
    assert head["Metadata"] == LABELS.metadata
    assert {tag["Key"]: tag["Value"] for tag in tags} == LABELS.tags
    assert await open_s3_bucket(s3).digest(KEY) == sha256(data)
    assert s3.client.list_multipart_uploads(Bucket=s3.bucket).get("Uploads", []) == []


async def test_a_large_document_is_not_written_again_when_it_exists(s3: S3) -> None:
    await open_s3_bucket(s3).create(KEY, CONTENT, LABELS)
    with pytest.raises(AlreadyExists):
        await open_s3_bucket(s3).create(KEY, bytes(LARGE + 1), LABELS)
    assert await open_s3_bucket(s3).digest(KEY) == sha256(CONTENT)


async def test_methods_raise_when_the_bucket_does_not_exist(s3: S3) -> None:
    bucket = open_s3_bucket(s3, bucket="there-is-no-such-bucket")
    with pytest.raises(StorageError, match="bucket does not exist"):
        await bucket.create(KEY, CONTENT, LABELS)
    with pytest.raises(StorageError, match="bucket does not exist"):
        await bucket.replace(KEY, CONTENT, LABELS, None)
    with pytest.raises(StorageError, match="bucket does not exist"):
        await bucket.read(KEY)
    with pytest.raises(StorageError, match="bucket does not exist"):
        await bucket.digest(KEY)
    with pytest.raises(StorageError, match="bucket does not exist"):
        await bucket.stream(KEY)


# Translation of responses


def s3_at(url: str, patience: float = 30.0) -> S3Bucket:
    """Return a bucket at a scripted server, without pauses between retries."""
    no_pause = timedelta(milliseconds=1)
    store = S3Store(
        "archive",
        endpoint=url,
        virtual_hosted_style_request=False,
        region="us-east-1",
        access_key_id="AKIAOFTHETESTS",
        secret_access_key="secret-of-the-tests",
        client_options={"allow_http": True, "timeout": timedelta(seconds=patience)},
        retry_config={
            "max_retries": 2,
            "retry_timeout": timedelta(seconds=30),
            "backoff": {"init_backoff": no_pause, "max_backoff": no_pause, "base": 2},
        },
    )
    return S3Bucket(store)


async def errors_of(reply: Reply | bytes) -> dict[str, Exception]:
    """Return the error of each method at a server that gives every request the same response."""
    found: dict[str, Exception] = {}
    async with serve_replies(reply) as server:
        hangs = isinstance(reply, Reply) and reply.then is Then.HANG
        bucket = s3_at(server.url, patience=0.1 if hangs else 30.0)
        calls = {
            "create": partial(bucket.create, KEY, CONTENT, LABELS),
            "replace": partial(bucket.replace, KEY, CONTENT, LABELS, None),
            "read": partial(bucket.read, KEY),
            "digest": partial(bucket.digest, KEY),
            "stream": partial(bucket.stream, KEY),
        }
        for name, call in calls.items():
            with pytest.raises((StorageError, AlreadyExists, ManifestChanged)) as caught:
                await call()
            found[name] = caught.value
    return found


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (403, "AccessDenied", "access is denied"),
        (403, "ExpiredToken", "credentials have expired"),
        (403, "RequestTimeTooSkewed", "the clock differs"),
        (401, "Unauthorized", "access is denied"),
    ],
)
async def test_a_denied_write_raises_storage_error_and_needs_no_confirmation(
    status: int, code: str, message: str
) -> None:
    for error in (await errors_of(s3_error(status, code))).values():
        assert isinstance(error, StorageError)
        assert not isinstance(error, WriteUnconfirmed)
        assert message in str(error)


FAULTS = [
    (403, "AccessDenied", Fault.SERVICE),
    (404, "NoSuchBucket", Fault.SERVICE),
    (403, "QuotaExceeded", Fault.SERVICE),
    (400, "XMinioAdminBucketQuotaExceeded", Fault.SERVICE),
    (501, "NotImplemented", Fault.SERVICE),
    (507, "XMinioStorageFull", Fault.SERVICE),
    (400, "KMS.DisabledException", Fault.SERVICE),
    (403, "ExpiredToken", Fault.MACHINE),
    (400, "ExpiredToken", Fault.MACHINE),
    (403, "InvalidAccessKeyId", Fault.MACHINE),
    (403, "SignatureDoesNotMatch", Fault.MACHINE),
    (403, "RequestTimeTooSkewed", Fault.MACHINE),
    (401, "Unauthorized", Fault.MACHINE),
    (301, "PermanentRedirect", Fault.MACHINE),
    (400, "AuthorizationHeaderMalformed", Fault.MACHINE),
    (500, "InternalError", Fault.UNKNOWN),
    (503, "SlowDown", Fault.UNKNOWN),
    (400, "KMS.ThrottlingException", Fault.UNKNOWN),
    (400, "InvalidRequest", Fault.UNKNOWN),
]


@pytest.mark.parametrize(("status", "code", "fault"), FAULTS)
async def test_an_error_has_the_fault_and_the_code_of_the_response(status: int, code: str, fault: Fault) -> None:
    for error in (await errors_of(s3_error(status, code))).values():
        assert isinstance(error, StorageError)
        assert error.fault is fault
        # obstore has its own text for a redirect.
        assert code in {"PermanentRedirect", "NoSuchBucket"} or code in str(error)


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("http://127.0.0.1:1", "the connection is refused"),
        ("http://no-such-host.invalid", "its host name is unknown"),
    ],
)
async def test_a_failed_connection_is_a_machine_fault_and_names_the_reason(endpoint: str, reason: str) -> None:
    with pytest.raises(StorageError) as caught:
        await s3_at(endpoint).read(KEY)
    assert caught.value.fault is Fault.MACHINE
    assert reason in caught.value.what


async def test_an_untrusted_certificate_is_a_machine_fault(tmp_path: Path) -> None:
    context, _ = server_context(tmp_path, "127.0.0.1")
    with tls_server(context) as server, pytest.raises(StorageError) as caught:
        await s3_at(f"https://127.0.0.1:{server.port}").create(KEY, CONTENT, LABELS)
    assert caught.value.fault is Fault.MACHINE
    assert "its certificate is not trusted" in caught.value.what


@pytest.mark.parametrize(
    "reply",
    [
        s3_error(500, "InternalError"),
        s3_error(503, "SlowDown"),
        s3_error(400, "RequestTimeout"),
        s3_error(400, "KMS.ThrottlingException"),
        s3_error(301, "PermanentRedirect"),
        Reply(b"", Then.RESET),
        Reply(b"", Then.CLOSE),
        Reply(b"", Then.HANG),
    ],
)
async def test_a_write_is_unconfirmed_when_its_response_is_unclear(reply: Reply | bytes) -> None:
    errors = await errors_of(reply)
    assert isinstance(errors["create"], WriteUnconfirmed)
    assert isinstance(errors["replace"], WriteUnconfirmed)
    assert isinstance(errors["read"], StorageError)
    assert isinstance(errors["digest"], StorageError)
    assert isinstance(errors["stream"], StorageError)


async def test_read_raises_when_the_object_arrives_only_in_part() -> None:
    facts = {"ETag": '"x"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    async with serve_replies(Reply(http(200, CONTENT, headers=facts)[:-1], Then.CLOSE)) as server:
        bucket = s3_at(server.url)
        with pytest.raises(StorageError):
            await bucket.read(KEY)
        with pytest.raises(StorageError):
            await bucket.digest(KEY)
        with pytest.raises(StorageError):
            await pieces_of(bucket)


async def test_read_raises_when_the_response_has_no_etag() -> None:
    page = http(200, b"<html>", headers={"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"})
    async with serve_replies(page) as server:
        bucket = s3_at(server.url)
        for reading in (bucket.read(KEY), bucket.digest(KEY), pieces_of(bucket)):
            with pytest.raises(StorageError, match="proxy"):
                await reading


async def test_an_object_that_changed_meanwhile_is_not_replaced() -> None:
    versioned = {"ETag": '"x"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT", "x-amz-version-id": "1"}
    async with serve_replies(http(200, headers=versioned), s3_error(412, "PreconditionFailed")) as server:
        with pytest.raises(ManifestChanged):
            await s3_at(server.url).replace_version(KEY, CONTENT, LABELS)
    head, write = server.requests
    assert (head.method, write.method, write.headers["if-match"]) == ("HEAD", "PUT", '"x"')


async def test_create_raises_already_exists_for_a_409_even_if_nothing_was_stored() -> None:
    scripted_s3 = ScriptedS3(Write(stores=False, reply=Reply(s3_error(409, "ConditionalRequestConflict"))))
    async with serve_requests(scripted_s3) as server:
        with pytest.raises(AlreadyExists):
            await s3_at(server.url).create(KEY, CONTENT, LABELS)
    assert scripted_s3.objects == {}


@pytest.mark.parametrize("code", ["AccessDenied", "NoSuchBucket", "InternalError"])
async def test_errors_contain_no_key_address_or_credential(code: str) -> None:
    status = {"AccessDenied": 403, "NoSuchBucket": 404, "InternalError": 500}[code]
    for error in (await errors_of(s3_error(status, code))).values():
        text = f"{error}{error!r}"
        for secret in (KEY, "0b54a4d4", "127.0.0.1", "AKIA", "secret"):
            assert secret not in text
        assert error.__suppress_context__


async def test_methods_raise_storage_error_when_credentials_are_unavailable() -> None:
    def fail_to_provide() -> None:
        raise RuntimeError("the identity provider is down")

    store = S3Store("archive", region="us-east-1", credential_provider=fail_to_provide)
    with pytest.raises(StorageError) as caught:
        await S3Bucket(store).create(KEY, CONTENT, LABELS)
    assert "identity" not in str(caught.value)
    assert caught.value.fault is Fault.MACHINE


FOREIGN = [kind for kind in vars(foreign).values() if isinstance(kind, type) and issubclass(kind, Exception)]
ANSWERS = {foreign.AlreadyExistsError, foreign.PreconditionError}
CLEAR = {foreign.NotFoundError, foreign.PermissionDeniedError, foreign.UnauthenticatedError}


def test_all_exceptions_of_obstore_are_known() -> None:
    assert {kind.__name__ for kind in FOREIGN} == {
        "AlreadyExistsError",
        "BaseError",
        "GenericError",
        "InvalidPathError",
        "JoinError",
        "NotFoundError",
        "NotModifiedError",
        "NotSupportedError",
        "PermissionDeniedError",
        "PreconditionError",
        "UnauthenticatedError",
        "UnknownConfigurationKeyError",
    }


@pytest.mark.parametrize("kind", [*FOREIGN, OSError, TimeoutError, PermissionError, FileNotFoundError, ValueError])
@pytest.mark.parametrize("doing", ["create", "replace", "read"])
def test_every_exception_of_obstore_is_translated(kind: type[Exception], doing: str) -> None:
    with pytest.raises((AlreadyExists, StorageError)) as caught, _translated(doing):
        raise kind(f"http://secret/{KEY}")
    assert isinstance(caught.value, AlreadyExists) == (kind in ANSWERS)
    clear = kind in ANSWERS | CLEAR | {PermissionError, FileNotFoundError}
    assert isinstance(caught.value, WriteUnconfirmed) != clear
    assert "secret" not in f"{caught.value}{caught.value!r}"


async def test_list_objects_yields_objects_after_a_key_in_order(bucket: Bucket) -> None:
    keys = [f"quarantine/sandbox/{folder}/{name}.zip" for folder in ("a", "b", "c") for name in ("1", "2")]
    for key in (*reversed(keys), "quarantine/sandbox-2/a/1.zip", "sandbox/a/1.zip"):
        await bucket.create(key, CONTENT, LABELS)
    began = time.time()
    found = [each async for some in bucket.list_objects("quarantine/sandbox/") for each in some]
    assert [each.key for each in found] == keys
    assert {each.size for each in found} == {len(CONTENT)}
    assert all(abs(each.modified - began) < 3600 for each in found)
    for number, after in enumerate(keys, 1):
        listed = [each.key async for some in bucket.list_objects("quarantine/sandbox/", after) for each in some]
        assert listed == keys[number:]
    assert [some async for some in bucket.list_objects("quarantine/production/")] == []
