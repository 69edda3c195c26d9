"""Who may come in: what a header shows is compared with secrets, and the answer tells nothing about them."""

import base64
import binascii
import contextlib
import hashlib
import hmac
from collections.abc import Iterable

from aiohttp import web
from pydantic import SecretStr

from scripts.serve.http.responses import HTTPError

_NOBODY = b""


class CredentialCheck:
    """The secrets of one door; all of them are good at once, so that they can be exchanged one by one.

    Args:
        secrets: Bearer tokens, or ``user:password`` for Basic; where there are none nobody comes in.
        schemes: what ``WWW-Authenticate`` says of the door.
    """

    def __init__(self, secrets: Iterable[SecretStr], schemes: str) -> None:
        self._digests = [digest(normalize_secret(secret.get_secret_value())) for secret in secrets]
        self._schemes = schemes

    def authenticate(self, request: web.BaseRequest) -> str:
        """Return what the caller is known by: the hash of what was shown.

        Raises:
            HTTPError: nothing was shown, or nothing of ours; the answer is one and the same.
        """
        found = digest(read_credentials(request))
        # Compared with each of them, whatever came of the others: how long it takes tells nothing.
        equal = [hmac.compare_digest(found, known) for known in self._digests]
        if not any(equal):
            raise HTTPError(401, "show a valid secret in Authorization", {"WWW-Authenticate": self._schemes})
        return found.hex()


def normalize_secret(secret: str) -> bytes:
    """Return a secret as ``read_credentials`` returns it: the scheme is a part of it, so a pair is no token."""
    scheme = b"basic " if ":" in secret else b"bearer "
    return scheme + secret.encode()


def read_credentials(request: web.BaseRequest) -> bytes:
    """Return scheme and credentials of the one header there must be, or nobody's."""
    values = request.headers.getall("Authorization", [])
    if len(values) != 1:
        return _NOBODY
    scheme, _, credentials = values[0].partition(" ")
    # A header may hold bytes that are no text; aiohttp keeps them as surrogates.
    given = credentials.strip(" ").encode(errors="surrogateescape")
    match scheme.lower():
        case "bearer":
            return b"bearer " + given
        case "basic":
            with contextlib.suppress(binascii.Error):
                return b"basic " + base64.b64decode(given, validate=True)
    return _NOBODY


def digest(text: bytes) -> bytes:
    """Return what secrets are compared by: all of one length."""
    return hashlib.sha256(text).digest()
