"""boto3's client of S3, for what obstore lacks: versions, locks, settings of buckets, lists of IDs in other buckets."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tasks.telemetry.tracing import s3_request
from worker.clients.errors import ServiceUnavailable
from worker.clients.s3_connection import S3Endpoint, connect_s3
from worker.clients.s3_errors import explain_boto_error
from worker.config.settings import Settings

UNKNOWN = frozenset({"MethodNotAllowed", "NotImplemented", "XNotImplemented", "501", "405"})
"""Error codes of S3-compatible servers that do not know a call."""


@dataclass(frozen=True, slots=True)
class S3Archive:
    """The archive in S3.

    Attributes:
        client: boto3's.
        endpoint: where and how every client reaches its objects.
        bucket: its name.
        prefix: prefix of each key of the archive: empty, or ends in a slash.
    """

    client: Any
    endpoint: S3Endpoint
    bucket: str
    prefix: str

    def list_pages(self, call: str, below: str) -> Iterator[dict[str, Any]]:
        """Yield the pages of a listing call for the keys below a prefix of the archive."""
        pages = iter(self.client.get_paginator(call).paginate(Bucket=self.bucket, Prefix=self.prefix + below))
        operation, is_last = self.client.meta.method_to_api_mapping[call], False
        while not is_last:
            with s3_request(operation):
                page = next(pages, None)
            if page is None:
                return
            # After the last page no request is sent, so there must be no span.
            is_last = not page.get("IsTruncated")
            yield page

    def relative_key(self, key: str) -> str:
        """Return an S3 key relative to the archive's prefix."""
        return key.removeprefix(self.prefix)

    def has_object_lock(self) -> bool:
        """Return whether the bucket has Object Lock; may raise ServiceUnavailable."""
        answer = call_or_none(
            lambda: self.client.get_object_lock_configuration(Bucket=self.bucket),
            "s3:GetBucketObjectLockConfiguration",
            frozenset({"ObjectLockConfigurationNotFoundError", "InvalidRequest"}),
        )
        return answer is not None


def open_s3_archive(settings: Settings) -> S3Archive | None:
    """Return the archive in S3, or None if it is in a folder; raises as ``connect_s3``."""
    url = urlsplit(settings.archive_url)
    if url.scheme != "s3":
        return None
    connection = connect_s3(settings.s3_endpoint, settings.s3_checksum)
    endpoint = connection.resolve(url.netloc)
    return S3Archive(connection.client, endpoint, url.netloc, prefix_of(settings.archive_url))


def prefix_of(archive_url: str) -> str:
    """Return the prefix of each key of an archive in S3: empty, or ends in a slash."""
    prefix = urlsplit(archive_url).path.strip("/")
    return f"{prefix}/" if prefix else ""


def error_code(error: Any) -> str:
    """Return S3's error code."""
    return str(error.response.get("Error", {}).get("Code", "no code"))


@contextlib.contextmanager
def translate_s3_errors(action: str) -> Iterator[None]:
    """Translate errors of boto3.

    Args:
        action: permission that the call needs, such as ``s3:ListBucketVersions``.

    Raises:
        ServiceUnavailable: S3 refuses it or does not answer; the sentence says why.
    """
    from botocore import exceptions  # noqa: PLC0415

    try:
        yield
    except (exceptions.ClientError, exceptions.BotoCoreError, RecursionError) as error:
        raise ServiceUnavailable(str(explain_boto_error(error, action))) from None


def call_or_none(call: Callable[[], Any], action: str, absent: frozenset[str]) -> Any:
    """Return the answer of a call, or None if S3 answers with one of these codes for something that does not exist.

    Raises:
        ServiceUnavailable: S3 refuses it or does not answer.
    """
    from botocore.exceptions import ClientError  # noqa: PLC0415

    with translate_s3_errors(action):
        try:
            return call()
        except ClientError as error:
            if error_code(error) in absent | UNKNOWN:
                return None
            raise
