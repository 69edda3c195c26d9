"""Parse the Content-Disposition of a bundle: its filename, and the evaluations that it names."""

import email.header
import email.message
import email.utils
import re
from collections.abc import Iterator
from contextlib import suppress
from email.errors import HeaderParseError
from urllib.parse import unquote

_MAX_FILENAME = 500
_MAX_NESTING = 3
_GROUPS = (8, 4, 4, 4, 12)
_SEPARATOR = "[^0-9a-z]{0,3}"
_ID = re.compile(_SEPARATOR.join(f"[0-9a-f]{{{digits}}}" for digits in _GROUPS))
# A SHA-1 or SHA-256 in the name contains no evaluation ID.
_HASH = re.compile(r"(?<![0-9a-f])(?:[0-9a-f]{40}|[0-9a-f]{64})(?![0-9a-f])")
_PARAMETER_NAME = re.compile(r";\s*[\w*]+\s*=")


def parse_filename(disposition: str | None) -> str | None:
    """Return the filename in a Content-Disposition, cut to 500 characters; None if it has no filename."""
    if disposition is None:
        return None
    header = email.message.Message()
    header["Content-Disposition"] = disposition
    try:
        name = header.get_filename()
    except ValueError:  # an absurd charset
        return None
    return name[:_MAX_FILENAME].encode("utf-8", "replace").decode() if name else None


def names_other_evaluation(disposition: str, eval_id: str) -> bool:
    """Return whether a Content-Disposition names an evaluation other than this one, in any parameter and encoding.

    Only the 32 hex digits count, because programs differ in hyphens, underscores, braces and case.

    Args:
        disposition: the value of the header; several values are joined by semicolons.
        eval_id: a canonical UUID in lower case.
    """
    for value in (disposition, *_parameters(disposition)):
        digits = _decode(value).lower()
        if not _ID.search(digits.replace(eval_id, "/")):
            continue
        # Compiling this costs as much as parsing the other headers, so it is done only if another form or ID is left.
        own = re.compile(_SEPARATOR.join(eval_id.split("-")))
        # Remove this evaluation's ID first: in "doc_{ID}_document", the characters around it are hex digits, too.
        if _ID.search(_HASH.sub("/", own.sub("/", digits))):
            return True
    return False


def _parameters(disposition: str) -> Iterator[str]:
    """Yield the value of each parameter, with joined continuations and decoded charsets (RFC 2231, RFC 5987)."""
    header = email.message.Message()
    header["Content-Disposition"] = _PARAMETER_NAME.sub(lambda name: name[0].lower(), disposition)
    for _, value in header.get_params([], "Content-Disposition"):
        try:
            yield email.utils.collapse_rfc2231_value(value)
        except ValueError:  # an absurd charset
            yield value[2]


def _decode(text: str) -> str:
    """Return a text with percent-encoding, encoded words and escapes decoded, even if they are nested."""
    for _ in range(_MAX_NESTING):
        text = unquote(_decode_words(text)).replace("\\", "").replace("\0", "")
    return text


def _decode_words(text: str) -> str:
    """Return a text with decoded encoded-words (RFC 2047)."""
    with suppress(HeaderParseError, ValueError):
        return "".join(
            part if isinstance(part, str) else _decode_word(part, charset or "latin-1")
            for part, charset in email.header.decode_header(text)
        )
    return text


def _decode_word(word: bytes, charset: str) -> str:
    try:
        return word.decode(charset.partition("*")[0], "replace")  # "*" begins a language (RFC 2231)
    except LookupError:
        return word.decode("latin-1")
