"""Find RiskOS's message in the body of an error, whatever its encoding, and distinguish it from a gateway's message."""

import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Protocol

from tasks.model.outcome import Outcome
from tasks.riskos.response import NoBundle

MAX_BODY_BYTES = 64 * 1024
_OUTCOMES: dict[int, Outcome] = {
    HTTPStatus.BAD_REQUEST: Outcome.REJECTED,
    HTTPStatus.NOT_FOUND: Outcome.NOT_FOUND,
}
_MAX_TEXT = 500
_MAX_DEPTH = 100
_COMPRESSED = (b"\x1f\x8b", b"\x78")  # gzip, zlib; JSON begins with neither
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
# A byte order mark, NULs of a C string, half a character of UTF-16.
_PADDING = "\ufeff\0\ufffd \t\r\n"
# Objects become tuples of pairs, so that a repeated name keeps all its values; long numbers are read as floats.
_DECODER = json.JSONDecoder(object_pairs_hook=tuple, parse_int=float, strict=False)
# Names of fields that identify other software, which may put a text into the same field as RiskOS.
_FOREIGN = (
    {"timestamp", "path"},  # Spring Boot
    {"title"},  # problem details (RFC 9457)
    {"statusCode"},  # Azure API Management, NestJS, Fastify
    {"http_status_code"},  # Gravitee
    {"_links"},  # Micronaut
)

Json = object
"""A JSON value: objects are tuples of (name, value) pairs, arrays are lists."""


class KnownTexts(Protocol):
    """Sentences that decide what an error means: the settings, or the options of a download."""

    @property
    def no_documents_texts(self) -> tuple[str, ...]:
        """Return the sentences that mean "there are no documents"."""

    @property
    def gateway_texts(self) -> tuple[str, ...]:
        """Return the sentences of gateways, which say nothing about an evaluation."""


def classify_error(status: int, body: bytes, charset: str | None, texts: KnownTexts) -> NoBundle | None:
    """Return RiskOS's answer that there is no bundle; None if the response cannot be RiskOS's.

    Args:
        status: the HTTP status.
        body: at most ``MAX_BODY_BYTES`` of it.
        charset: the charset of its content type.
        texts: the known sentences.
    """
    document = parse_error_body(body, charset)
    if status == HTTPStatus.BAD_REQUEST and (text := find_text(document, texts.no_documents_texts)):
        return NoBundle(Outcome.NO_DOCUMENTS, status, text)
    text = find_riskos_text(document, texts.gateway_texts)
    if text is None or status not in _OUTCOMES:
        return None
    return NoBundle(_OUTCOMES[status], status, text)


def parse_error_body(body: bytes, charset: str | None) -> Json:
    """Return the JSON of an error body; None if it is not JSON.

    Args:
        body: at most ``MAX_BODY_BYTES``.
        charset: the charset of the content type. A byte order mark, and bytes that look like UTF-16, take precedence.
    """
    body = _decompress(body)
    for encoding in _encodings(body, charset):
        with suppress(ValueError, LookupError, RecursionError):
            return _DECODER.decode(body.decode(encoding, "replace").strip(_PADDING))
    return None


def find_text(document: Json, texts: Iterable[str]) -> str | None:
    """Return the first string of a JSON value that is one of these texts, at any depth."""
    wanted = set(map(_normalize, texts))
    return next((_clean(text) for text in _strings(document) if _normalize(text) in wanted), None)


def find_riskos_text(document: Json, gateway_texts: Iterable[str]) -> str | None:
    """Return the text of an error in one of RiskOS's documented shapes; None if it cannot be RiskOS's.

    If several fields have a text, return the first one that no gateway uses too.
    """
    if not isinstance(document, tuple):
        return None
    fields = dict(document)
    if any(names <= fields.keys() for names in _FOREIGN):
        return None
    meaningless = {"", *map(_normalize, gateway_texts)}
    return next((_clean(text) for text in _texts(fields) if _normalize(text) not in meaningless), None)


def _decompress(body: bytes) -> bytes:
    if body.startswith(_COMPRESSED):
        with suppress(zlib.error):
            return zlib.decompressobj(_GZIP_OR_ZLIB).decompress(body, MAX_BODY_BYTES)
    return body


def _encodings(body: bytes, charset: str | None) -> Iterator[str]:
    detected = json.detect_encoding(body)
    if detected != "utf-8":
        yield detected
    if charset:
        yield charset
    yield "utf-8"


def _strings(document: Json) -> Iterator[str]:
    """Yield every string value, outer ones first; the limit on the body's bytes limits their number, too."""
    level = [document]
    for _ in range(_MAX_DEPTH):
        deeper: list[Json] = []
        for value in level:
            if isinstance(value, str):
                yield value
            elif isinstance(value, list):
                deeper += value
            elif isinstance(value, tuple):
                deeper += (each for _, each in value)
        level = deeper


def _texts(fields: dict[str, Json]) -> Iterator[str]:
    """Yield the texts of RiskOS's shapes: ``message``, ``msg``, ``msg.msg``, ``error``, and ``details`` of an error."""
    msg = fields.get("msg")
    inner = dict(msg).get("msg") if isinstance(msg, tuple) else msg
    details = fields.get("details") if "error" in fields else None
    for text in (fields.get("message"), inner, fields.get("error"), details):
        if isinstance(text, str):
            yield text


def _normalize(text: str) -> str:
    return "".join(text.split()).rstrip(".").casefold()


def _clean(text: str) -> str:
    """Return the first 500 characters of a text, with spaces for those that cannot be printed."""
    return "".join(each if each.isprintable() else " " for each in text[:_MAX_TEXT])
