"""Download a list of IDs from S3 before it is read, so that a broken connection can be retried."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from scripts.archive_access.s3_client import error_code
from scripts.ids.errors import BadSource
from scripts.ids.scratch import translate_disk_errors
from worker.clients.errors import ServiceUnavailable
from worker.clients.s3_connection import connect_s3
from worker.clients.s3_errors import explain_boto_error

_SCHEME = "s3://"
_RIGHTS = "s3:GetObject there, and s3:ListBucket on the bucket"
_MISSING = {"404", "NoSuchBucket", "NoSuchKey", "NotFound"}


def is_s3(source: str) -> bool:
    """Return whether a source is an object in S3."""
    return source.startswith(_SCHEME)


def download(url: str, endpoint: str | None, file: IO[bytes], folder: Path | None) -> None:
    """Write an object to a file, and seek to its beginning.

    Args:
        endpoint: URL of an S3 other than Amazon's.
        folder: the folder of the file.

    Raises:
        BadSource: there is no such bucket or object, or access is denied.
        SettingsError: there are no credentials.
        ServiceUnavailable: S3 fails, or the disk is full.
    """
    bucket, _, key = url.removeprefix(_SCHEME).partition("/")
    if not bucket or not key:
        raise BadSource("expected s3://bucket/key")
    with _translated(endpoint), translate_disk_errors(folder), closing(connect_s3(endpoint).client) as client:
        try:
            client.download_fileobj(bucket, key, file)
        except client.exceptions.ClientError as error:
            raise _refusal(client, bucket, key, error) from None
        file.seek(0)


def _refusal(client: Any, bucket: str, key: str, error: Any) -> Exception:
    """Return the error of a refusal; a GET finds its reason, since the answer to the first HEAD has no body."""
    if error_code(error) in _MISSING:
        return BadSource(f"there is no such {'object in the bucket' if _is_there(client, bucket) else 'bucket'}")
    try:
        client.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")
    except client.exceptions.ClientError as refusal:
        error = refusal
    problem = explain_boto_error(error, _RIGHTS)
    return ServiceUnavailable(str(problem)) if problem.unreachable else BadSource(str(problem))


def _is_there(client: Any, bucket: str) -> bool:
    try:
        client.head_bucket(Bucket=bucket)
    except client.exceptions.ClientError as error:
        return error_code(error) not in _MISSING
    return True


@contextmanager
def _translated(endpoint: str | None) -> Iterator[None]:
    from boto3.exceptions import Boto3Error  # noqa: PLC0415  # takes 0.2 s, and files do not need it
    from botocore import exceptions  # noqa: PLC0415

    try:
        yield
    except exceptions.ParamValidationError:
        raise BadSource("it is not a valid bucket name; expected s3://bucket/key") from None
    except (exceptions.BotoCoreError, exceptions.ClientError, Boto3Error) as error:
        where = urlsplit(endpoint).hostname if endpoint else "Amazon S3"
        raise ServiceUnavailable(
            f"{where} does not answer ({type(error).__name__}); check DOCV_S3_ENDPOINT and the network"
        ) from None
