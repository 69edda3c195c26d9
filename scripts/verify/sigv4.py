"""Sign a request to S3 that has no body.

botocore signs every kind of request and takes ten times as long, which is most of the cost of two requests per object.
A test compares both. See "Authenticating Requests (AWS Signature Version 4)", Amazon S3 API Reference.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Protocol

_ALGORITHM = "AWS4-HMAC-SHA256"
_NO_BODY = hashlib.sha256(b"").hexdigest()


class AwsCredentials(Protocol):
    """Credentials as botocore freezes them."""

    access_key: str
    secret_key: str
    token: str | None


class SigV4Signer:
    """Signs with the current credentials.

    Args:
        credentials: source of the credentials; those of a role change every few hours.
        region: region of the bucket.
        host: value of the header ``Host``.
        now: the current time.
        service: name of the service in the scope of the signature.
    """

    def __init__(
        self,
        credentials: Callable[[], AwsCredentials],
        region: str,
        host: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        service: str = "s3",
    ) -> None:
        self._credentials, self._region, self._host, self._now = credentials, region, host, now
        self._service = service
        self._derived: tuple[str, str, bytes] = ("", "", b"")

    def headers(self, method: str, path: str, query: str, more: Mapping[str, str]) -> dict[str, str]:
        """Return the headers to send.

        Args:
            method: method of the request.
            path: path, encoded as it is sent.
            query: a word such as ``tagging``, parameters encoded and sorted by name, or empty.
            more: further headers, with names in lower case.
        """
        credentials, time = self._credentials(), f"{self._now():%Y%m%dT%H%M%SZ}"
        headers = {"host": self._host, "x-amz-content-sha256": _NO_BODY, "x-amz-date": time, **more}
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        named = sorted(headers.items())
        names = ";".join(name for name, _ in named)
        lines = "".join(f"{name}:{value}\n" for name, value in named)
        canonical = (
            f"{method}\n{path}\n{query if '=' in query else query and query + '='}\n{lines}\n{names}\n{_NO_BODY}"
        )
        scope = f"{time[:8]}/{self._region}/{self._service}/aws4_request"
        text = f"{_ALGORITHM}\n{time}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = _hmac(self._key(credentials.secret_key, time[:8]), text).hex()
        headers["authorization"] = (
            f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        return headers

    def _key(self, secret: str, day: str) -> bytes:
        """Return the signing key of a day, which is derived once."""
        if self._derived[:2] != (secret, day):
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = _hmac(key, part)
            self._derived = secret, day, key
        return self._derived[2]


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
