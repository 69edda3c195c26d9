"""Write objects under Object Lock, so that they cannot be changed or removed before a date, or during a legal hold.

obstore does not support Object Lock, but it signs and sends the default headers of a client. So there is a client for
each pair of a date and a legal hold.
"""

import asyncio
import functools
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from typing import Any

from obstore.store import S3Store

from worker.clients.errors import ServiceUnavailable
from worker.clients.s3_connection import connect_s3
from worker.clients.s3_errors import explain_boto_error
from worker.config.settings import Settings, SettingsError

_CLIENTS = 24  # a client takes 0.7 MB and 5 ms, and has its own connections
_NO_LOCK = {"ObjectLockConfigurationNotFoundError", "InvalidRequest", "NotImplemented", "MethodNotAllowed"}
"""Error codes of S3, and of servers like it, for a bucket without Object Lock."""


class LockingClient:
    """Makes the clients for writes, and caches the most recently used ones.

    Args:
        client: the client without a lock.
        mode: ``GOVERNANCE`` or ``COMPLIANCE``; None to lock nothing.
        days: number of days for which an object is locked, unless its write names another day.
        now: returns the current time.
    """

    def __init__(
        self,
        client: S3Store,
        mode: str | None = None,
        days: int | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client, self._mode, self._days, self._now = client, mode, days, now
        self._get_client = functools.lru_cache(_CLIENTS)(self._make_client)

    def __call__(self, until: date | None = None, *, is_held: bool = False) -> S3Store:
        """Return the client for a write.

        Args:
            until: day on which the lock ends, at 00:00 UTC; a day that is not in the future sets no lock. None for the
                usual number of days.
            is_held: whether the object is under a legal hold.
        """
        today = self._now().astimezone(UTC).date()
        if self._mode is None or self._days is None:
            until = None
        elif until is None:
            until = end_of_lock(today, self._days)
        elif until <= today:
            until = None
        return self._get_client(until, is_held) if until or is_held else self._client

    def without_lock(self) -> "LockingClient":
        """Return a ``LockingClient`` for writes that are never locked, but may be under a legal hold."""
        return LockingClient(self._client)

    def _make_client(self, until: date | None, is_held: bool) -> S3Store:  # noqa: FBT001  # a part of the cache's key
        options: Any = dict(self._client.client_options or {})
        headers = dict(options.get("default_headers", {}))
        if until:
            headers["x-amz-object-lock-mode"] = self._mode
            headers["x-amz-object-lock-retain-until-date"] = f"{until:%Y-%m-%d}T00:00:00.000Z"
        if is_held:
            headers["x-amz-object-lock-legal-hold"] = "ON"
        options["default_headers"] = headers
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


def end_of_lock(today: date, days: int) -> date:
    """Return the first day after a number of whole days."""
    return today + timedelta(days=days + 1)


async def check_restricted_can_be_erased(settings: Settings, bucket: str) -> None:
    """Check that archived images of military IDs and minors will not have a permanent lock.

    They are written without a lock, but the default retention of the bucket would lock them anyway.

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
            f"DOCV_RESTRICTED=archive: the bucket does not report its default retention: {why}"
        ) from None
    except BotoCoreError as error:
        raise ServiceUnavailable(str(explain_boto_error(error, ""))) from None
    mode: str | None = found.get("Rule", {}).get("DefaultRetention", {}).get("Mode")
    return mode
