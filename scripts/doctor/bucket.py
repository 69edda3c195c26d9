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
        for what, action, absent, look in _CHECKS:
            found = _check_setting(archive, what, action, absent, look)
            yield _unlockable(settings.lock_mode) if found is _UNLOCKED and settings.lock_mode else found
    except BotoCoreError as error:
        yield _silent(error)


def _check_bucket(archive: S3Archive) -> Finding:
    try:
        headers = archive.client.head_bucket(Bucket=archive.bucket)["ResponseMetadata"]["HTTPHeaders"]
    except ClientError as error:
        return _no_bucket(archive, error_code(error))
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
    said, mend = (
        f"{bucket} is in {told}, and requests are signed for {used.region_name}",
        f"set AWS_DEFAULT_REGION={told}",
    )
    amazon = (urlsplit(used.endpoint_url).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
    return wrong("bucket", said, mend) if amazon else warning("bucket", said, mend)


def _no_bucket(archive: S3Archive, code: str) -> Finding:
    if code in _MISSING:
        return wrong(
            "bucket", f"there is no bucket {archive.bucket}", "make it, or mend DOCV_ARCHIVE_URL", unreachable=True
        )
    if code in DENIED:
        return wrong("bucket", "access is denied", "these credentials need s3:ListBucket on it")
    return wrong("bucket", f"S3 answers {code}", "see DOCV_S3_ENDPOINT", unreachable=True)


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
    yield _removed(
        "s3:DeleteObjectVersion" if version else "s3:DeleteObject", lambda: client.delete_object(**where, **version)
    )


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


def _removed(action: str, call: Callable[[], Any]) -> Finding:
    """A worker need not remove anything, so it is no fault where it may not."""
    found = _check_allowed("probe removed", action, call)
    if not found.fix:
        return found
    return warning("probe removed", "the probe stays, below probe/", f"only who has {action} can remove it")


def _check_setting(
    archive: S3Archive, what: str, action: str, absent: str, look: Callable[[Any, str], Finding]
) -> Finding:
    try:
        return look(archive.client, archive.bucket)
    except ClientError as error:
        code = error_code(error)
    if code in absent.split():
        return _ABSENT[what]
    if code in DENIED:
        return warning(what, "these credentials may not see it", f"they need {action} for this examination")
    if code in UNKNOWN:
        return warning(what, "not told by this server")
    return warning(what, f"S3 answers {code}")


def _versioning(client: Any, bucket: str) -> Finding:
    if client.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled":
        return fine("versioning", "it is on")
    return warning("versioning", "it is off", "turn it on: what is removed by mistake can be brought back")


def _encryption(client: Any, bucket: str) -> Finding:
    rules = client.get_bucket_encryption(Bucket=bucket).get("ServerSideEncryptionConfiguration", {}).get("Rules", ())
    for default in (rule.get("ApplyServerSideEncryptionByDefault") for rule in rules):
        if default:
            return fine("encryption", default["SSEAlgorithm"])
    return _ABSENT["encryption"]


def _public_access(client: Any, bucket: str) -> Finding:
    blocks = client.get_public_access_block(Bucket=bucket).get("PublicAccessBlockConfiguration")
    if blocks and all(blocks.values()):
        return fine("public access", "it is blocked")
    return _ABSENT["public access"]


def _lock(client: Any, bucket: str) -> Finding:
    found = client.get_object_lock_configuration(Bucket=bucket).get("ObjectLockConfiguration", {})
    if found.get("ObjectLockEnabled") != "Enabled":
        return _UNLOCKED
    rule = found.get("Rule", {}).get("DefaultRetention", {})
    kept = (
        f"{rule['Mode']}, {rule.get('Days') or rule.get('Years')} {'days' if rule.get('Days') else 'years'}"
        if rule
        else ""
    )
    return fine("Object Lock", f"on; default retention {kept or 'none'}")


def _lifecycle(client: Any, bucket: str) -> Finding:
    rules = client.get_bucket_lifecycle_configuration(Bucket=bucket).get("Rules", ())
    if any(rule.get("AbortIncompleteMultipartUpload") and rule.get("Status") == "Enabled" for rule in rules):
        return fine("unfinished uploads", "a lifecycle rule removes them")
    return _ABSENT["unfinished uploads"]


def _unlockable(mode: str) -> Finding:
    return wrong(
        "Object Lock",
        f"off, and DOCV_LOCK_MODE={mode} needs it: nothing can be written",
        "turn Object Lock on, or leave DOCV_LOCK_MODE and DOCV_LOCK_DAYS out",
    )


_UNLOCKED = fine("Object Lock", "off; legal hold and retention need it")
_ABSENT = {
    "versioning": warning("versioning", "it is off", "turn it on"),
    "encryption": warning("encryption", "none by default", "turn on the bucket's default encryption"),
    "public access": wrong("public access", "it is not blocked", "turn on all four settings of Block Public Access"),
    "Object Lock": _UNLOCKED,
    "unfinished uploads": warning(
        "unfinished uploads",
        "they stay for good",
        "add a lifecycle rule with AbortIncompleteMultipartUpload, such as after 7 days",
    ),
}
_CHECKS = (
    ("versioning", "s3:GetBucketVersioning", "", _versioning),
    ("encryption", "s3:GetEncryptionConfiguration", "ServerSideEncryptionConfigurationNotFoundError", _encryption),
    ("public access", "s3:GetBucketPublicAccessBlock", "NoSuchPublicAccessBlockConfiguration", _public_access),
    ("Object Lock", "s3:GetBucketObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", _lock),
    ("unfinished uploads", "s3:GetLifecycleConfiguration", "NoSuchLifecycleConfiguration", _lifecycle),
)
