"""The published policies are enough for each role, and no more: by the calls there are, and before moto's IAM."""

import json
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import boto3
import pytest
from moto import settings as moto_settings
from moto.core.authorization import ActionAuthenticatorMixin

from tasks.buckets import bucket_at
from tasks.errors import StoreFailed
from tests.archives import eval_ids, fill
from tests.commands import Shell
from tests.conftest import S3
from worker.archive_client import check_archive, open_archive
from worker.settings import Settings

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
        "obstore put under Object Lock": "s3:PutObjectRetention",
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


@dataclass(frozen=True)
class Roles:
    """Whoever has no rights but those of a role, before an S3 that looks at them."""

    s3: S3
    monkeypatch: pytest.MonkeyPatch

    def make(self, role: str) -> dict[str, str]:
        """Return the credentials of somebody with the published policy of a role."""
        iam, name = boto3.client("iam", endpoint_url=self.s3.endpoint), f"{role}-{uuid4()}"
        policy = json.loads(POLICY.read_text())[role]
        # moto wants a right of that name for a HEAD of a bucket; S3 has none (API Reference, "HeadBucket").
        policy["Statement"].append({"Effect": "Allow", "Action": "s3:HeadBucket", "Resource": "arn:aws:s3:::BUCKET"})
        iam.create_user(UserName=name)
        text = json.dumps(policy).replace("BUCKET", self.s3.bucket).replace("PREFIX", "kyc")
        iam.put_user_policy(UserName=name, PolicyName="least", PolicyDocument=text)
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
    await fill(bucket_at(archive, None), eval_ids(10))

    roles.become(auditor)
    shell = Shell(tmp_path, {"DOCV_ARCHIVE_URL": url, "DOCV_S3_ENDPOINT": s3.endpoint})
    verified = await shell.run("verify", "--json")
    assert (verified.code, verified.out) == (0, ""), verified.err
    findings = json.loads((await shell.run("doctor", "--json")).out)["findings"]
    found = {each["what"]: each for each in findings}
    assert found["bucket"]["state"] == "fine"
    assert "s3:PutObject" in found["write"]["mend"]
    assert not [each for each in found.values() if "s3:Get" in each["mend"] or "s3:List" in each["mend"]]
    with pytest.raises(StoreFailed):
        await fill(bucket_at(open_archive(settings), None), eval_ids(11)[10:])
