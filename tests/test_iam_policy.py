"""The published policies are enough for each role, and no more: by the calls there are, and before moto's IAM."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from moto import settings as moto_settings
from moto.core.authorization import ActionAuthenticatorMixin
from moto.iam.access_control import IAMPolicy, PermissionResult

from scripts.archive_access.s3_client import open_s3_archive
from scripts.erase.erasure import Erased, ErasureStores, erase_one
from scripts.erase.legal_hold import hold_all
from scripts.erase.receipt import ErasureRequest
from scripts.erase.traces import RedisRecords
from scripts.erase.versions import S3Versions
from tasks.errors import StorageError
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket
from tasks.storage.open_bucket import open_bucket
from tests.archives import eval_ids, fill
from tests.commands import Shell
from tests.conftest import S3
from tests.retention import answering_retention
from worker.clients.archive import check_archive, open_archive
from worker.config.settings import Settings

POLICY = Path(__file__).parents[1] / "docs" / "iam-policy.json"
# Which call of boto3 or obstore needs which right (Service Authorization Reference, Amazon S3).
NEEDED = {
    "worker": {
        "obstore get, head": "s3:GetObject",
        "obstore put": "s3:PutObject",
        "obstore put with tags": "s3:PutObjectTagging",
        "404 instead of 403": "s3:ListBucket",
        "obstore put in parts, when it fails": "s3:AbortMultipartUpload",
        "obstore put under Object Lock": "s3:PutObjectRetention",
        "obstore put with SSE-KMS": "kms:GenerateDataKey",
        "obstore get, and put in parts, with SSE-KMS": "kms:Decrypt",
    },
    "auditor": {
        "obstore get": "s3:GetObject",
        "get_object_tagging": "s3:GetObjectTagging",
        "head_object's lock": "s3:GetObjectRetention",
        "obstore get with SSE-KMS": "kms:Decrypt",
        "head_bucket, list_objects_v2": "s3:ListBucket",
        "get_bucket_versioning": "s3:GetBucketVersioning",
        "get_bucket_encryption": "s3:GetEncryptionConfiguration",
        "get_public_access_block": "s3:GetBucketPublicAccessBlock",
        "get_object_lock_configuration": "s3:GetBucketObjectLockConfiguration",
        "get_bucket_lifecycle_configuration": "s3:GetLifecycleConfiguration",
    },
    "eraser": {
        "obstore get": "s3:GetObject",
        "obstore put": "s3:PutObject",
        "obstore put with tags": "s3:PutObjectTagging",
        "obstore put with SSE-KMS": "kms:GenerateDataKey",
        "obstore get with SSE-KMS": "kms:Decrypt",
        "list_objects_v2": "s3:ListBucket",
        "list_object_versions": "s3:ListBucketVersions",
        "list_multipart_uploads": "s3:ListBucketMultipartUploads",
        "abort_multipart_upload": "s3:AbortMultipartUpload",
        "get_object_lock_configuration": "s3:GetBucketObjectLockConfiguration",
        "get_object_legal_hold": "s3:GetObjectLegalHold",
        "put_object_legal_hold": "s3:PutObjectLegalHold",
        "get_object_retention": "s3:GetObjectRetention",
        "delete_objects": "s3:DeleteObject",
        "delete_objects with versions": "s3:DeleteObjectVersion",
        "delete_objects with BypassGovernanceRetention": "s3:BypassGovernanceRetention",
    },
}


@pytest.mark.parametrize("role", NEEDED)
def test_the_published_policy_names_what_the_calls_need_and_no_more(role: str) -> None:
    statements = json.loads(POLICY.read_text())[role]["Statement"]
    assert sorted(action for each in statements for action in each["Action"]) == sorted(set(NEEDED[role].values()))


# moto wants rights of these names on the bucket for a HEAD of it and for removing many at once, and for whatever is
# asked of a version; S3 wants none for the first, that of each object for the second, and others for the last (API
# Reference).
_MOTO_S_OWN = ("s3:HeadBucket", "s3:DeleteObject", "s3:GetObjectVersion")
# What S3 wants for each operation of the eraser, on the bucket or on an object (API Reference).
OF_THE_BUCKET = {
    "ListObjectsV2": ("s3:ListBucket",),
    "ListObjectVersions": ("s3:ListBucketVersions",),
    "ListMultipartUploads": ("s3:ListBucketMultipartUploads",),
    "GetObjectLockConfiguration": ("s3:GetBucketObjectLockConfiguration",),
}
OF_AN_OBJECT = {
    "AbortMultipartUpload": ("s3:AbortMultipartUpload",),
    "GetObjectLegalHold": ("s3:GetObjectLegalHold",),
    "GetObjectRetention": ("s3:GetObjectRetention",),
    "PutObjectLegalHold": ("s3:PutObjectLegalHold",),
    "read": ("s3:GetObject",),
    "create": ("s3:PutObject",),
    "replace": ("s3:PutObject", "s3:PutObjectTagging"),
}


@dataclass
class Noted:
    """Every right that what is called needs, and on what.

    Attributes:
        needed: rights, each with the resource.
    """

    needed: set[tuple[str, str]] = field(default_factory=set)

    def call(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        """Note a call of boto3."""
        bucket = f"arn:aws:s3:::{params['Bucket']}"
        if model.name == "DeleteObjects":
            rights = {"s3:DeleteObject", "s3:DeleteObjectVersion"}
            rights |= {"s3:BypassGovernanceRetention"} if params.get("BypassGovernanceRetention") else set()
            keys = [each["Key"] for each in params["Delete"]["Objects"]]
            self.needed |= {(right, f"{bucket}/{key}") for right in rights for key in keys}
        elif model.name in OF_THE_BUCKET:
            self.needed |= {(right, bucket) for right in OF_THE_BUCKET[model.name]}
        else:
            self.needed |= {(right, f"{bucket}/{params['Key']}") for right in OF_AN_OBJECT[model.name]}

    def through(self, bucket: Bucket, where: str) -> Bucket:
        """Return a bucket whose calls are noted."""
        for name in ("read", "create", "replace"):
            setattr(bucket, name, self._noting(getattr(bucket, name), OF_AN_OBJECT[name], where))
        return bucket

    def _noting(self, method: Callable[..., Any], rights: tuple[str, ...], where: str) -> Callable[..., Any]:
        def noting(key: str, *arguments: Any) -> Any:
            self.needed |= {(right, f"{where}/{key}") for right in rights}
            return method(key, *arguments)

        return noting

    def refused(self, policy: str) -> set[str]:
        """Return those rights that a policy does not give."""
        asked = IAMPolicy(policy)
        return {
            right
            for right, resource in self.needed
            if asked.is_action_permitted(right, resource) is not PermissionResult.PERMITTED
        }


@dataclass(frozen=True)
class Roles:
    """Whoever has no rights but those of a role, before an S3 that looks at them."""

    s3: S3
    monkeypatch: pytest.MonkeyPatch

    def policy(self, role: str, *, but: str = "", more: tuple[str, ...] = ()) -> str:
        """Return the published policy of a role for our bucket, without one right, or with more."""
        policy = json.loads(POLICY.read_text())[role]
        for statement in policy["Statement"]:
            statement["Action"] = [action for action in statement["Action"] if action != but]
        policy["Statement"] += [
            {"Effect": "Allow", "Action": each, "Resource": "arn:aws:s3:::BUCKET*"} for each in more
        ]
        return json.dumps(policy).replace("BUCKET", self.s3.bucket).replace("PREFIX", "kyc")

    def make(self, role: str) -> dict[str, str]:
        """Return the credentials of somebody with the published policy of a role."""
        iam, name = boto3.client("iam", endpoint_url=self.s3.endpoint), f"{role}-{uuid4()}"
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="least", PolicyDocument=self.policy(role, more=_MOTO_S_OWN))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    def enforce(self) -> None:
        """From now on look at rights; moto does not otherwise."""
        self.monkeypatch.setattr(ActionAuthenticatorMixin, "request_count", 0)
        self.monkeypatch.setattr(moto_settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0.0)

    def become(self, credentials: dict[str, str]) -> None:
        """Use somebody's credentials."""
        for name, value in credentials.items():
            self.monkeypatch.setenv(name, value)


