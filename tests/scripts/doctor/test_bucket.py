"""The check of a bucket writes a probe as workers do, and reads the bucket's settings."""

import asyncio
import urllib.parse
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.archive_access.s3_client import open_s3_archive
from scripts.doctor.bucket import check_region, examine
from scripts.doctor.finding import Finding, State, fine
from tests.conftest import S3
from tests.riskos import ReceivedRequest, Reply, Then, http, s3_error, serve_replies, serve_requests
from worker.config.settings import Settings

BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
KEY = "arn:aws:kms:us-east-1:123456789012:key/0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"


def _examine(s3: S3, bucket: str | None = None, **more: Any) -> dict[str, Finding]:
    settings = Settings(archive_url=f"s3://{bucket or s3.bucket}/kept", s3_endpoint=s3.endpoint, **more)
    archive = open_s3_archive(settings)
    assert archive
    return {finding.subject: finding for finding in examine(archive, settings)}


@pytest.mark.parametrize("versioned", [False, True])
def test_the_probe_removes_its_objects(s3: S3, versioned: bool) -> None:  # noqa: FBT001
    if versioned:
        s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    found = _examine(s3)
    for what in ("bucket", "write", "read", "create only", "compare-and-swap", "tags", "probe removed"):
        assert found[what].state is State.FINE, found[what]
    left = s3.client.list_object_versions(Bucket=s3.bucket)
    assert not left.get("Versions")
    assert not left.get("DeleteMarkers")


def test_a_missing_bucket_setting_is_reported_with_a_fix(s3: S3) -> None:
    s3.client.delete_bucket_encryption(Bucket=s3.bucket)
    s3.client.delete_public_access_block(Bucket=s3.bucket)
    found = _examine(s3)
    states = {what: found[what].state for what in ("versioning", "encryption", "public access", "unfinished uploads")}
    assert states == dict.fromkeys(states, State.WARNING) | {"public access": State.WRONG}
    assert all(found[what].fix for what in states)
    assert found["Object Lock"].state is State.FINE


def _version(s3: S3) -> None:
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})


def _encrypt(s3: S3) -> None:
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
    s3.client.put_bucket_encryption(Bucket=s3.bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})


def _block(s3: S3) -> None:
    s3.client.put_public_access_block(Bucket=s3.bucket, PublicAccessBlockConfiguration=dict.fromkeys(BLOCKS, True))


def _lock(s3: S3) -> None:
    _version(s3)
    retention = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 30}}
    configuration = {"ObjectLockEnabled": "Enabled", "Rule": retention}
    s3.client.put_object_lock_configuration(Bucket=s3.bucket, ObjectLockConfiguration=configuration)


def _tidy(s3: S3, status: str = "Enabled") -> None:
    rule = {"ID": "a", "Status": status, "Filter": {"Prefix": ""}}
    rule |= {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}
    s3.client.put_bucket_lifecycle_configuration(Bucket=s3.bucket, LifecycleConfiguration={"Rules": [rule]})


@pytest.mark.parametrize(
    ("set_it", "what", "sentence"),
    [
        (_version, "versioning", "on"),
        (_encrypt, "encryption", "aws:kms"),
        (_block, "public access", "blocked"),
        (_lock, "Object Lock", "on; default retention GOVERNANCE, 30 days"),
        (_tidy, "unfinished uploads", "a lifecycle rule removes them"),
    ],
)
def test_a_bucket_setting_is_fine_when_set(s3: S3, set_it: Callable[[S3], None], what: str, sentence: str) -> None:
    set_it(s3)
    assert _examine(s3)[what] == fine(what, sentence)


def test_a_partial_block_and_a_disabled_rule_are_reported_as_missing(s3: S3) -> None:
    _block(s3)
    some = dict.fromkeys(BLOCKS, True) | {"BlockPublicPolicy": False}
    s3.client.put_public_access_block(Bucket=s3.bucket, PublicAccessBlockConfiguration=some)
    _tidy(s3, "Disabled")
    found = _examine(s3)
    assert (found["public access"].state, found["unfinished uploads"].state) == (State.WRONG, State.WARNING)


def test_object_lock_is_wrong_when_the_settings_need_it_and_the_bucket_has_none(s3: S3) -> None:
    found = _examine(s3, lock_mode="COMPLIANCE", lock_days=10)["Object Lock"]
    assert (found.state, "DOCV_LOCK_MODE" in found.fix) == (State.WRONG, True)
    _lock(s3)
    assert _examine(s3, lock_mode="COMPLIANCE", lock_days=10)["Object Lock"].state is State.FINE


async def test_the_probe_is_encrypted_like_documents(s3: S3) -> None:
    assert (await asyncio.to_thread(lambda: _examine(s3, kms_key_id=KEY)))["write"].state is State.FINE
    async with serve_replies(http(200), s3_error(403, "AccessDenied")) as server:
        server_s3 = S3(server.url, s3.bucket, s3.client)
        found = await asyncio.to_thread(lambda: _examine(server_s3, kms_key_id=KEY))
    assert server.requests[1].headers["x-amz-server-side-encryption-aws-kms-key-id"] == KEY
    assert "kms:GenerateDataKey" in found["write"].fix


