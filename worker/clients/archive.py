"""The client of the bucket, or the folder: opened, and seen to be there."""

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from worker.clients.errors import ServiceUnavailable
from worker.config.settings import Settings, SettingsError


def open_archive(settings: Settings) -> S3Store | Path:
    """Return the client of the bucket, or the folder.

    Raises:
        SettingsError: there are no credentials for the bucket.
    """
    url = urlsplit(settings.archive_url)
    return Path(unquote(url.path)) if url.scheme == "file" else _open_s3_client(settings, url.netloc, url.path)


def _open_s3_client(settings: Settings, bucket: str, prefix: str) -> S3Store:
    # Imported here: it takes a third of a second that a folder's user need not wait.
    from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415

    try:
        credentials = Boto3CredentialProvider()
    except ValueError:
        raise SettingsError(
            ("no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or a role",)
        ) from None
    # A bucket key spares S3 most of its calls to KMS, each of which costs as much as a PUT.
    encryption: Any = {
        "server_side_encryption": "aws:kms",
        "sse_kms_key_id": settings.kms_key_id,
        "sse_bucket_key_enabled": True,
    }
    endpoint: Any = {"endpoint": settings.s3_endpoint, "virtual_hosted_style_request": False}
    return S3Store(
        bucket,
        prefix=prefix.strip("/") or None,
        credential_provider=credentials,
        checksum_algorithm="SHA256",
        client_options={
            "allow_http": (settings.s3_endpoint or "").startswith("http://"),
            # Tells S3-compatible servers to keep the checksum; the SDKs of Amazon send it beside the checksum, too.
            "default_headers": {"x-amz-sdk-checksum-algorithm": "SHA256"},
            "connect_timeout": timedelta(seconds=5),
            "timeout": timedelta(seconds=300),
        },
        retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=60)},
        **(encryption if settings.kms_key_id else {}),
        **(endpoint if settings.s3_endpoint else {}),
    )


async def check_archive(archive: S3Store | Path, settings: Settings) -> None:
    """See that the archive is there and may be read.

    Raises:
        ServiceUnavailable: it is not.
    """
    if isinstance(archive, Path):
        check_folder(archive, "folder of the archive")
        return
    where = settings.archive_url
    try:
        # Asked for by its content, since the answer to a HEAD does not say whether bucket or object is missing. And
        # asked in a thread of Python's: whoever exits right after an answer of obstore's own threads is aborted by
        # them (0.12.1, nine times in ten), and after this answer some commands do exit.
        await asyncio.to_thread(obstore.get, archive, "is-the-bucket-there")
    except (NotFoundError, FileNotFoundError) as error:
        if "NoSuchBucket" in str(error):
            raise ServiceUnavailable(f"{where}: there is no such bucket; make it, or mend DOCV_ARCHIVE_URL") from None
    except (PermissionDeniedError, UnauthenticatedError, PermissionError):
        raise ServiceUnavailable(
            f"{where}: access is denied; these credentials need s3:GetObject, s3:PutObject, s3:PutObjectTagging "
            "and s3:ListBucket there"
        ) from None
    except (BaseError, OSError, ValueError) as error:
        raise ServiceUnavailable(
            f"{where}: the bucket does not answer ({type(error).__name__}); see DOCV_S3_ENDPOINT and the network"
        ) from None


def check_folder(folder: Path, what: str) -> None:
    """See that a folder is there, or can be made, and may be written to.

    Args:
        folder: the folder.
        what: what it is, for the sentence.

    Raises:
        ServiceUnavailable: it is not.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ServiceUnavailable(f"{folder}: the {what} cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ServiceUnavailable(f"{folder}: the {what} cannot be written to")
