"""Check that the archive's bucket can be read and written, and that its settings suit an archive."""

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import SecretStr

from scripts.archive_access.s3_client import UNKNOWN, S3Archive, error_code
from scripts.doctor.finding import Finding, State, fine, warning, wrong
from scripts.doctor.probe import StoreUnreachable, probe, refused
from worker.clients.s3_errors import DENIED, S3Problem, explain_boto_error
from worker.config.proxy import proxy_address
from worker.config.settings import Settings

_MISSING = {"404", "NoSuchBucket", "NotFound"}


def examine(archive: S3Archive, settings: Settings) -> Iterator[Finding]:
    """Yield the findings about the bucket."""
    reached = _check_bucket(archive)
    yield reached
    if reached.unreachable:
        return
    yield fine("S3 endpoint", f"{_describe(archive)}, signed for {archive.endpoint.region}")
    if reached.state is State.WRONG:
        return
    try:
        yield from asyncio.run(_probe(archive, settings))
        for look, action, code_if_absent, absent in _CHECKS:
            found = _check_setting(archive, look, action, code_if_absent, absent)
            if found is _UNLOCKED and settings.lock_mode:
                found = wrong(
                    "Object Lock",
                    f"off, but DOCV_LOCK_MODE={settings.lock_mode} needs it: nothing can be written",
                    "turn Object Lock on, or remove DOCV_LOCK_MODE and DOCV_LOCK_DAYS",
                )
            yield found
    except BotoCoreError as error:
        yield _unreachable(archive, explain_boto_error(error, ""))


def _check_bucket(archive: S3Archive) -> Finding:
    try:
        headers = archive.client.head_bucket(Bucket=archive.bucket)["ResponseMetadata"]["HTTPHeaders"]
    except ClientError as error:
        code = error_code(error)
        if code in _MISSING:
            message, fix = f"there is no bucket {archive.bucket}", "create it, or fix DOCV_ARCHIVE_URL"
            return wrong("bucket", message, fix, unreachable=True)
        return refused("bucket", explain_boto_error(_with_code(archive, error), "s3:ListBucket on it"))
    except (BotoCoreError, RecursionError) as error:
        return _unreachable(archive, explain_boto_error(error, ""))
    return check_region(archive.bucket, headers.get("x-amz-bucket-region"), archive.client.meta)


def _with_code(archive: S3Archive, error: ClientError) -> ClientError:
    """Return the error of a listing, since that of a HEAD has no S3 error code; return ``error`` if listing works."""
    try:
        archive.client.list_objects_v2(Bucket=archive.bucket, Prefix=archive.prefix, MaxKeys=1)
    except ClientError as listing:
        return listing
    return error


def _unreachable(archive: S3Archive, problem: S3Problem) -> Finding:
    return refused("bucket", replace(problem, message=f"{problem.message} at {_describe(archive)}"))


def _describe(archive: S3Archive) -> str:
    """Return the host of the bucket, and the proxy to it."""
    host, proxy = urlsplit(archive.endpoint.url).netloc, archive.endpoint.proxy
    if proxy is None:
        return host
    return "{} through the proxy {}:{}".format(host, *proxy_address(SecretStr(proxy)))


