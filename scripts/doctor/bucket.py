"""Examine the archive's bucket: can it be written and read, and is it set as an archive should be?"""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from scripts.archive_access.s3_client import DENIED, UNKNOWN, S3Archive, error_code
from scripts.doctor.finding import Finding, fine, warning, wrong
from worker.config.settings import Settings

_MISSING = {"404", "NoSuchBucket", "NotFound"}


def examine(archive: S3Archive, settings: Settings) -> Iterator[Finding]:
    """Yield what there is to say of the bucket."""
    there = _check_bucket(archive)
    yield there
    if there.fix:
        return
    try:
        yield from _probe(archive, settings.kms_key_id)
        for look, action, code_if_absent, absent in _CHECKS:
            found = _check_setting(archive, look, action, code_if_absent, absent)
            if found is _UNLOCKED and settings.lock_mode:
                found = wrong(
                    "Object Lock",
                    f"off, and DOCV_LOCK_MODE={settings.lock_mode} needs it: nothing can be written",
                    "turn Object Lock on, or leave DOCV_LOCK_MODE and DOCV_LOCK_DAYS out",
                )
            yield found
    except BotoCoreError as error:
        yield _silent(error)


def _check_bucket(archive: S3Archive) -> Finding:
    try:
        headers = archive.client.head_bucket(Bucket=archive.bucket)["ResponseMetadata"]["HTTPHeaders"]
    except ClientError as error:
        code = error_code(error)
        if code in _MISSING:
            said, mend = f"there is no bucket {archive.bucket}", "make it, or mend DOCV_ARCHIVE_URL"
            return wrong("bucket", said, mend, unreachable=True)
        if code in DENIED:
            return wrong("bucket", "access is denied", "these credentials need s3:ListBucket on it")
        return wrong("bucket", f"S3 answers {code}", "see DOCV_S3_ENDPOINT", unreachable=True)
    except BotoCoreError as error:
        return _silent(error)
    return region(archive.bucket, headers.get("x-amz-bucket-region"), archive.client.meta)


def _silent(error: BotoCoreError) -> Finding:
    said = f"S3 does not answer ({type(error).__name__})"
    return wrong("bucket", said, "see the credentials, DOCV_S3_ENDPOINT and the network", unreachable=True)


def region(bucket: str, told: str | None, used: Any) -> Finding:
    """Return whether the bucket is in the region that requests are signed for.

    Args:
        bucket: its name.
        told: its region, where the server tells it.
        used: boto3's facts about its client. It follows Amazon to another region; what writes documents does not.
    """
    if told is None:
        return fine("bucket", f"{bucket}, no region told by this server")
    if told == used.region_name:
        return fine("bucket", f"{bucket}, {told}")
    said = f"{bucket} is in {told}, and requests are signed for {used.region_name}"
    mend = f"set AWS_DEFAULT_REGION={told}"
    amazon = (urlsplit(used.endpoint_url).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
    return wrong("bucket", said, mend) if amazon else warning("bucket", said, mend)


def _probe(archive: S3Archive, kms_key_id: str | None) -> Iterator[Finding]:
    """Write an object as workers do, read it, try to write over it, and remove it with its version."""
    where = {"Bucket": archive.bucket, "Key": f"{archive.prefix}probe/{uuid4()}"}
    sealed = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_id} if kms_key_id else {}
    client, made = archive.client, {}
    written = _check_allowed(
        "write",
        "s3:PutObject" + (", and kms:GenerateDataKey on the key of DOCV_KMS_KEY_ID" if sealed else ""),
        lambda: made.update(client.put_object(**where, **sealed, Body=b"probe", IfNoneMatch="*")),
    )
    yield written
    if written.fix:
        return
    yield _check_allowed("read", "s3:GetObject", lambda: client.get_object(**where))
    yield _create_only(lambda: client.put_object(**where, Body=b"another", IfNoneMatch="*"))
    tags = {"TagSet": [{"Key": "probe", "Value": "docv-archive"}]}
    yield _check_allowed("tags", "s3:PutObjectTagging", lambda: client.put_object_tagging(**where, Tagging=tags))
    version = {"VersionId": made["VersionId"]} if "VersionId" in made else {}
    action = "s3:DeleteObjectVersion" if version else "s3:DeleteObject"
    removed = _check_allowed("probe removed", action, lambda: client.delete_object(**where, **version))
    # A worker need not remove anything, so it is no fault where it may not.
    refusal = warning("probe removed", "the probe stays, below probe/", f"only who has {action} can remove it")
    yield refusal if removed.fix else removed


