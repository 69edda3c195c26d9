"""Write objects under Object Lock, so that they cannot be changed or removed before a date.

obstore does not support Object Lock, but it signs and sends the default headers of a client. There is a client for each
day, and its objects are locked for at least the configured number of whole days.
"""

import asyncio
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from obstore.store import S3Store

from worker.clients.errors import ServiceUnavailable
from worker.clients.s3_connection import connect_s3
from worker.clients.s3_errors import explain_boto_error
from worker.config.settings import Settings, SettingsError

_NO_LOCK = {"ObjectLockConfigurationNotFoundError", "InvalidRequest", "NotImplemented", "MethodNotAllowed"}
"""Error codes of S3, and of servers like it, for a bucket without Object Lock."""


class LockingClient:
    """Makes the clients for writes under Object Lock.

    Args:
        client: the client without a lock.
        mode: ``GOVERNANCE`` or ``COMPLIANCE``.
        days: number of days for which an object is locked.
        now: returns the current time.
    """

    def __init__(
        self, client: S3Store, mode: str, days: int, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._client, self._mode, self._days, self._now = client, mode, days, now
        self._retain_until = ""
        self._today = client

    def __call__(self) -> S3Store:
        """Return today's client."""
        until = f"{self._now().date() + timedelta(days=self._days + 1):%Y-%m-%d}T00:00:00.000Z"
        if until != self._retain_until:
            self._today, self._retain_until = self._make_client(until), until
        return self._today

    def _make_client(self, until: str) -> S3Store:
        options: Any = dict(self._client.client_options or {})
        options["default_headers"] = {
            **options.get("default_headers", {}),
            "x-amz-object-lock-mode": self._mode,
            "x-amz-object-lock-retain-until-date": until,
        }
        # obstore 0.12.1 returns this key with a name that it does not accept.
        config: Any = dict(self._client.config)
        config["aws_endpoint_url_s3"] = config.pop("endpoint_url_s3")
        return S3Store(
            config=config,
            prefix=self._client.prefix,
            client_options=options,
            retry_config=self._client.retry_config,
            credential_provider=self._client.credential_provider,
        )


async def check_restricted_can_be_erased(settings: Settings, bucket: str) -> None:
    """Check that archived images of military IDs and minors will not have a permanent lock.

    They are written without a lock, but the default retention of the bucket would lock them all the same.

    Raises:
        SettingsError: the bucket locks everything in mode COMPLIANCE.
        ServiceUnavailable: the default retention of the bucket cannot be read.
    """
    if settings.restricted == "withhold":
        return
    if await asyncio.to_thread(_default_retention, settings, bucket) == "COMPLIANCE":
        why = (
            "DOCV_RESTRICTED=archive: the bucket's default retention is COMPLIANCE, so that images of military IDs and "
            "minors could not be erased; take the default off (DOCV_LOCK_MODE locks all else), or set withhold"
        )
        raise SettingsError((why,))


def _default_retention(settings: Settings, bucket: str) -> str | None:
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        with closing(connect_s3(settings.s3_endpoint).client) as client:
            found = client.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "no code")
        if code in _NO_LOCK:
            return None
        why = explain_boto_error(error, "s3:GetBucketObjectLockConfiguration")
        raise ServiceUnavailable(
            f"DOCV_RESTRICTED=archive: the bucket does not tell its default retention: {why}"
        ) from None
    except BotoCoreError as error:
        raise ServiceUnavailable(str(explain_boto_error(error, ""))) from None
    mode: str | None = found.get("Rule", {}).get("DefaultRetention", {}).get("Mode")
    return mode
