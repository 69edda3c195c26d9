"""Read the body of a request as JSON: its size is limited while it is read, its depth before it is parsed."""

import asyncio
import json
import re
from typing import Any, NoReturn

from aiohttp import HttpVersion11, web
from pydantic import ValidationError

from scripts.serve.http.limits import HttpLimits
from scripts.serve.http.responses import HTTPError
from tasks.model.evaluation import printable_id

# An unterminated text matches to the end of the body: searching for its end each time would take quadratic time.
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))


async def expect(request: web.Request) -> None:
    """Answer ``Expect: 100-continue``, and ignore any other expectation.

    aiohttp answers an unknown one with 417 before the login, and so reveals which paths exist.
    """
    if request.headers["Expect"].lower() == "100-continue" and request.version == HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # As aiohttp's own handler does: the response has not begun.
        request.writer.output_size = 0


async def read_body(request: web.Request, limits: HttpLimits) -> bytes:
    """Return the body.

    Raises:
        HTTPError: it is compressed, too large, too slow, or not what its headers announce.
    """
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise HTTPError(415, "send the body uncompressed, without Content-Encoding", close=True)
    if (request.content_length or 0) > limits.body_bytes:
        raise _too_large(limits)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > limits.body_bytes:
                    raise _too_large(limits)
    except TimeoutError:
        raise HTTPError(408, f"the body did not arrive within {limits.body_seconds:g} s", close=True) from None
    except (web.RequestPayloadError, ConnectionError):
        raise HTTPError(400, "the body does not match its headers", close=True) from None
    return bytes(body)


def _too_large(limits: HttpLimits) -> HTTPError:
    return HTTPError(413, f"the body is too large: expected at most {limits.body_bytes} bytes", close=True)


def parse_object(body: bytes, limits: HttpLimits) -> dict[str, Any]:
    """Parse a body as a JSON object, whatever its Content-Type says.

    Raises:
        HTTPError: it is not an object, has a duplicate name, or is nested too deeply.
    """
    if not _is_shallow(body, limits.depth):
        raise HTTPError(400, f"the body is not valid JSON, or is nested more than {limits.depth} levels deep")
    try:
        # A byte order mark may be ignored (RFC 8259, section 8.1), and some .NET senders write one.
        value = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_reject_duplicates, parse_constant=_refuse)
    except ValueError:
        # The error's text quotes the body. A number that is too long for Python is a ValueError, too.
        raise HTTPError(400, "the body is not valid JSON, or one of its objects repeats a name") from None
    if not isinstance(value, dict):
        raise HTTPError(400, "the body must be a JSON object")
    return value


def check_unicode(body: bytes, value: dict[str, Any]) -> dict[str, Any]:
    """Return an object that was parsed from a body, if all its texts are Unicode.

    Raises:
        HTTPError: a name or a text has half of a surrogate pair, which cannot be encoded.
    """
    try:
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise HTTPError(422, "a name or a string in the body is not valid Unicode") from None
    return value


def explain_mismatch(error: ValidationError) -> str:
    """Return in sentences why a body does not have the expected shape; they name its fields, but not their values."""
    sentences = [
        f"{printable_id(str(problem['loc'][0]))}: {problem['msg'].removeprefix('Value error, ')}"
        for problem in error.errors(include_url=False, include_input=False, include_context=False)[:5]
    ]
    return "; ".join(sentences)


def _is_shallow(body: bytes, depth: int) -> bool:
    """Return whether the brackets of a text are balanced, and nested at most ``depth`` deep.

    The innermost pairs are removed, layer by layer, so that deep nesting cannot exhaust the stack.
    """
    left = _TEXT.sub(b"", body).translate(_ONE_KIND, _NO_BRACKET)
    for _ in range(depth):
        left, before = left.replace(b"[]", b""), left
        if not left or left == before:
            break
    return not left


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object without duplicate names: parsers differ in which of two values they keep."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is repeated")
    return found


def _refuse(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")