@pytest.fixture
def roles(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Roles:
    return Roles(s3, monkeypatch)


async def test_a_worker_s_rights_are_enough_to_archive_and_an_auditor_s_to_verify_and_examine(
    roles: Roles, s3: S3, tmp_path: Path
) -> None:
    url = f"s3://{s3.bucket}/kyc"
    settings = Settings(archive_url=url, s3_endpoint=s3.endpoint)
    worker, auditor = roles.make("worker"), roles.make("auditor")
    roles.enforce()

    roles.become(worker)
    await check_archive(archive := open_archive(settings), settings)
    await fill(open_bucket(archive, None), eval_ids(10))

    roles.become(auditor)
    shell = Shell(tmp_path, {"DOCV_ARCHIVE_URL": url, "DOCV_S3_ENDPOINT": s3.endpoint})
    verified = await shell.run("verify", "--json")
    assert (verified.code, verified.out) == (0, ""), verified.err
    findings = json.loads((await shell.run("doctor", "--json")).out)["findings"]
    found = {each["what"]: each for each in findings}
    assert found["bucket"]["state"] == "fine"
    assert "s3:PutObject" in found["write"]["mend"]
    assert not [each for each in found.values() if "s3:Get" in each["mend"] or "s3:List" in each["mend"]]
    with pytest.raises(StorageError):
        await fill(open_bucket(open_archive(settings), None), eval_ids(11)[10:])


async def test_an_eraser_s_rights_are_enough_to_hold_and_to_erase_and_each_of_them_is_needed(
    roles: Roles, s3: S3
) -> None:
    settings = Settings(archive_url=f"s3://{s3.bucket}/kyc", s3_endpoint=s3.endpoint)
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.client.put_object_lock_configuration(Bucket=s3.bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    (eval_id,) = eval_ids(1)
    await fill(open_bucket(open_archive(settings)), [eval_id])
    s3.client.create_multipart_upload(Bucket=s3.bucket, Key=f"kyc/sandbox/{eval_id}/selfie/unfinished.jpg")
    roles.become(roles.make("eraser"))
    roles.enforce()

    noted, archive, evaluation = Noted(), open_s3_archive(settings), Evaluation(eval_id, "sandbox")
    assert archive
    archive.client.meta.events.register("provide-client-params.s3", noted.call)
    archive.client.meta.events.register("before-send.s3.GetObjectRetention", answering_retention({}))
    for status in ("ON", "OFF"):
        assert hold_all(archive, evaluation, status) == 4
    bucket = noted.through(open_bucket(open_archive(settings)), f"arn:aws:s3:::{s3.bucket}/kyc")
    asked = ErasureRequest("request 4711", "operator", "a-host", bypass_governance=True)
    ending = await erase_one(evaluation, asked, ErasureStores(bucket, S3Versions(archive), RedisRecords(None)))

    assert isinstance(ending, Erased)
    assert noted.refused(roles.policy("eraser")) == set()
    rights = {right for right in NEEDED["eraser"].values() if right.startswith("s3:")}
    assert {right for right, _ in noted.needed} == rights
    for right in rights:
        assert noted.refused(roles.policy("eraser", but=right)) == {right}
