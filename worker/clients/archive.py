"""Open the archive, which is a bucket or a folder, and check that it can be used."""

import asyncio
import os
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store

from worker.clients.disk_errors import explain_disk_error, find_disk_problem
from worker.clients.errors import ServiceUnavailable
from worker.clients.file_system import find_lock_problem
from worker.clients.s3_connection import EXPRESS, S3Endpoint, connect_s3
from worker.clients.s3_errors import S3Problem, explain_obstore_error, explain_page, explain_region, is_page
from worker.config.settings import Settings, SettingsError

NO_ETAG = '"docv-archive"'
"""An ETag that no object has."""
# obstore's threads abort a process that ends right after their answer (0.12.1, nine times in ten).
CLOSE_SECONDS = 0.2
_CHECKSUM = "SHA256"
_NO_PROXY = {"proxy_url": "http://127.0.0.1:9", "proxy_excludes": "*,0.0.0.0/0,::/0"}

_RIGHTS = "s3:GetObject, s3:PutObject, s3:PutObjectTagging and s3:ListBucket there"


def open_archive(settings: Settings, retries: int = 5) -> S3Store | Path:
    """Return the client of the bucket, or the folder.

    Args:
        settings: settings of this process.
        retries: how often each request to S3 is retried.

    Raises:
        SettingsError: there are no credentials for the bucket, or they cannot be used.
        ServiceUnavailable: the service that provides the credentials does not answer.
    """
    url = urlsplit(settings.archive_url)
    return Path(unquote(url.path)) if url.scheme == "file" else _open_s3_client(settings, url.netloc, url.path, retries)


def _open_s3_client(settings: Settings, bucket: str, prefix: str, retries: int) -> S3Store:
    # Imported lazily: it takes a third of a second, and an archive in a folder does not need it.
    from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415

    connection = connect_s3(settings.s3_endpoint, settings.s3_checksum)
    endpoint = connection.resolve(bucket)
    credentials = Boto3CredentialProvider(connection.session)
    credentials.config = {}  # the provider's own config has the session's region, which may be None
    return S3Store(
        bucket,
        prefix=prefix.strip("/") or None,
        credential_provider=credentials,
        client_options=_client_options(settings, endpoint, connection.ca_bundle),
        retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=60)},
        **_place_options(endpoint),
        **_write_options(settings),
    )


def _place_options(endpoint: S3Endpoint) -> Any:
    """Return the options for the endpoint, under names that override environment variables such as ``AWS_REGION``."""
    return {
        "region": endpoint.region,
        "endpoint": endpoint.url,
        "aws_endpoint_url_s3": endpoint.url,
        # The URL already contains the bucket, in its host or in its path.
        "virtual_hosted_style_request": True,
        "s3_express": endpoint.service == EXPRESS,
        "skip_signature": False,
        "unsigned_payload": False,
        "disable_tagging": False,
        "request_payer": False,
    }


def _write_options(settings: Settings) -> Any:
    """Return the options for writes, which workers, commands and probes share."""
    options: dict[str, Any] = {}
    if settings.s3_checksum == "header":
        options["checksum_algorithm"] = _CHECKSUM
    if settings.sse:
        options["server_side_encryption"] = settings.sse
    if settings.kms_key_id:
        options |= {"server_side_encryption": "aws:kms", "sse_kms_key_id": settings.kms_key_id}
        # A bucket key saves S3 most of its calls to KMS, each of which costs as much as a PUT.
        options["sse_bucket_key_enabled"] = True
    return options


def _write_headers(settings: Settings) -> dict[str, str]:
    """Return the headers of each request for which obstore has no option."""
    # This header makes S3-compatible servers keep the checksum. Amazon's SDKs send it with the checksum, too.
    return {"x-amz-sdk-checksum-algorithm": _CHECKSUM} if settings.s3_checksum == "header" else {}


