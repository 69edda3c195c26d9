"""An evaluation's ID made safe; its keys in the archive and its URL at RiskOS."""

import re
from dataclasses import dataclass

from tasks.errors import BadEvalId

_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_LENGTH = 36
ENVIRONMENTS = ("production", "sandbox")
"""The environments of RiskOS; each is the first part of keys in the archive."""
_SHOWN = 48


def parse_eval_id(text: str) -> str:
    """Return the evaluation ID in its one form, lower case; every door calls this first.

    Only the canonical form of a UUID is taken, 8-4-4-4-12 hex digits: Python's own ``uuid.UUID`` would
    also take braces, ``urn:uuid:``, missing hyphens and digits of other scripts.

    Raises:
        BadEvalId: the text is something else; the error says what, in a form that is safe to print.
    """
    if not isinstance(text, str):
        raise BadEvalId(f"<{type(text).__name__}>", "a text is expected")
    if len(text) == _LENGTH and text.isascii() and _CANONICAL.fullmatch(text.lower()):
        return text.lower()
    raise BadEvalId(printable_id(text), _why(text))


def printable_id(text: str) -> str:
    """Return a text from outside as it may be printed: cut, control characters replaced."""
    clean = "".join(char if char.isprintable() else "�" for char in text[:_SHOWN])
    return clean + (f"… ({len(text)} characters)" if len(text) > _SHOWN else "")


def _why(text: str) -> str:
    expected = "expected is a UUID such as 0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"
    if not text:
        return f"it is empty; {expected}"
    if len(text) <= 2 * _LENGTH and text != text.strip() and len(text.strip()) == _LENGTH:
        return f"there are blanks around it; {expected}"
    return expected


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One DocV evaluation, and the one place where its keys and its URL are made.

    Keys consist of our own parts only: no name out of a bundle ever becomes a part of one.

    Attributes:
        eval_id: canonical UUID in lower case, as ``parse_eval_id`` returns it.
        environment: ``production`` or ``sandbox``.
        account: name of the account it is asked for with.
    """

    eval_id: str
    environment: str
    account: str = "default"

    def url(self, riskos_url: str) -> str:
        """Return the address of the documents (RiskOS documentation, "Image Retrieval")."""
        return f"{riskos_url.rstrip('/')}/api/evaluation/{self.eval_id}/documents"

    @property
    def manifest_key(self) -> str:
        """Key of the manifest: what exists here is the truth."""
        return f"{self.environment}/{self.eval_id}/manifest.json"

    def revision_key(self, revision: int) -> str:
        """Key under which a former manifest is kept as it was."""
        return f"{self.environment}/{self.eval_id}/revisions/{revision}.json"

    def document_key(self, kind: str, sha256: str, extension: str) -> str:
        """Key of a document: its kind, the hash of its content, the extension of its media type."""
        return f"{self.environment}/{self.eval_id}/{kind}/{sha256}.{extension}"

    def quarantine_key(self, sha256: str) -> str:
        """Key under which an unreadable bundle is kept."""
        return f"quarantine/{self.environment}/{self.eval_id}/{sha256}.zip"
