"""Validate evaluation IDs, and make the archive keys and the RiskOS URLs of evaluations."""

import re
from dataclasses import dataclass

from tasks.errors import BadEvalId

_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_LENGTH = 36
ENVIRONMENTS = ("production", "sandbox")
"""The environments of RiskOS; keys in the archive begin with one of them."""
_MAX_SHOWN = 48
_EXTENSION = re.compile(r"[A-Za-z0-9]{1,16}")


def parse_eval_id(text: str) -> str:
    """Return an evaluation ID in its canonical form, which is lower case; every entry point calls this first.

    Only the canonical form of a UUID is accepted, 8-4-4-4-12 hex digits. Python's ``uuid.UUID`` would also accept
    braces, ``urn:uuid:``, missing hyphens and digits of other scripts.

    Raises:
        BadEvalId: the text is not an evaluation ID; the message is safe to print.
    """
    if not isinstance(text, str):
        raise BadEvalId(f"<{type(text).__name__}>", "expected a string")
    if len(text) == _LENGTH and text.isascii() and _CANONICAL.fullmatch(text.lower()):
        return text.lower()
    raise BadEvalId(printable_id(text), _describe_problem(text))


def printable_id(text: str) -> str:
    """Return an untrusted text in a form that is safe to print: shortened, with control characters replaced."""
    clean = "".join(char if char.isprintable() else "�" for char in text[:_MAX_SHOWN])
    return clean + (f"… ({len(text)} characters)" if len(text) > _MAX_SHOWN else "")


def _describe_problem(text: str) -> str:
    expected = "expected a UUID such as 0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"
    if not text:
        return f"it is empty; {expected}"
    if len(text) <= 2 * _LENGTH and text != text.strip() and len(text.strip()) == _LENGTH:
        return f"it has spaces around it; {expected}"
    return expected


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One DocV evaluation. Only this class makes its keys and its URLs.

    No file name from a bundle ever becomes a part of a key.

    Attributes:
        eval_id: canonical UUID in lower case, as ``parse_eval_id`` returns it.
        environment: ``production`` or ``sandbox``.
        account: name of the account that requests it.
    """

    eval_id: str
    environment: str
    account: str = "default"

    def url(self, riskos_url: str) -> str:
        """Return the URL of the documents (RiskOS documentation, "Image Retrieval")."""
        return f"{riskos_url.rstrip('/')}/api/evaluation/{self.eval_id}/documents"

    def record_url(self, riskos_url: str) -> str:
        """Return the URL of RiskOS's record of the evaluation (its OpenAPI file)."""
        return f"{riskos_url.rstrip('/')}/api/evaluation/{self.eval_id}"

    @property
    def manifest_key(self) -> str:
        """Key of the current manifest, which decides what the archive holds."""
        return f"{self.environment}/{self.eval_id}/manifest.json"

    def revision_key(self, revision: int) -> str:
        """Return the key of an unchanged copy of an earlier manifest."""
        return f"{self.environment}/{self.eval_id}/revisions/{revision}.json"

    def document_key(self, kind: str, sha256: str, extension: str) -> str:
        """Return the key of a document, with the extension of its media type at the time of storing."""
        return f"{self.environment}/{self.eval_id}/{kind}/{sha256}.{extension}"

    def is_document_key(self, key: str, kind: str, sha256: str) -> bool:
        """Return whether a key is that of a document with a kind and a hash.

        Any extension is accepted, because a later version may detect another media type for the same bytes.
        """
        extension = key.rpartition(".")[2]
        return bool(_EXTENSION.fullmatch(extension)) and key == self.document_key(kind, sha256, extension)

    def quarantine_key(self, sha256: str) -> str:
        """Return the key of an unreadable bundle."""
        return f"quarantine/{self.environment}/{self.eval_id}/{sha256}.zip"
