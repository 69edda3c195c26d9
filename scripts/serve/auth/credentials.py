"""Compare the credentials of a header with secrets, without a hint about the secrets."""

import base64
import binascii
import contextlib
import hashlib
import hmac
from collections.abc import Iterable

from aiohttp import web
from pydantic import SecretStr

from scripts.serve.http.responses import HTTPError

_NO_CREDENTIALS = b""


class CredentialCheck:
    """Checks credentials against secrets; all are valid at once, so that they can be replaced one by one.

    Args:
        secrets: Bearer tokens, or ``user:password`` for Basic; without any, every request is refused.
        schemes: the value of ``WWW-Authenticate``.
    """

    def __init__(self, secrets: Iterable[SecretStr], schemes: str) -> None:
        self._digests = [digest(normalize_secret(secret.get_secret_value())) for secret in secrets]
        self._schemes = schemes

    def authenticate(self, request: web.BaseRequest) -> str:
        """Return the hash of the caller's secret.

        Raises:
            HTTPError: the secret is missing or not valid; the response is the same in both cases.
        """
        found = digest(read_credentials(request))
        # Compared with every secret, so that the time does not depend on which one matches.
        equal = [hmac.compare_digest(found, known) for known in self._digests]
        if not any(equal):
            raise HTTPError(401, "send a valid secret in the Authorization header", {"WWW-Authenticate": self._schemes})
        return found.hex()


def normalize_secret(secret: str) -> bytes:
    """Return a secret as ``read_credentials`` does, with its scheme, so that a pair does not match a token."""
    scheme = b"basic " if ":" in secret else b"bearer "
    return scheme + secret.encode()


def read_credentials(request: web.BaseRequest) -> bytes:
    """Return scheme and credentials of the only Authorization header; empty if there is not exactly one."""
    values = request.headers.getall("Authorization", [])
    if len(values) != 1:
        return _NO_CREDENTIALS
    scheme, _, credentials = values[0].partition(" ")
    # A header may hold bytes that are not UTF-8; aiohttp keeps them as surrogates.
    given = credentials.strip(" ").encode(errors="surrogateescape")
    match scheme.lower():
        case "bearer":
            return b"bearer " + given
        case "basic":
            with contextlib.suppress(binascii.Error):
                return b"basic " + base64.b64decode(given, validate=True)
    return _NO_CREDENTIALS


def digest(text: bytes) -> bytes:
    """Return a hash, so that compared secrets have the same length."""
    return hashlib.sha256(text).digest()
