"""Send a notification: one POST of JSON, signed, without following redirects."""

import asyncio
import hashlib
import hmac
import ssl
from importlib.metadata import version

import aiohttp
from pydantic import SecretStr

from tasks.notifications.notification import Notification
from worker.config.proxy import find_proxy
from worker.config.settings import Settings

SIGNATURE_HEADER = "Docv-Signature"
"""``sha256=`` and the HMAC-SHA256 of the body with ``DOCV_NOTIFY_SECRET``, in hexadecimal digits."""
EVENT_HEADER = "Docv-Event"
_SECONDS = 10.0
_PAUSES = (1.0, 4.0)


class NotificationFailed(Exception):  # named for what happened
    """A notification was not delivered. The message contains neither the URL nor the response."""


class NotificationSender:
    """Sends notifications to one URL.

    Args:
        url: URL of the receiver, which may be a secret, as it is for Slack.
        secret: key of the signature; None to send without one.
        pauses: seconds before each further attempt of ``send_with_retries``.
    """

    def __init__(self, url: SecretStr, secret: SecretStr | None = None, pauses: tuple[float, ...] = _PAUSES) -> None:
        self._url, self._secret, self._pauses = url, secret, pauses

    @classmethod
    def of(cls, settings: Settings) -> "NotificationSender | None":
        """Return the sender for the settings, or None if they name no URL."""
        return cls(settings.notify_url, settings.notify_secret) if settings.notify_url else None

    async def send(self, notification: Notification) -> None:
        """Send a notification once.

        Raises:
            NotificationFailed: the receiver did not answer with 2xx.
        """
        try:
            status = await self._post(notification)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # a TimeoutError is an OSError
            raise NotificationFailed(f"the receiver cannot be reached: {type(error).__name__}") from None
        if not 200 <= status < 300:  # noqa: PLR2004  # the range of success
            raise NotificationFailed(f"the receiver answered with status {status}")

    async def send_with_retries(self, notification: Notification) -> None:
        """Send a notification, in at most three attempts by default.

        Raises:
            NotificationFailed: the receiver did not answer with 2xx.
        """
        for pause in self._pauses:
            try:
                return await self.send(notification)
            except NotificationFailed:
                await asyncio.sleep(pause)
        return await self.send(notification)

    async def _post(self, notification: Notification) -> int:
        url, body = self._url.get_secret_value(), notification.as_json()
        proxy = find_proxy(url, None)
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout) as http,
            http.post(
                url,
                data=body,
                headers=self._headers(notification.event, body),
                allow_redirects=False,
                proxy=proxy.get_secret_value() if proxy else None,
                ssl=ssl.create_default_context(),
            ) as response,
        ):
            return response.status

    def _headers(self, event: str, body: bytes) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"docv-archive/{version('docv-archive')}",
            EVENT_HEADER: event,
        }
        if self._secret:
            digest = hmac.new(self._secret.get_secret_value().encode(), body, hashlib.sha256).hexdigest()
            headers[SIGNATURE_HEADER] = f"sha256={digest}"
        return headers