async def test_the_probe_sends_the_header_that_a_policy_requires(s3: S3) -> None:
    async with serve_replies(http(200), s3_error(403, "AccessDenied")) as server:
        found = await asyncio.to_thread(_examine, S3(server.url, s3.bucket, s3.client), sse="AES256")
    assert server.requests[1].headers["x-amz-server-side-encryption"] == "AES256"
    assert "DOCV_SSE=AES256" in found["write"].fix


@pytest.mark.parametrize(
    ("bucket_region", "client_region", "endpoint", "state"),
    [
        ("eu-central-1", "eu-central-1", "https://s3.eu-central-1.amazonaws.com", State.FINE),
        ("eu-central-1", "us-east-1", "https://s3.amazonaws.com", State.WRONG),
        ("eu-central-1", "us-east-1", "https://s3.example.com", State.WARNING),
        (None, "us-east-1", "https://s3.example.com", State.FINE),
    ],
)
def test_a_bucket_in_another_region_is_reported_with_the_setting_to_fix(
    bucket_region: str | None, client_region: str, endpoint: str, state: State
) -> None:
    found = check_region("ours", bucket_region, SimpleNamespace(region_name=client_region, endpoint_url=endpoint))
    assert found.state is state
    assert ("AWS_DEFAULT_REGION=eu-central-1" in found.fix) is (state is not State.FINE)


