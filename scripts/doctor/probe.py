"""Write a probe object with the client, headers and settings of a worker, and check what the store does."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from scripts.archive_access.s3_client import S3Archive, error_code
from scripts.doctor.finding import Finding, fine, warning, wrong
from tasks.errors import ManifestChanged, StorageError
from tasks.storage.bucket import AlreadyExists, Bucket, ObjectAttributes
from tasks.storage.open_bucket import open_bucket
from worker.clients.archive import NO_ETAG, open_archive, open_tag_client
from worker.clients.s3_errors import DENIED, S3Problem, explain_boto_error, explain_obstore_error, is_answer
from worker.config.settings import Settings

_DATA = b"probe"
_SHA256 = hashlib.sha256(_DATA).hexdigest()
_RETRIES = 1
# obstore's threads abort a process that exits immediately after their answer (0.12.1).
_CLOSE_SECONDS = 0.2
_WAYS: tuple[dict[str, Any], ...] = (
    {"s3_tags": "after_put"},
    {"s3_checksum": "off"},
    {"s3_tags": "after_put", "s3_checksum": "off"},
)
"""Settings that may help if an object cannot be written, the smallest change first."""
_CONDITIONAL = "use an S3 with conditional writes (If-None-Match and If-Match): without them workers refuse to start"


class StoreUnreachable(Exception):
    """The store did not answer.

    Attributes:
        problem: the reason.
    """

    def __init__(self, problem: S3Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass
class ProbeObjects:
    """Objects below ``probe/``, written by the bucket of a worker.

    Attributes:
        archive: the archive through boto3, to read back what the bucket wrote.
        settings: settings of the workers.
        versions: written objects, to be removed: S3 keys with version IDs, or None in a bucket without versions.
    """

    archive: S3Archive
    settings: Settings
    versions: set[tuple[str, str | None]] = field(default_factory=set)

    @property
    def attributes(self) -> ObjectAttributes:
        """Return the attributes of the probe, similar to those of a document."""
        tags = {**self.settings.tags, "environment": self.settings.environment, "document-kind": "probe"}
        return ObjectAttributes("application/octet-stream", {"document-kind": "probe"}, {**tags, "source": "probe"})

    def open_bucket(self, **changes: Any) -> Bucket:
        """Return the bucket as a worker opens it, but without Object Lock, so that the probe can be removed."""
        settings = self.settings.model_copy(update=changes)
        archive = open_archive(settings, _RETRIES)
        return open_bucket(archive, settings.storage_class, tag_client=open_tag_client(settings))

    async def create(self, bucket: Bucket, key: str) -> S3Problem | None:
        """Write an object unless it exists; return the problem if S3 refuses.

        Raises:
            AlreadyExists: it exists.
            StoreUnreachable: S3 does not answer.
        """
        try:
            await bucket.create(key, _DATA, self.attributes)
        except StorageError as error:
            key_right = ", and kms:GenerateDataKey on the key of DOCV_KMS_KEY_ID" if self.settings.kms_key_id else ""
            return _problem_of(error, f"s3:PutObject and s3:PutObjectTagging{key_right}")
        finally:
            self.head(key)
        return None

    def get_tags(self, key: str) -> dict[str, str]:
        """Return the tags of an object."""
        client, name = self.archive.client, self.archive.prefix + key
        found = client.get_object_tagging(Bucket=self.archive.bucket, Key=name)["TagSet"]
        return {each["Key"]: each["Value"] for each in found}

    def head(self, key: str) -> dict[str, Any]:
        """Return the response to a HEAD request, empty if the object does not exist; record its version for removal."""
        where = {"Bucket": self.archive.bucket, "Key": self.archive.prefix + key}
        try:
            found: dict[str, Any] = self.archive.client.head_object(**where, ChecksumMode="ENABLED")
        except ClientError:
            return {}
        self.versions.add((where["Key"], found.get("VersionId")))
        return found


def _problem_of(error: StorageError, action: str) -> S3Problem:
    cause = error.__context__ if isinstance(error.__context__, Exception) else error
    explain = explain_boto_error if isinstance(cause, ClientError | BotoCoreError) else explain_obstore_error
    problem = explain(cause, action)
    if is_answer(cause):
        return problem
    raise StoreUnreachable(problem)


async def probe(archive: S3Archive, settings: Settings) -> AsyncIterator[Finding]:
    """Yield the findings of writing, reading, conditional writes, attributes and removal of a probe object.

    Raises:
        StoreUnreachable: the store stopped answering.
    """
    objects, key = ProbeObjects(archive, settings), f"probe/{uuid4()}"
    bucket = objects.open_bucket()
    try:
        problem = await objects.create(bucket, key)
        if problem is None:
            yield fine("write", "works")
            for examine in (_check_read, _check_create_only, _check_replace_only):
                yield await examine(objects, bucket, key)
            for finding in _check_attributes(settings, objects.head(key)):
                yield finding
            # Last, since a store that ignores `?tagging` may store the tags as the object's new content.
            yield await _check_tags(objects, bucket, key)
        else:
            yield await _explain_refusal(objects, problem)
    finally:
        removed = _remove(objects)
        await asyncio.sleep(_CLOSE_SECONDS)
    if removed:
        yield removed


async def _explain_refusal(objects: ProbeObjects, problem: S3Problem) -> Finding:
    """Return which settings make the failed write work, by trying them."""
    for changes in _WAYS:
        key = f"probe/{uuid4()}"
        bucket = objects.open_bucket(**changes)
        if await objects.create(bucket, key) is None and await bucket.digest(key) == _SHA256:
            named = " and ".join(f"DOCV_{name.upper()}={value}" for name, value in changes.items())
            return wrong("write", f"{problem.message}, but S3 accepts the object with {named}", f"set {named}")
    return refused("write", problem)


def refused(what: str, problem: S3Problem) -> Finding:
    """Return the finding that S3 refuses a request."""
    return wrong(what, problem.message, problem.fix, unreachable=problem.unreachable)


async def _check_read(_: ProbeObjects, bucket: Bucket, key: str) -> Finding:
    try:
        digest = await bucket.digest(key)
    except StorageError as error:
        return refused("read", _problem_of(error, "s3:GetObject"))
    if digest == _SHA256:
        return fine("read", "works")
    return wrong("read", "an object was read back with different bytes", "use another S3: this one damages objects")


async def _check_create_only(objects: ProbeObjects, bucket: Bucket, key: str) -> Finding:
    what = "create only"
    try:
        problem = await objects.create(bucket, key)
    except AlreadyExists:
        return fine(what, "an existing object is not overwritten")
    if problem is None:
        return wrong(what, "an existing object was overwritten", _CONDITIONAL)
    return refused(what, problem)


async def _check_replace_only(objects: ProbeObjects, bucket: Bucket, key: str) -> Finding:
    what = "compare-and-swap"
    try:
        await bucket.replace(key, _DATA, objects.attributes, NO_ETAG)
    except ManifestChanged:
        return fine(what, "a changed object is not overwritten")
    except StorageError as error:
        return refused(what, _problem_of(error, "s3:PutObject"))
    objects.head(key)
    return wrong(what, "a changed object was overwritten", _CONDITIONAL)


async def _check_tags(objects: ProbeObjects, bucket: Bucket, key: str) -> Finding:
    wanted = objects.attributes.tags
    try:
        if objects.get_tags(key) == wanted:
            return fine("tags", "kept")
        if objects.settings.s3_tags == "with_put":
            after = objects.open_bucket(s3_tags="after_put")
            await after.put_tags(key, objects.attributes)
            if objects.get_tags(key) == wanted and await bucket.digest(key) == _SHA256:
                return wrong("tags", "S3 drops tags that come with an object", "set DOCV_S3_TAGS=after_put")
    except ClientError as error:
        if error_code(error) in DENIED:
            return fine("tags", "accepted; these credentials may not read them back (s3:GetObjectTagging)")
    except StorageError:
        pass  # the other way fails, too
    return wrong(
        "tags", "S3 does not store them", "use an S3 with object tags, since every object in the archive has tags"
    )


def _check_attributes(settings: Settings, head: dict[str, Any]) -> Iterator[Finding]:
    """Yield a finding if metadata, checksum or encryption of the object are missing."""
    if head.get("Metadata") != {"document-kind": "probe"}:
        yield wrong(
            "metadata", "S3 does not store it", "check the proxy, or use an S3 that keeps metadata (x-amz-meta-)"
        )
    if settings.s3_checksum == "header" and "ChecksumSHA256" not in head:
        yield warning("checksum", "S3 does not store it", "`verify --checksums-only` reads each object instead")
    if settings.kms_key_id and not head.get("ServerSideEncryption", "").startswith("aws:kms"):
        yield wrong("KMS", "S3 does not encrypt with the key of DOCV_KMS_KEY_ID", "use an S3 with SSE-KMS")


def _remove(objects: ProbeObjects) -> Finding | None:
    """Remove the probe objects, with their versions."""
    what, action = "probe removed", "s3:DeleteObject"
    for key, version in objects.versions:
        named = {"VersionId": version} if version else {}
        action = "s3:DeleteObjectVersion" if version else action
        try:
            objects.archive.client.delete_object(Bucket=objects.archive.bucket, Key=key, **named)
        except ClientError:
            # Workers never remove objects, so their credentials need no permission to do so.
            return warning(what, "the probe object stays below probe/", f"only credentials with {action} can remove it")
    return fine(what, "works") if objects.versions else None