def check_region(bucket: str, reported: str | None, used: Any) -> Finding:
    """Return whether the bucket is in the region that requests are signed for.

    Args:
        bucket: name of the bucket.
        reported: its region as the server reports it, or None.
        used: metadata of the boto3 client. boto3 follows redirects to another region; obstore, which writes, does not.
    """
    if reported == used.region_name:
        return fine("bucket", f"{bucket}, {reported}")
    if reported is None and (ignored := os.environ.get("AWS_REGION")) not in {None, used.region_name}:
        message = f"{bucket}, but requests are signed for {used.region_name}: AWS_REGION is ignored"
        return warning("bucket", message, f"set AWS_DEFAULT_REGION={ignored}, if the bucket is in that region")
    if reported is None:
        return fine("bucket", f"{bucket}, this server reports no region")
    message = f"{bucket} is in {reported}, but requests are signed for {used.region_name}"
    fix = f"set AWS_DEFAULT_REGION={reported}"
    amazon = (urlsplit(used.endpoint_url).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
    return wrong("bucket", message, fix) if amazon else warning("bucket", message, fix)


async def _probe(archive: S3Archive, settings: Settings) -> list[Finding]:
    findings = []
    try:
        async for finding in probe(archive, settings):
            findings.append(finding)  # noqa: PERF401  # keeps the findings before an error
    except StoreUnreachable as error:
        findings.append(_unreachable(archive, error.problem))
    return findings


def _check_setting(
    archive: S3Archive,
    look: Callable[[Any, str], Finding | None],
    action: str,
    code_if_absent: str | None,
    absent: Finding,
) -> Finding:
    """Return the finding of ``look``, or ``absent`` if it finds nothing or S3 answers ``code_if_absent``."""
    try:
        return look(archive.client, archive.bucket) or absent
    except ClientError as error:
        code = error_code(error)
    if code == code_if_absent:
        return absent
    if code in DENIED:
        return warning(absent.subject, "these credentials may not read this setting", f"allow {action} for this check")
    if code in UNKNOWN:
        return warning(absent.subject, "this server does not report this setting")
    return warning(absent.subject, f"S3 answers {code}")


def _check_versioning(client: Any, bucket: str) -> Finding | None:
    enabled = client.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled"
    return fine("versioning", "on") if enabled else None


def _check_encryption(client: Any, bucket: str) -> Finding | None:
    rules = client.get_bucket_encryption(Bucket=bucket).get("ServerSideEncryptionConfiguration", {}).get("Rules", ())
    for default in (rule.get("ApplyServerSideEncryptionByDefault") for rule in rules):
        if default:
            return fine("encryption", default["SSEAlgorithm"])
    return None


def _check_public_access(client: Any, bucket: str) -> Finding | None:
    blocks = client.get_public_access_block(Bucket=bucket).get("PublicAccessBlockConfiguration")
    return fine("public access", "blocked") if blocks and all(blocks.values()) else None


def _check_lock(client: Any, bucket: str) -> Finding | None:
    found = client.get_object_lock_configuration(Bucket=bucket).get("ObjectLockConfiguration", {})
    if found.get("ObjectLockEnabled") != "Enabled":
        return None
    rule, kept = found.get("Rule", {}).get("DefaultRetention"), "none"
    if rule:
        kept = f"{rule['Mode']}, " + (f"{rule['Days']} days" if rule.get("Days") else f"{rule.get('Years')} years")
    return fine("Object Lock", f"on; default retention {kept}")


def _check_lifecycle(client: Any, bucket: str) -> Finding | None:
    rules = client.get_bucket_lifecycle_configuration(Bucket=bucket).get("Rules", ())
    if any(rule.get("AbortIncompleteMultipartUpload") and rule.get("Status") == "Enabled" for rule in rules):
        return fine("unfinished uploads", "a lifecycle rule removes them")
    return None


_UNLOCKED = fine("Object Lock", "off; legal hold and retention need it")
_CHECKS = (
    (
        _check_versioning,
        "s3:GetBucketVersioning",
        None,
        warning("versioning", "off", "turn it on, so that objects removed by mistake can be restored"),
    ),
    (
        _check_encryption,
        "s3:GetEncryptionConfiguration",
        "ServerSideEncryptionConfigurationNotFoundError",
        warning("encryption", "none by default", "turn on the bucket's default encryption"),
    ),
    (
        _check_public_access,
        "s3:GetBucketPublicAccessBlock",
        "NoSuchPublicAccessBlockConfiguration",
        wrong("public access", "not blocked", "turn on all four settings of Block Public Access"),
    ),
    (_check_lock, "s3:GetBucketObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", _UNLOCKED),
    (
        _check_lifecycle,
        "s3:GetLifecycleConfiguration",
        "NoSuchLifecycleConfiguration",
        warning(
            "unfinished uploads",
            "never removed",
            "add a lifecycle rule with AbortIncompleteMultipartUpload, such as after 7 days",
        ),
    ),
)
