"""Examine the archive's bucket: can it be written and read, and is it set as an archive should be?"""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from scripts.doctor.finding import Finding, fine, warning, wrong
from scripts.s3_client import DENIED, UNKNOWN, S3Archive, code_of

_MISSING = {"404", "NoSuchBucket", "NotFound"}


def examine(archive: S3Archive) -> Iterator[Finding]:
    """Yield what there is to say of the bucket."""
    there = _there(archive)
    yield there
    if there.mend:
        return
    yield from _probe(archive)
    for what, action, absent, look in _LOOKS:
        yield _look(archive, what, action, absent, look)


def _there(archive: S3Archive) -> Finding:
    try:
        headers = archive.client.head_bucket(Bucket=archive.bucket)["ResponseMetadata"]["HTTPHeaders"]
    except ClientError as error:
        return _no_bucket(archive, code_of(error))
    except BotoCoreError as error:
        said = f"S3 does not answer ({type(error).__name__})"
        return wrong("bucket", said, "see the credentials, DOCV_S3_ENDPOINT and the network", unreachable=True)
    region = headers.get("x-amz-bucket-region", "no region told by this server")
    return fine("bucket", f"{archive.bucket}, {region}")


def _no_bucket(archive: S3Archive, code: str) -> Finding:
    if code in _MISSING:
        return wrong(
            "bucket", f"there is no bucket {archive.bucket}", "make it, or mend DOCV_ARCHIVE_URL", unreachable=True
        )
    if code in DENIED:
        return wrong("bucket", "access is denied", "these credentials need s3:ListBucket on it")
    return wrong("bucket", f"S3 answers {code}", "see DOCV_S3_ENDPOINT", unreachable=True)


def _probe(archive: S3Archive) -> Iterator[Finding]:
    """Write an object, read it, try to write over it, and remove it with its version."""
    where = {"Bucket": archive.bucket, "Key": f"{archive.prefix}probe/{uuid4()}"}
    client, made = archive.client, {}
    written = _allowed(
        "write", "s3:PutObject", lambda: made.update(client.put_object(**where, Body=b"probe", IfNoneMatch="*"))
    )
    yield written
    if written.mend:
        return
    yield _allowed("read", "s3:GetObject", lambda: client.get_object(**where))
    yield _create_only(lambda: client.put_object(**where, Body=b"another", IfNoneMatch="*"))
    tags = {"TagSet": [{"Key": "probe", "Value": "docv-archive"}]}
    yield _allowed("tags", "s3:PutObjectTagging", lambda: client.put_object_tagging(**where, Tagging=tags))
    version = {"VersionId": made["VersionId"]} if "VersionId" in made else {}
    yield _removed(
        "s3:DeleteObjectVersion" if version else "s3:DeleteObject", lambda: client.delete_object(**where, **version)
    )


def _allowed(what: str, action: str, call: Callable[[], Any]) -> Finding:
    try:
        call()
    except ClientError as error:
        return _refused(what, action, code_of(error))
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
        if code_of(error) in {"PreconditionFailed", "412", "ConditionalRequestConflict"}:
            return fine(what, "an object that is there is not overwritten")
        return _refused(what, "s3:PutObject", code_of(error))
    return wrong(what, "an object that is there was overwritten", "use an S3 that obeys If-None-Match")


def _removed(action: str, call: Callable[[], Any]) -> Finding:
    """A worker need not remove anything, so it is no fault where it may not."""
    found = _allowed("probe removed", action, call)
    if not found.mend:
        return found
    return warning("probe removed", "the probe stays, below probe/", f"only who has {action} can remove it")


def _look(archive: S3Archive, what: str, action: str, absent: str, look: Callable[[Any, str], Finding]) -> Finding:
    try:
        return look(archive.client, archive.bucket)
    except ClientError as error:
        code = code_of(error)
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
    (rule, *_) = client.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    return fine("encryption", rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"])


def _public_access(client: Any, bucket: str) -> Finding:
    blocks = client.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    if blocks and all(blocks.values()):
        return fine("public access", "it is blocked")
    return _ABSENT["public access"]


def _lock(client: Any, bucket: str) -> Finding:
    found = client.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
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


_ABSENT = {
    "versioning": warning("versioning", "it is off", "turn it on"),
    "encryption": warning("encryption", "none by default", "turn on the bucket's default encryption"),
    "public access": wrong("public access", "it is not blocked", "turn on all four settings of Block Public Access"),
    "Object Lock": fine("Object Lock", "off; legal hold and retention need it"),
    "unfinished uploads": warning(
        "unfinished uploads",
        "they stay for good",
        "add a lifecycle rule with AbortIncompleteMultipartUpload, such as after 7 days",
    ),
}
_LOOKS = (
    ("versioning", "s3:GetBucketVersioning", "", _versioning),
    ("encryption", "s3:GetEncryptionConfiguration", "ServerSideEncryptionConfigurationNotFoundError", _encryption),
    ("public access", "s3:GetBucketPublicAccessBlock", "NoSuchPublicAccessBlockConfiguration", _public_access),
    ("Object Lock", "s3:GetBucketObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", _lock),
    ("unfinished uploads", "s3:GetLifecycleConfiguration", "NoSuchLifecycleConfiguration", _lifecycle),
)
