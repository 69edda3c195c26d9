"""A list of IDs that lies in S3, brought here whole: so a broken connection is mended before reading begins."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from scripts.archive_access.s3_client import DENIED, error_code, make_s3_client, require_credentials
from scripts.ids.errors import BadSource
from scripts.ids.scratch import translate_disk_errors
from worker.clients.errors import ServiceUnavailable

_SCHEME = "s3://"
_DENIED = DENIED | {"InvalidAccessKeyId", "SignatureDoesNotMatch"}
_MISSING = {"404", "NoSuchBucket", "NoSuchKey", "NotFound"}


def is_s3(source: str) -> bool:
    """Whether a source is an object in S3."""
    return source.startswith(_SCHEME)


def download(url: str, endpoint: str | None, file: IO[bytes], folder: Path | None) -> None:
    """Write an object into a file, and go to the file's beginning.

    Args:
        endpoint: URL of an S3 other than Amazon's.
        folder: where the file is.

    Raises:
        BadSource: there is no such bucket or object, or access is denied.
        SettingsError: there are no credentials.
        ServiceUnavailable: S3 does not answer as it must, or the disk has no room.
    """
    bucket, _, key = url.removeprefix(_SCHEME).partition("/")
    if not bucket or not key:
        raise BadSource("expected is s3://bucket/key")
    with _translated(endpoint), translate_disk_errors(folder), closing(make_s3_client(endpoint)) as client:
        try:
            client.download_fileobj(bucket, key, file)
        except client.exceptions.ClientError as error:
            raise _refusal(client, bucket, error) from None
        file.seek(0)


def _refusal(client: Any, bucket: str, error: Any) -> Exception:
    """Return what it means that S3 refused: the answer to its first question, a HEAD, has no text that says it."""
    code = error_code(error)
    if code in _MISSING:
        return BadSource(f"there is no such {'object in the bucket' if _is_there(client, bucket) else 'bucket'}")
    if code in _DENIED:
        return BadSource("access is denied; these credentials need s3:GetObject there, and s3:ListBucket on the bucket")
    return ServiceUnavailable(f"S3 does not do what it is asked ({code}); give the same command again later")


def _is_there(client: Any, bucket: str) -> bool:
    try:
        client.head_bucket(Bucket=bucket)
    except client.exceptions.ClientError as error:
        return error_code(error) not in _MISSING
    return True


@contextmanager
def _translated(endpoint: str | None) -> Iterator[None]:
    from boto3.exceptions import Boto3Error  # noqa: PLC0415  # takes a fifth of a second that whoever reads a file need not wait
    from botocore import exceptions  # noqa: PLC0415

    try:
        with require_credentials():
            yield
    except exceptions.ParamValidationError:
        raise BadSource("no bucket can be called so; expected is s3://bucket/key") from None
    except (exceptions.BotoCoreError, exceptions.ClientError, Boto3Error) as error:
        where = urlsplit(endpoint).hostname if endpoint else "Amazon S3"
        raise ServiceUnavailable(
            f"{where} does not answer ({type(error).__name__}); see DOCV_S3_ENDPOINT and the network"
        ) from None
