"""The published policies grant each role exactly its rights, by the calls of the code and by moto's IAM."""

import functools
import html
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import settings as moto_settings
from moto.core.authorization import ActionAuthenticatorMixin
from moto.iam.access_control import IAMPolicy, IAMPolicyStatement, PermissionResult
from moto.s3.responses import ACTION_MAP
from redis.asyncio import Redis

from scripts.archive_access.s3_client import S3Archive, open_s3_archive
from scripts.erase.erasure import Erased, ErasureStores, erase_one
from scripts.erase.receipt import ErasureRequest
from scripts.erase.traces import RedisRecords
from scripts.erase.versions import S3Versions
from scripts.retention import survey as survey_module
from scripts.retention.lock_extender import LockExtender
from tasks.errors import StorageError
from tasks.ledger.ledger import Ledger
from tasks.model.evaluation import Evaluation
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.retention.event import EventReport, record_event
from tasks.storage.bucket import Bucket
from tasks.storage.open_bucket import open_bucket
from tasks.storage.run_list import RunSource, store_run_list
from tests.archives import eval_ids, fill
from tests.commands import Shell
from tests.conftest import S3
from tests.retention import answer_lock_requests
from tests.scripts.retention.test_disposal import VersionedArchive
from tests.scripts.serve.conftest import OPERATOR, RECORDS, basic, running_client, settings_for
from tests.scripts.serve.page.conftest import PageUser
from worker.clients.archive import check_archive, open_archive
from worker.config.settings import Settings

POLICIES = Path(__file__).parents[1] / "docs" / "iam"
# The rights that each call of boto3 or obstore needs (Service Authorization Reference, Amazon S3).
NEEDED = {
    "worker": {
        "obstore get, head": "s3:GetObject",
        "obstore put": "s3:PutObject",
        "obstore put with tags": "s3:PutObjectTagging",
        "404 instead of 403": "s3:ListBucket",
        "obstore put in parts, when it fails": "s3:AbortMultipartUpload",
        "obstore put under Object Lock": "s3:PutObjectRetention",
        "obstore put under a legal hold": "s3:PutObjectLegalHold",
        "obstore put with SSE-KMS": "kms:GenerateDataKey",
        "obstore get, and put in parts, with SSE-KMS": "kms:Decrypt",
    },
    "server": {
        "obstore get": "s3:GetObject",
        "404 instead of 403": "s3:ListBucket",
        "obstore put of a cancelled run, of an event": "s3:PutObject",
        "obstore put with SSE-KMS": "kms:GenerateDataKey",
        "obstore get with SSE-KMS": "kms:Decrypt",
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
        "get_object_retention": "s3:GetObjectRetention",
        "delete_objects": "s3:DeleteObject",
        "delete_objects with versions": "s3:DeleteObjectVersion",
        "delete_objects with BypassGovernanceRetention": "s3:BypassGovernanceRetention",
        "put_object_retention": "s3:PutObjectRetention",
    },
    "holder": {
        "obstore get of manifests, matters and lists of runs": "s3:GetObject",
        "obstore put of manifests and matters": "s3:PutObject",
        "obstore put of manifests with tags": "s3:PutObjectTagging",
        "obstore put with SSE-KMS": "kms:GenerateDataKey",
        "obstore get with SSE-KMS": "kms:Decrypt",
        "obstore list of matters and additions, 404 instead of 403": "s3:ListBucket",
        "list_object_versions": "s3:ListBucketVersions",
        "get_object_lock_configuration": "s3:GetBucketObjectLockConfiguration",
        "put_object_legal_hold": "s3:PutObjectLegalHold",
    },
}


@pytest.mark.parametrize("role", NEEDED)
def test_the_published_policy_has_exactly_the_rights_that_calls_need(role: str) -> None:
    statements = json.loads((POLICIES / f"{role}.json").read_text())["Statement"]
    assert sorted(action for each in statements for action in each["Action"]) == sorted(set(NEEDED[role].values()))


def test_every_role_has_a_policy_and_every_policy_a_role() -> None:
    assert {path.name for path in POLICIES.iterdir()} == {f"{role}.json" for role in NEEDED}