def _client_options(settings: Settings, endpoint: S3Endpoint, ca_bundle: str | None) -> Any:
    options: dict[str, Any] = {
        "default_headers": _write_headers(settings),
        "allow_http": endpoint.url.startswith("http://"),
        "connect_timeout": timedelta(seconds=5),
        "timeout": timedelta(seconds=300),
        # Without an explicit proxy, obstore takes one from the environment, by other rules than boto3.
        **({"proxy_url": endpoint.proxy} if endpoint.proxy else _NO_PROXY),
    }
    if ca_bundle is None:
        return options
    return {**options, "root_certificate": Path(ca_bundle).read_bytes(), "disable_system_certificates": True}


def open_tag_client(settings: Settings) -> Any:
    """Return boto3's client that sets tags after each write, or None if tags are sent with the write."""
    if settings.s3_tags == "with_put" or not settings.archive_url.startswith("s3:"):
        return None
    return connect_s3(settings.s3_endpoint, settings.s3_checksum, settings.concurrency).client


async def check_archive(archive: S3Store | Path, settings: Settings) -> None:
    """Check that the archive exists and can be read.

    Raises:
        ServiceUnavailable: the archive does not exist, or cannot be read.
    """
    if isinstance(archive, Path):
        check_folder(archive, "folder of the archive", "DOCV_ARCHIVE_URL")
        if lock_problem := find_lock_problem(archive):
            raise ServiceUnavailable(f"{archive}: {lock_problem}; use a local disk, or an s3:// archive")
        return
    problem: S3Problem | None = None
    try:
        # This is a GET because the answer to a HEAD does not say whether the bucket or the object is missing.
        found = await obstore.get_async(archive, "is-the-bucket-there")
        problem = explain_page("200") if found.meta["e_tag"] is None else None
    except (NotFoundError, FileNotFoundError) as error:
        if is_page(error) or "NoSuchBucket" in str(error):
            problem = explain_obstore_error(error, _RIGHTS)
    except (BaseError, OSError, ValueError) as error:
        problem = explain_obstore_error(error, _RIGHTS)
    if problem and problem.is_region_missing:
        problem = explain_region(await asyncio.to_thread(_find_region, settings))
    if problem:
        await asyncio.sleep(CLOSE_SECONDS)
        raise ServiceUnavailable(f"{settings.archive_url}: {problem}")


def _find_region(settings: Settings) -> str | None:
    """Return the region of the bucket from a header of S3's redirect, which obstore does not expose."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        with closing(connect_s3(settings.s3_endpoint).client) as client:
            found = client.head_bucket(Bucket=urlsplit(settings.archive_url).netloc)
    except ClientError as error:
        found = error.response
    except (BotoCoreError, RecursionError):
        return None
    region: str | None = found["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
    return region


async def check_conditional_writes(archive: S3Store | Path, settings: Settings) -> None:
    """Check that the store supports conditional writes, because without them workers overwrite each other's objects.

    A store that supports them writes nothing. Other errors are ignored here, because workers pause and retry on them.

    Raises:
        SettingsError: the store ignores or rejects the condition.
    """
    if isinstance(archive, Path):
        return
    try:
        mode: Any = {"e_tag": NO_ETAG}
        await obstore.put_async(archive, "probe/conditional-write", b"", mode=mode, use_multipart=False)
    except (BaseError, OSError, ValueError) as error:
        if "<Code>NotImplemented</Code>" not in str(error):
            return
    await asyncio.sleep(CLOSE_SECONDS)
    why = f"DOCV_ARCHIVE_URL: {settings.archive_url}: this S3 has no conditional writes (If-Match), so one worker "
    raise SettingsError((f"{why}would overwrite what another one wrote; use an S3 that has them (`doctor` tries it)",))


def check_folder(folder: Path, what: str, setting: str) -> None:
    """Check that a folder can be written to, and create it if it does not exist.

    Args:
        folder: the folder.
        what: name of the folder in messages.
        setting: the setting that names the folder.

    Raises:
        ServiceUnavailable: the folder cannot be created or written to.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        why = explain_disk_error(error, setting)
        raise ServiceUnavailable(f"{folder}: the {what} cannot be created: {why}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        why = find_disk_problem(folder, setting) or f"fix its owner and mode, or use another one in {setting}"
        raise ServiceUnavailable(f"{folder}: the {what} cannot be written to: {why}")
