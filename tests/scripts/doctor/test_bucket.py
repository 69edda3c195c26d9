"""A bucket is examined by doing what workers do, and by asking how it is set."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.archive_access.s3_client import open_s3_archive
from scripts.doctor.bucket import examine, region
from scripts.doctor.finding import Finding, State, fine
from tests.conftest import S3
from tests.riskos import Reply, Then, http, s3_error, saying
from worker.config.settings import Settings

BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
KEY = "arn:aws:kms:us-east-1:123456789012:key/0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"


def _examined(s3: S3, bucket: str | None = None, **more: Any) -> dict[str, Finding]:
    settings = Settings(archive_url=f"s3://{bucket or s3.bucket}/kept", s3_endpoint=s3.endpoint, **more)
    archive = open_s3_archive(settings)
    assert archive
    return {finding.subject: finding for finding in examine(archive, settings)}


@pytest.mark.parametrize("versioned", [False, True])
def test_the_probe_leaves_nothing_behind(s3: S3, versioned: bool) -> None:  # noqa: FBT001
    if versioned:
        s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    found = _examined(s3)
    for what in ("bucket", "write", "read", "create only", "tags", "probe removed"):
        assert found[what].state is State.FINE, found[what]
    left = s3.client.list_object_versions(Bucket=s3.bucket)
    assert not left.get("Versions")
    assert not left.get("DeleteMarkers")


def test_what_is_not_set_is_said_with_how_to_set_it(s3: S3) -> None:
    s3.client.delete_bucket_encryption(Bucket=s3.bucket)
    found = _examined(s3)
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
    ("set_it", "what", "said"),
    [
        (_version, "versioning", "it is on"),
        (_encrypt, "encryption", "aws:kms"),
        (_block, "public access", "it is blocked"),
        (_lock, "Object Lock", "on; default retention GOVERNANCE, 30 days"),
        (_tidy, "unfinished uploads", "a lifecycle rule removes them"),
    ],
)
def test_what_is_set_is_fine(s3: S3, set_it: Callable[[S3], None], what: str, said: str) -> None:
    set_it(s3)
    assert _examined(s3)[what] == fine(what, said)


def test_a_block_that_lets_some_through_and_a_rule_that_is_off_are_not_enough(s3: S3) -> None:
    _block(s3)
    some = dict.fromkeys(BLOCKS, True) | {"BlockPublicPolicy": False}
    s3.client.put_public_access_block(Bucket=s3.bucket, PublicAccessBlockConfiguration=some)
    _tidy(s3, "Disabled")
    found = _examined(s3)
    assert (found["public access"].state, found["unfinished uploads"].state) == (State.WRONG, State.WARNING)


def test_a_lock_that_the_settings_want_and_the_bucket_does_not_know_is_wrong(s3: S3) -> None:
    found = _examined(s3, lock_mode="COMPLIANCE", lock_days=10)["Object Lock"]
    assert (found.state, "DOCV_LOCK_MODE" in found.fix) == (State.WRONG, True)
    _lock(s3)
    assert _examined(s3, lock_mode="COMPLIANCE", lock_days=10)["Object Lock"].state is State.FINE


async def test_the_probe_is_encrypted_as_documents_are(s3: S3) -> None:
    assert _examined(s3, kms_key_id=KEY)["write"].state is State.FINE
    async with saying(http(200), s3_error(403, "AccessDenied")) as server:
        there = S3(server.url, s3.bucket, s3.client)
        found = await asyncio.to_thread(_examined, there, kms_key_id=KEY)
    assert server.heard[1].headers["x-amz-server-side-encryption-aws-kms-key-id"] == KEY
    assert "kms:GenerateDataKey" in found["write"].fix


@pytest.mark.parametrize(
    ("told", "used", "endpoint", "state"),
    [
        ("eu-central-1", "eu-central-1", "https://s3.eu-central-1.amazonaws.com", State.FINE),
        ("eu-central-1", "us-east-1", "https://s3.amazonaws.com", State.WRONG),
        ("eu-central-1", "us-east-1", "https://s3.example.com", State.WARNING),
        (None, "us-east-1", "https://s3.example.com", State.FINE),
    ],
)
def test_a_bucket_in_another_region_is_told_with_the_setting_to_mend(
    told: str | None, used: str, endpoint: str, state: State
) -> None:
    found = region("ours", told, SimpleNamespace(region_name=used, endpoint_url=endpoint))
    assert found.state is state
    assert ("AWS_DEFAULT_REGION=eu-central-1" in found.fix) is (state is not State.FINE)


def test_the_region_of_a_real_bucket_is_told(s3: S3) -> None:
    elsewhere = f"elsewhere-{s3.bucket}"
    s3.client.create_bucket(Bucket=elsewhere, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert "in eu-west-1, and requests are signed for us-east-1" in _examined(s3, elsewhere)["bucket"].message


async def test_a_server_that_falls_silent_in_the_middle_is_one_finding_more(s3: S3) -> None:
    async with saying(http(200), Reply(b"", Then.RESET)) as server:
        there = S3(server.url, s3.bucket, s3.client)
        found = await asyncio.to_thread(_examined, there)
    assert found["bucket"].unreachable


@pytest.mark.parametrize(
    ("code", "state", "said"),
    [
        (s3_error(403, "AccessDenied"), State.WARNING, "may not see it"),
        (s3_error(501, "NotImplemented"), State.WARNING, "not told by this server"),
        (s3_error(400, "Odd"), State.WARNING, "S3 answers Odd"),
    ],
)
async def test_what_may_not_be_seen_is_told_with_the_right_that_it_needs(
    s3: S3, code: bytes, state: State, said: str
) -> None:
    there = http(200, headers={"ETag": '"1"'})
    async with saying(there, there, there, s3_error(412, "PreconditionFailed"), there, there, code) as server:
        found = await asyncio.to_thread(_examined, S3(server.url, s3.bucket, s3.client))
    for what, right in {
        "versioning": "s3:GetBucketVersioning",
        "encryption": "s3:GetEncryptionConfiguration",
        "public access": "s3:GetBucketPublicAccessBlock",
        "Object Lock": "s3:GetBucketObjectLockConfiguration",
        "unfinished uploads": "s3:GetLifecycleConfiguration",
    }.items():
        assert (found[what].state, said in found[what].message) == (state, True)
        assert (right in found[what].fix) is ("may not" in said)


async def test_an_s3_that_writes_over_what_is_there_is_wrong(s3: S3) -> None:
    async with saying(http(200, headers={"ETag": '"1"'})) as server:
        found = await asyncio.to_thread(_examined, S3(server.url, s3.bucket, s3.client))
    assert (found["create only"].state, "If-None-Match" in found["create only"].fix) == (State.WRONG, True)


def test_a_bucket_that_is_not_there_cannot_be_reached(s3: S3) -> None:
    (finding,) = _examined(s3, "nobody-made-it").values()
    assert (finding.state, finding.unreachable) == (State.WRONG, True)
