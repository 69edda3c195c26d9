"""Find RiskOS's words in the body of an error, however it is encoded, and tell them from a gateway's."""

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
# Objects become tuples of pairs, so that a name that comes twice keeps both values; long numbers are read as float.
_DECODER = json.JSONDecoder(object_pairs_hook=tuple, parse_int=float, strict=False)
# Names that show who wrote an object with a text where RiskOS has one.
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
    """Sentences that decide what an error is: the settings, or the options of a download."""

    @property
    def no_documents_texts(self) -> tuple[str, ...]:
        """Those that mean "there are no documents"."""

    @property
    def gateway_texts(self) -> tuple[str, ...]:
        """Those of gateways, which say nothing of an evaluation."""


def classify_refusal(status: int, body: bytes, charset: str | None, texts: KnownTexts) -> NoBundle | None:
    """Return RiskOS's word that there is no bundle; None if the answer cannot be RiskOS's.

    Args:
        status: of the answer.
        body: at most ``MAX_BODY_BYTES`` of it.
        charset: the one of its content type.
        texts: the sentences that are known.
    """
    document = parse_error_body(body, charset)
    if status == HTTPStatus.BAD_REQUEST and (text := find_text(document, texts.no_documents_texts)):
        return NoBundle(Outcome.NO_DOCUMENTS, status, text)
    text = find_refusal(document, texts.gateway_texts)
    if text is None or status not in _OUTCOMES:
        return None
    return NoBundle(_OUTCOMES[status], status, text)


def parse_error_body(body: bytes, charset: str | None) -> Json:
    """Return the JSON of an error body; None if it is not JSON.

    Args:
        body: at most ``MAX_BODY_BYTES``.
        charset: the one of the content type. A byte order mark, and what UTF-16 looks like, have precedence.
    """
    body = _decompress(body)
    for encoding in _encodings(body, charset):
        with suppress(ValueError, LookupError, RecursionError):
            return _DECODER.decode(body.decode(encoding, "replace").strip(_PADDING))
    return None


def find_text(document: Json, texts: Iterable[str]) -> str | None:
    """Return the first string of a JSON value that is one of these texts, whatever the shape."""
    wanted = set(map(_normalize, texts))
    return next((_clean(text) for text in _strings(document) if _normalize(text) in wanted), None)


def find_refusal(document: Json, gateway_texts: Iterable[str]) -> str | None:
    """Return what RiskOS says in one of its documented shapes; None if the words cannot be its own.

    If several fields have a text, it is the first one that no gateway uses as well.
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
    """Yield every string value, outer ones first; the limit of the body's bytes bounds their number, too."""
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
    """Return the first characters of a text, with spaces for control characters and what cannot be printed."""
    return "".join(each if each.isprintable() else " " for each in text[:_MAX_TEXT])