# The rights that S3 needs for these requests (API Reference), by a part of their query; moto 5 confuses them.
_RIGHTS = {
    ("BUCKET", "HEAD"): {"DEFAULT": "ListBucket"},
    ("BUCKET", "GET"): {
        "object-lock": "GetBucketObjectLockConfiguration",
        "encryption": "GetEncryptionConfiguration",
        "publicAccessBlock": "GetBucketPublicAccessBlock",
    },
    ("KEY", "GET"): {"legal-hold": "GetObjectLegalHold", "retention": "GetObjectRetention"},
    ("KEY", "PUT"): {"legal-hold": "PutObjectLegalHold", "retention": "PutObjectRetention"},
}
# To delete many objects at once, moto needs this right on the bucket, S3 on each object.
_MOTO_RIGHTS = ("s3:DeleteObject",)
# The rights that S3 needs for each operation of the eraser, on the bucket or on an object (API Reference).
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
    "PutObjectRetention": ("s3:PutObjectRetention",),
    "read": ("s3:GetObject",),
    "create": ("s3:PutObject",),
    "replace": ("s3:PutObject", "s3:PutObjectTagging"),
}


@dataclass
class RecordedRights:
    """The rights that recorded calls need, with their resources.

    Attributes:
        needed: rights, each with the resource.
    """

    needed: set[tuple[str, str]] = field(default_factory=set)

    def call(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        """Record a call of boto3."""
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

    def wrap(self, bucket: Bucket, resource: str) -> Bucket:
        """Return a bucket whose calls are recorded."""
        for name in ("read", "create", "replace"):
            setattr(bucket, name, self._recorded(getattr(bucket, name), OF_AN_OBJECT[name], resource))
        return bucket

    def _recorded(self, method: Callable[..., Any], rights: tuple[str, ...], resource: str) -> Callable[..., Any]:
        def recorded_call(key: str, *arguments: Any) -> Any:
            self.needed |= {(right, f"{resource}/{key}") for right in rights}
            return method(key, *arguments)

        return recorded_call

    def find_refused(self, policy: str) -> set[str]:
        """Return the recorded rights that a policy does not grant."""
        granted = IAMPolicy(policy)
        return {
            right
            for right, resource in self.needed
            if granted.is_action_permitted(right, resource) is not PermissionResult.PERMITTED
        }


@dataclass(frozen=True)
class Roles:
    """Users with the rights of one role, and an S3 that enforces them."""

    s3: S3
    monkeypatch: pytest.MonkeyPatch

    def policy(self, role: str, *, but: str = "", more: tuple[str, ...] = ()) -> str:
        """Return the published policy of a role for our bucket, without one right, or with more on the bucket."""
        policy = json.loads((POLICIES / f"{role}.json").read_text())
        for statement in policy["Statement"]:
            statement["Action"] = [action for action in statement["Action"] if action != but]
        policy["Statement"] += [{"Effect": "Allow", "Action": each, "Resource": "arn:aws:s3:::BUCKET"} for each in more]
        return json.dumps(policy).replace("BUCKET", self.s3.bucket).replace("PREFIX", "kyc")

    def make(self, role: str) -> dict[str, str]:
        """Return the credentials of a new user with the published policy of a role."""
        iam, name = boto3.client("iam", endpoint_url=self.s3.endpoint), f"{role}-{uuid4()}"
        iam.create_user(UserName=name)
        more = _MOTO_RIGHTS if role == "eraser" else ()
        iam.put_user_policy(UserName=name, PolicyName="least", PolicyDocument=self.policy(role, more=more))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    def enforce(self) -> None:
        """Enforce rights from now on; moto does not by default."""
        self.monkeypatch.setattr(ActionAuthenticatorMixin, "request_count", 0)
        self.monkeypatch.setattr(moto_settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0.0)

    def use(self, credentials: dict[str, str]) -> None:
        """Use these credentials."""
        for name, value in credentials.items():
            self.monkeypatch.setenv(name, value)


@pytest.fixture
def roles(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Roles:
    for (what, method), rights in _RIGHTS.items():
        monkeypatch.setitem(ACTION_MAP[what], method, ACTION_MAP[what][method] | rights)
    check = IAMPolicyStatement._check_conditions

    def check_conditions(statement: IAMPolicyStatement, values: dict[str, str] | None) -> bool:
        # moto takes a condition as met if it has no value for it, as for every request to S3.
        return check(statement, values) if values else "Condition" not in statement._statement

    monkeypatch.setattr(IAMPolicyStatement, "_check_conditions", check_conditions)
    return Roles(s3, monkeypatch)


async def test_the_rights_of_a_worker_are_enough_to_archive_and_those_of_an_auditor_to_verify(
    roles: Roles, s3: S3, tmp_path: Path
) -> None:
    url = f"s3://{s3.bucket}/kyc"
    settings = Settings(archive_url=url, s3_endpoint=s3.endpoint)
    worker, auditor = roles.make("worker"), roles.make("auditor")
    roles.enforce()

    roles.use(worker)
    await check_archive(archive := open_archive(settings), settings)
    await fill(open_bucket(archive, None), eval_ids(10))
    shell = Shell(tmp_path, {"DOCV_ARCHIVE_URL": url, "DOCV_S3_ENDPOINT": s3.endpoint})
    findings = json.loads((await shell.run("doctor", "--json")).out)["findings"]
    found = {each["what"]: each["state"] for each in findings}
    assert [found[what] for what in ("bucket", "write", "read", "create only", "tags")] == ["fine"] * 5

    roles.use(auditor)
    verified = await shell.run("verify", "--json")
    assert (verified.code, verified.out) == (0, ""), verified.err
    findings = json.loads((await shell.run("doctor", "--json")).out)["findings"]
    found = {each["what"]: each for each in findings}
    assert found["bucket"]["state"] == "fine"
    assert "s3:PutObject" in found["write"]["mend"]
    assert not [each for each in found.values() if "s3:Get" in each["mend"] or "s3:List" in each["mend"]]
    with pytest.raises(StorageError):
        await fill(open_bucket(open_archive(settings), None), eval_ids(11)[10:])


@pytest.mark.parametrize("role", NEEDED)
def test_iam_accepts_a_policy_file_as_it_is(roles: Roles, role: str) -> None:
    iam, name = boto3.client("iam", endpoint_url=roles.s3.endpoint), f"{role}-{uuid4()}"
    iam.create_user(UserName=name)
    text = (POLICIES / f"{role}.json").read_text()
    iam.put_user_policy(UserName=name, PolicyName="docv-archive", PolicyDocument=text)
    assert iam.get_user_policy(UserName=name, PolicyName="docv-archive")["PolicyDocument"] == json.loads(text)


EVAL_ID = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"
DOCUMENT = f"sandbox/{EVAL_ID}/selfie/{'a' * 64}.jpg"
WRITES = {
    "write a document": DOCUMENT,
    "write a manifest": f"production/{EVAL_ID}/manifest.json",
    "write a revision": f"production/{EVAL_ID}/revisions/1.json",
    "write to quarantine": f"quarantine/sandbox/{EVAL_ID}/{'b' * 64}.zip",
    "write a list of IDs": f"runs/sandbox/q3/{'c' * 64}.txt.gz",
    "write a run": "runs/sandbox/q3/run.json",
    "write a probe": "probe/x",
    "write a receipt": f"receipts/sandbox/{EVAL_ID}/20260101.json",
    "write a hold": "holds/matter.json",
    "write an event": f"events/sandbox/{EVAL_ID}/20260101T000000.000000Z-00000000.json",
    "write elsewhere": "elsewhere",
}
MAY = {
    "worker": {"list", "read", "lock"}
    | WRITES.keys() - {"write a receipt", "write a hold", "write an event", "write elsewhere"},
    "server": {"list", "read", "write a run", "write an event"},
    "auditor": {"list", "read"},
    "eraser": {"list", "read", "write a manifest", "write a revision", "write a receipt", "delete a document", "lock"},
    "holder": {"list", "hold", "write a manifest", "write a revision", "write a hold"},
}


@pytest.mark.parametrize("role", NEEDED)
def test_a_role_may_do_its_work_and_nothing_else(roles: Roles, s3: S3, role: str) -> None:
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.client.put_object_lock_configuration(Bucket=s3.bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    for key in WRITES.values():
        s3.client.put_object(Bucket=s3.bucket, Key=f"kyc/{key}", Body=b"x")
    roles.use(roles.make(role))
    roles.enforce()
    client = boto3.Session().client("s3", endpoint_url=s3.endpoint)  # the default session keeps old credentials

    def at(key: str) -> dict[str, str]:
        return {"Bucket": s3.bucket, "Key": f"kyc/{key}"}

    tomorrow = {"Mode": "GOVERNANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(days=1)}
    attempts: dict[str, Callable[[], Any]] = {
        "list": lambda: client.list_objects_v2(Bucket=s3.bucket),
        "read": lambda: client.get_object(**at(DOCUMENT)),
        "hold": lambda: client.put_object_legal_hold(**at(DOCUMENT), LegalHold={"Status": "OFF"}),
        "lock": lambda: client.put_object_retention(**at(DOCUMENT), Retention=tomorrow),
        "delete a document": lambda: client.delete_object(**at(DOCUMENT)),
        "delete a receipt": lambda: client.delete_object(**at(WRITES["write a receipt"])),
        "change the policy": lambda: client.delete_bucket_policy(Bucket=s3.bucket),
        **{name: functools.partial(client.put_object, **at(key), Body=b"y") for name, key in WRITES.items()},
    }
    assert {name for name, attempt in attempts.items() if is_allowed(attempt)} == MAY[role]


@pytest.mark.parametrize("key", [key for name, key in WRITES.items() if name in MAY["worker"]])
def test_a_worker_may_place_a_legal_hold_on_its_evaluations_and_never_release_one(roles: Roles, key: str) -> None:
    policy, resource = IAMPolicy(roles.policy("worker")), f"arn:aws:s3:::{roles.s3.bucket}/kyc/{key}"
    is_of_evaluation = not key.startswith(("runs/", "probe/"))
    for status, is_permitted in (("ON", is_of_evaluation), ("OFF", False)):
        condition = {"s3:object-lock-legal-hold": status}
        result = policy.is_action_permitted("s3:PutObjectLegalHold", resource, None, condition)
        assert (result is PermissionResult.PERMITTED) == is_permitted, status


def is_allowed(attempt: Callable[[], Any]) -> bool:
    try:
        attempt()
    except ClientError as error:
        if error.response["Error"]["Code"] == "AccessDenied":
            return False
        raise
    return True


async def test_the_rights_of_a_server_are_enough_to_show_evaluations_cancel_runs_and_record_events(
    roles: Roles, s3: S3, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    changes = {"archive_url": f"s3://{s3.bucket}/kyc", "s3_endpoint": s3.endpoint, "retention": tmp_path / "r.toml"}
    (tmp_path / "r.toml").write_text('[[rule]]\nname = "all"\nkeep_for = "5y"\nclock = "closed"\n')
    settings = settings_for(redis_url, tmp_path).model_copy(update=changes)
    bucket, ledger, ids = open_bucket(open_archive(settings)), Ledger(redis), eval_ids(2)
    await fill(bucket, ids)
    source = RunSource(name="ids.txt", fingerprint="a" * 64, ids=2, repeated=0, bad=0)
    account = {"environment": "sandbox", "account": "default"}
    run = await store_run_list(bucket, ids, run="q4", **account, refresh=False, source=source)
    await ledger.runs.begin("q4", total=2, fingerprint=run.fingerprint)
    order = EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run="q4"))
    await ledger.runs.feed("q4", ids, order, position=0, backlog=100)
    roles.use(roles.make("server"))
    roles.enforce()

    async with running_client(settings) as client:
        operator = PageUser(client, OPERATOR)
        assert (await client.send("GET", "/readyz", Authorization=basic(OPERATOR))).status == 200
        assert (await client.look_up(ids[0])).status == 200
        assert (await client.look_up(str(uuid4()))).status == 404
        path, event = f"/evaluations/{ids[0]}/events", {"event": "closed", "date": "2026-01-31"}
        for status in (201, 200):
            assert (await client.send("POST", path, event, Authorization=f"Bearer {RECORDS}")).status == status
        page = (await operator.get_page(f"/page/evaluation?id={ids[0]}&pictures")).body.decode()
        picture = html.unescape(re.findall(r'href="(/page/pictures/[^"]+)"', page)[0])
        assert (await operator.get_page(picture)).status == 200
        assert "2 cancelled" in (await operator.press("/page/cancel?run=q4")).body.decode()
    with pytest.raises(StorageError):
        await fill(open_bucket(open_archive(settings)), eval_ids(3)[2:])


async def test_the_rights_of_a_holder_are_enough_to_hold_and_to_release(roles: Roles, s3: S3, tmp_path: Path) -> None:
    settings = Settings(archive_url=f"s3://{s3.bucket}/kyc", s3_endpoint=s3.endpoint)
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.client.put_object_lock_configuration(Bucket=s3.bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    await fill(open_bucket(open_archive(settings)), eval_ids(2))
    shell = Shell(tmp_path, {"DOCV_ARCHIVE_URL": settings.archive_url, "DOCV_S3_ENDPOINT": s3.endpoint})
    roles.use(roles.make("holder"))
    roles.enforce()
    for arguments in (
        ("create", "acme-v-bolt", "--reason", "case 17"),
        ("add", "acme-v-bolt", EVAL_ID, "--run", "q3", "--even-if-absent"),
        ("show", "acme-v-bolt"),
        ("release", "acme-v-bolt", "--reason", "settled"),
    ):
        finished = await shell.run("legal-hold", *arguments)
        assert finished.code == 0, finished.err


async def dispose_and_lock(retained: VersionedArchive, archive: S3Archive) -> None:
    """Apply a plan as `retention apply` does, with the same client."""
    retained.schedule = {
        "rule": [
            {"name": "selfies", "kind": "selfie", "keep_for": "1d", "clock": "archived"},
            {"name": "fronts", "kind": "document_front", "keep_for": "5y", "clock": "account_closed", "keep": "must"},
        ]
    }
    retained.wrapped = lambda stores: replace(stores, versions=S3Versions(archive))
    survey = retained.survey("2027-01-01")
    extender = LockExtender(archive, survey.schedule, "GOVERNANCE", 8, survey.today)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey_module, "find_retention_reader", lambda _: None)
        await survey.extend_locks(retained.bucket, extender)
        result = await retained.dispose("2027-01-01")
    assert (result.documents, len(result.certificates), extender.extended) == (1, 1, 1)


async def test_the_rights_of_an_eraser_are_enough_to_erase_and_dispose_and_all_are_needed(roles: Roles, s3: S3) -> None:
    settings = Settings(archive_url=f"s3://{s3.bucket}/kyc", s3_endpoint=s3.endpoint)
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.client.put_object_lock_configuration(Bucket=s3.bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    (eval_id,) = eval_ids(1)
    await fill(open_bucket(open_archive(settings)), [eval_id])
    report = EventReport("account_closed", date(2026, 1, 1), "records")
    await record_event(open_bucket(open_archive(settings)), Evaluation(eval_id, "sandbox"), report, datetime.now(UTC))
    s3.client.create_multipart_upload(Bucket=s3.bucket, Key=f"kyc/sandbox/{eval_id}/selfie/unfinished.jpg")
    roles.use(roles.make("eraser"))
    roles.enforce()

    recorded, archive, evaluation = RecordedRights(), open_s3_archive(settings), Evaluation(eval_id, "sandbox")
    assert archive
    archive.client.meta.events.register("provide-client-params.s3", recorded.call)
    archive.client.meta.events.register("before-send.s3.GetObjectRetention", answer_lock_requests({}))
    bucket = recorded.wrap(open_bucket(open_archive(settings)), f"arn:aws:s3:::{s3.bucket}/kyc")
    request = ErasureRequest("request 4711", "operator", "a-host", bypass_governance=True)
    await dispose_and_lock(VersionedArchive(settings, bucket, s3=s3), archive)
    result = await erase_one(evaluation, request, ErasureStores(bucket, S3Versions(archive), RedisRecords(None)))

    assert isinstance(result, Erased)
    assert recorded.find_refused(roles.policy("eraser")) == set()
    rights = {right for right in NEEDED["eraser"].values() if right.startswith("s3:")}
    assert {right for right, _ in recorded.needed} == rights
    for right in rights:
        assert recorded.find_refused(roles.policy("eraser", but=right)) == {right}
