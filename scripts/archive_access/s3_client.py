"""boto3's client of S3, for what obstore does not know: versions, locks, settings, lists of IDs elsewhere."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from worker.clients.errors import ServiceUnavailable
from worker.config.settings import Settings, SettingsError

DENIED = frozenset({"403", "AccessDenied", "AllAccessDisabled", "Forbidden"})
"""Error codes of S3 that mean "these credentials may not do this"."""
UNKNOWN = frozenset({"MethodNotAllowed", "NotImplemented", "XNotImplemented", "501", "405"})
"""Error codes of S3-compatible servers that do not know a call."""


@dataclass(frozen=True, slots=True)
class S3Archive:
    """The archive in S3.

    Attributes:
        client: boto3's.
        bucket: its name.
        prefix: what stands before each key of ours: nothing, or a text that ends in a slash.
    """

    client: Any
    bucket: str
    prefix: str

    def list_pages(self, call: str, below: str) -> Iterator[dict[str, Any]]:
        """Yield what a listing call answers about the keys below a prefix of ours, page after page."""
        yield from self.client.get_paginator(call).paginate(Bucket=self.bucket, Prefix=self.prefix + below)

    def relative_key(self, key: str) -> str:
        """Return a key of S3 as the archive names it."""
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
    """Return the archive in S3, or None where it is in a folder."""
    url = urlsplit(settings.archive_url)
    if url.scheme != "s3":
        return None
    return S3Archive(make_s3_client(settings.s3_endpoint), url.netloc, prefix_of(settings.archive_url))


def prefix_of(archive_url: str) -> str:
    """Return what stands before each key of an archive in S3: nothing, or a text that ends in a slash."""
    prefix = urlsplit(archive_url).path.strip("/")
    return f"{prefix}/" if prefix else ""


def make_s3_client(endpoint: str | None, at_once: int = 10) -> Any:
    """Return boto3's client of S3; what S3 cannot do just now is tried again.

    Args:
        endpoint: URL of an S3 other than Amazon's.
        at_once: calls that may be under way at once.
    """
    import boto3  # noqa: PLC0415  # takes a fifth of a second that a folder's user need not wait
    import botocore.session  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    session = botocore.session.Session()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_parse_time)
    config = Config(
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=at_once,
        retries={"mode": "standard", "total_max_attempts": 4},
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    return boto3.Session(botocore_session=session).client("s3", endpoint_url=endpoint, config=config)


def _parse_time(text: Any) -> datetime:
    """Return the time that S3 tells; botocore's guessing at it takes most of the time that a listing takes."""
    from botocore.utils import parse_timestamp  # noqa: PLC0415

    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        # A header has it as HTTP does.
        return parse_timestamp(text)  # type: ignore[no-any-return]


def error_code(error: Any) -> str:
    """Return S3's word for what went wrong."""
    return str(error.response.get("Error", {}).get("Code", "no code"))


@contextlib.contextmanager
def require_credentials() -> Iterator[None]:
    """Tell whoever has no credentials where to put them.

    Raises:
        SettingsError: there are none.
    """
    from botocore import exceptions  # noqa: PLC0415

    try:
        yield
    except (exceptions.NoCredentialsError, exceptions.CredentialRetrievalError, exceptions.ProfileNotFound):
        raise SettingsError(
            ("no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or a role",)
        ) from None


@contextlib.contextmanager
def translate_s3_errors(action: str) -> Iterator[None]:
    """Turn what boto3 raises into our errors.

    Args:
        action: what the credentials must be allowed, such as ``s3:ListBucketVersions``.

    Raises:
        SettingsError: there are no credentials.
        ServiceUnavailable: S3 does not do it; the sentence says why.
    """
    from botocore import exceptions  # noqa: PLC0415

    try:
        with require_credentials():
            yield
    except exceptions.ClientError as error:
        code = error_code(error)
        sentence = f"S3 does not do what {action} allows ({code}); give the same command again later"
        if code in DENIED:
            need = f"these credentials need {action} on the archive"
            sentence = f"access is denied: {need}; docs/iam-policy.json has it all"
        raise ServiceUnavailable(sentence) from None
    except exceptions.BotoCoreError as error:
        raise ServiceUnavailable(
            f"S3 does not answer ({type(error).__name__}); see DOCV_S3_ENDPOINT and the network"
        ) from None


def call_or_none(call: Callable[[], Any], action: str, absent: frozenset[str]) -> Any:
    """Return what a call answers, or None where S3 says with one of these codes that there is no such thing.

    Raises:
        ServiceUnavailable: S3 does not do it.
    """
    from botocore.exceptions import ClientError  # noqa: PLC0415

    with translate_s3_errors(action):
        try:
            return call()
        except ClientError as error:
            if error_code(error) in absent | UNKNOWN:
                return None
            raise