def test_the_region_of_a_real_bucket_is_reported(s3: S3) -> None:
    elsewhere = f"elsewhere-{s3.bucket}"
    s3.client.create_bucket(Bucket=elsewhere, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert "in eu-west-1, but requests are signed for us-east-1" in _examine(s3, elsewhere)["bucket"].message


def faulty_s3(
    refused: tuple[str, ...] = (), *, drops: tuple[str, ...] = (), conditional: bool = True, setting: bytes = http(200)
) -> Callable[[ReceivedRequest], Reply]:
    """Return a handler that answers like an S3 that stores objects, but has faults.

    Args:
        refused: prefixes of headers; a PUT with any of them is answered with 501.
        drops: prefixes of headers that are accepted but not stored; ``tags`` for tags that are set after the PUT.
        conditional: whether it obeys If-None-Match and If-Match.
        setting: answer to requests for settings of the bucket.
    """
    objects: dict[str, tuple[bytes, dict[str, str]]] = {}
    tags: dict[str, str] = {}

    def put(request: ReceivedRequest) -> bytes:
        if any(name.startswith(refused) for name in request.headers if refused):
            return s3_error(501, "NotImplemented")
        if conditional and ("if-match" in request.headers or request.path in objects):
            return s3_error(412, "PreconditionFailed")
        kept = {name: value for name, value in request.headers.items() if not name.startswith(drops or ("-",))}
        objects[request.path] = request.body, {name: value for name, value in kept.items() if name.startswith("x-amz-")}
        named = urllib.parse.parse_qsl(kept.get("x-amz-tagging", ""))
        tags[request.path] = "".join(f"<Tag><Key>{name}</Key><Value>{value}</Value></Tag>" for name, value in named)
        return http(200, headers={"ETag": '"1"'})

    def answer(request: ReceivedRequest) -> Reply:
        path, _, query = request.path.partition("?")
        if query.startswith("tagging"):
            if request.method == "PUT" and "tags" not in drops:
                tags[path] = request.body.decode().partition("<TagSet>")[2].partition("</TagSet>")[0]
            return Reply(http(200, f"<Tagging><TagSet>{tags.get(path, '')}</TagSet></Tagging>".encode()))
        if (query and request.method == "GET") or path.count("/") < 2:
            return Reply(setting if query else http(200))
        if request.method == "PUT":
            return Reply(put(request))
        if path not in objects:
            return Reply(http(404))
        data, headers = objects[path]
        return Reply(http(200, data if request.method == "GET" else b"", headers={"ETag": '"1"', **headers}))

    return answer


async def examine_server(s3: S3, answer: Callable[[ReceivedRequest], Reply], **more: Any) -> dict[str, Finding]:
    async with serve_requests(answer) as server:
        server_s3 = S3(server.url, s3.bucket, s3.client)
        found = await asyncio.to_thread(lambda: _examine(server_s3, **more))
    puts = [
        each for each in server.requests if each.method == "PUT" and "/probe/" in each.path and "?" not in each.path
    ]
    if key := more.get("kms_key_id"):
        assert {each.headers["x-amz-server-side-encryption-aws-kms-key-id"] for each in puts} == {key}
    removed = {each.path for each in server.requests if each.method == "DELETE"}
    assert {each.path for each in puts} >= removed
    return found


TAGS, CHECKSUM = ("x-amz-tagging",), ("x-amz-checksum-", "x-amz-sdk-checksum-")


@pytest.mark.parametrize(
    ("refused", "settings", "fix"),
    [
        ((), {}, ""),
        ((), {"s3_tags": "after_put"}, ""),
        (TAGS, {}, "set DOCV_S3_TAGS=after_put"),
        (CHECKSUM, {}, "set DOCV_S3_CHECKSUM=off"),
        (TAGS + CHECKSUM, {}, "set DOCV_S3_TAGS=after_put and DOCV_S3_CHECKSUM=off"),
        (TAGS + CHECKSUM, {"s3_tags": "after_put", "s3_checksum": "off", "kms_key_id": KEY}, ""),
    ],
)
async def test_the_probe_finds_the_settings_that_make_a_write_work(
    s3: S3, refused: tuple[str, ...], settings: Mapping[str, Any], fix: str
) -> None:
    found = await examine_server(s3, faulty_s3(refused), **settings)
    assert found["write"].fix == fix
    if not fix:
        assert {found[what].state for what in ("read", "create only", "compare-and-swap", "tags")} == {State.FINE}


@pytest.mark.parametrize(
    ("drops", "settings", "what", "fix"),
    [
        (TAGS, {}, "tags", "set DOCV_S3_TAGS=after_put"),
        ((*TAGS, "tags"), {}, "tags", "use an S3 with object tags"),
        (("tags",), {"s3_tags": "after_put"}, "tags", "use an S3 with object tags"),
        (("x-amz-meta-",), {}, "metadata", "use an S3 that keeps metadata"),
        (CHECKSUM, {}, "checksum", "`verify --checksums-only` reads each object instead"),
        (("x-amz-server-side-",), {"kms_key_id": KEY}, "KMS", "use an S3 with SSE-KMS"),
    ],
)
async def test_the_probe_reports_attributes_that_s3_drops(
    s3: S3, drops: tuple[str, ...], settings: Mapping[str, Any], what: str, fix: str
) -> None:
    found = await examine_server(s3, faulty_s3(drops=drops), **settings)
    assert fix in found[what].fix


async def test_the_check_shows_the_host_of_the_bucket_and_its_proxy(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    host = s3.endpoint.removeprefix("http://")
    found = await examine_server(s3, faulty_s3())
    assert found["S3 endpoint"].message.endswith(", signed for us-east-1")
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setenv("HTTP_PROXY", "http://user:geheim@127.0.0.1:1")
    (finding,) = (await asyncio.to_thread(lambda: _examine(s3))).values()
    assert f"(ProxyConnectionError) at {host} through the proxy 127.0.0.1:1" in finding.message
    assert "HTTPS_PROXY" in finding.fix


async def test_an_s3_without_conditional_writes_is_wrong(s3: S3) -> None:
    found = await examine_server(s3, faulty_s3(conditional=False))
    for what in ("create only", "compare-and-swap"):
        assert (found[what].state, "If-None-Match and If-Match" in found[what].fix) == (State.WRONG, True)


def test_a_region_is_reported_when_only_aws_region_names_it(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    found = check_region("ours", None, SimpleNamespace(region_name="us-east-1", endpoint_url="https://s3.example.com"))
    assert (found.state, found.fix[:34]) == (State.WARNING, "set AWS_DEFAULT_REGION=eu-central-1"[:34])


async def test_the_check_adds_a_finding_when_the_server_stops_answering(s3: S3) -> None:
    async with serve_replies(http(200), Reply(b"", Then.RESET)) as server:
        server_s3 = S3(server.url, s3.bucket, s3.client)
        found = await asyncio.to_thread(_examine, server_s3)
    assert found["bucket"].unreachable


@pytest.mark.parametrize(
    ("code", "state", "sentence"),
    [
        (s3_error(403, "AccessDenied"), State.WARNING, "may not read this setting"),
        (s3_error(501, "NotImplemented"), State.WARNING, "this server does not report this setting"),
        (s3_error(400, "Odd"), State.WARNING, "S3 answers Odd"),
    ],
)
async def test_an_unreadable_bucket_setting_is_reported_with_the_permission_it_needs(
    s3: S3, code: bytes, state: State, sentence: str
) -> None:
    found = await examine_server(s3, faulty_s3(setting=code))
    for what, permission in {
        "versioning": "s3:GetBucketVersioning",
        "encryption": "s3:GetEncryptionConfiguration",
        "public access": "s3:GetBucketPublicAccessBlock",
        "Object Lock": "s3:GetBucketObjectLockConfiguration",
        "unfinished uploads": "s3:GetLifecycleConfiguration",
    }.items():
        assert (found[what].state, sentence in found[what].message) == (state, True)
        assert (permission in found[what].fix) is ("may not" in sentence)


async def test_a_refused_bucket_is_explained_by_the_error_code_of_a_listing(s3: S3) -> None:
    async with serve_replies(http(403), s3_error(403, "SignatureDoesNotMatch")) as server:
        found = await asyncio.to_thread(_examine, S3(server.url, s3.bucket, s3.client))
    assert (found["bucket"].state, "AWS_SECRET_ACCESS_KEY" in found["bucket"].fix) == (State.WRONG, True)


def test_a_bucket_is_unreachable_when_it_does_not_exist(s3: S3) -> None:
    (finding,) = _examine(s3, "no-such-bucket").values()
    assert (finding.state, finding.unreachable) == (State.WRONG, True)
