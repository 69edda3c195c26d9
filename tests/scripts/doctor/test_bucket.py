"""A bucket is examined by doing what workers do, and by asking how it is set."""

import pytest

from scripts.doctor.bucket import examine
from scripts.doctor.finding import Finding, State
from scripts.s3_client import s3_archive
from tests.conftest import S3
from worker.settings import Settings


def _examined(s3: S3, bucket: str | None = None) -> dict[str, Finding]:
    settings = Settings(archive_url=f"s3://{bucket or s3.bucket}/kept", s3_endpoint=s3.endpoint)
    archive = s3_archive(settings)
    assert archive
    return {finding.what: finding for finding in examine(archive)}


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
    found = _examined(s3)
    assert found["versioning"].state is State.WARNING
    assert found["public access"].state is State.WRONG
    assert found["unfinished uploads"].state is State.WARNING
    assert all(each.mend for each in found.values() if each.state is State.WRONG)


def test_what_is_set_is_fine(s3: S3) -> None:
    blocks = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    s3.client.put_public_access_block(Bucket=s3.bucket, PublicAccessBlockConfiguration=dict.fromkeys(blocks, True))
    rule = {"ID": "a", "Status": "Enabled", "Filter": {"Prefix": ""}}
    rule |= {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}
    s3.client.put_bucket_lifecycle_configuration(Bucket=s3.bucket, LifecycleConfiguration={"Rules": [rule]})
    found = _examined(s3)
    assert found["public access"].state is State.FINE
    assert found["unfinished uploads"].state is State.FINE


def test_a_bucket_that_is_not_there_cannot_be_reached(s3: S3) -> None:
    (finding,) = _examined(s3, "nobody-made-it").values()
    assert (finding.state, finding.unreachable) == (State.WRONG, True)
