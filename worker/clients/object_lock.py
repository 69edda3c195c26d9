"""Object Lock: everything that a worker writes says until when nobody may change or remove it.

obstore knows no Object Lock, but signs and sends headers that a client always sends. So there is a client for each day:
what it writes is kept for so many whole days at least.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from obstore.store import S3Store


class LockingClient:
    """The client to write with, under Object Lock.

    Args:
        client: the one without a lock.
        mode: ``GOVERNANCE`` or ``COMPLIANCE``.
        days: for which an object is kept.
        now: the time.
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
        return S3Store(
            config=self._client.config,
            prefix=self._client.prefix,
            client_options=options,
            retry_config=self._client.retry_config,
            credential_provider=self._client.credential_provider,
        )