def _check_allowed(what: str, action: str, call: Callable[[], Any]) -> Finding:
    try:
        call()
    except ClientError as error:
        return _refused(what, action, error_code(error))
    return fine(what, "it can be done")


def _refused(what: str, action: str, code: str) -> Finding:
    if code in DENIED:
        return wrong(what, "access is denied", f"these credentials need {action}; docs/iam-policy.json has it all")
    return wrong(what, f"S3 answers {code}", "see the bucket's settings and policy")


def _create_only(call: Callable[[], Any]) -> Finding:
    what = "create only"
    try:
        call()
    except ClientError as error:
        if error_code(error) in {"PreconditionFailed", "412", "ConditionalRequestConflict"}:
            return fine(what, "an object that is there is not overwritten")
        return _refused(what, "s3:PutObject", error_code(error))
    return wrong(what, "an object that is there was overwritten", "use an S3 that obeys If-None-Match")


def _check_setting(
    archive: S3Archive,
    look: Callable[[Any, str], Finding | None],
    action: str,
    code_if_absent: str | None,
    absent: Finding,
) -> Finding:
    """Return what ``look`` finds, or ``absent`` if that is nothing or S3 answers with ``code_if_absent``."""
    try:
        return look(archive.client, archive.bucket) or absent
    except ClientError as error:
        code = error_code(error)
    if code == code_if_absent:
        return absent
    if code in DENIED:
        return warning(absent.subject, "these credentials may not see it", f"they need {action} for this examination")
    if code in UNKNOWN:
        return warning(absent.subject, "not told by this server")
    return warning(absent.subject, f"S3 answers {code}")


def _versioning(client: Any, bucket: str) -> Finding | None:
    enabled = client.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled"
    return fine("versioning", "it is on") if enabled else None


def _encryption(client: Any, bucket: str) -> Finding | None:
    rules = client.get_bucket_encryption(Bucket=bucket).get("ServerSideEncryptionConfiguration", {}).get("Rules", ())
    for default in (rule.get("ApplyServerSideEncryptionByDefault") for rule in rules):
        if default:
            return fine("encryption", default["SSEAlgorithm"])
    return None


def _public_access(client: Any, bucket: str) -> Finding | None:
    blocks = client.get_public_access_block(Bucket=bucket).get("PublicAccessBlockConfiguration")
    return fine("public access", "it is blocked") if blocks and all(blocks.values()) else None


def _lock(client: Any, bucket: str) -> Finding | None:
    found = client.get_object_lock_configuration(Bucket=bucket).get("ObjectLockConfiguration", {})
    if found.get("ObjectLockEnabled") != "Enabled":
        return None
    rule, kept = found.get("Rule", {}).get("DefaultRetention"), "none"
    if rule:
        kept = f"{rule['Mode']}, " + (f"{rule['Days']} days" if rule.get("Days") else f"{rule.get('Years')} years")
    return fine("Object Lock", f"on; default retention {kept}")


def _lifecycle(client: Any, bucket: str) -> Finding | None:
    rules = client.get_bucket_lifecycle_configuration(Bucket=bucket).get("Rules", ())
    if any(rule.get("AbortIncompleteMultipartUpload") and rule.get("Status") == "Enabled" for rule in rules):
        return fine("unfinished uploads", "a lifecycle rule removes them")
    return None


_UNLOCKED = fine("Object Lock", "off; legal hold and retention need it")
_CHECKS = (
    (
        _versioning,
        "s3:GetBucketVersioning",
        None,
        warning("versioning", "it is off", "turn it on: what is removed by mistake can be brought back"),
    ),
    (
        _encryption,
        "s3:GetEncryptionConfiguration",
        "ServerSideEncryptionConfigurationNotFoundError",
        warning("encryption", "none by default", "turn on the bucket's default encryption"),
    ),
    (
        _public_access,
        "s3:GetBucketPublicAccessBlock",
        "NoSuchPublicAccessBlockConfiguration",
        wrong("public access", "it is not blocked", "turn on all four settings of Block Public Access"),
    ),
    (_lock, "s3:GetBucketObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", _UNLOCKED),
    (
        _lifecycle,
        "s3:GetLifecycleConfiguration",
        "NoSuchLifecycleConfiguration",
        warning(
            "unfinished uploads",
            "they stay for good",
            "add a lifecycle rule with AbortIncompleteMultipartUpload, such as after 7 days",
        ),
    ),
)
