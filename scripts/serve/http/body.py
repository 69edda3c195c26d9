"""A request's body as JSON: counted while it is read, judged before it is parsed."""

import asyncio
import json
import re
from typing import Any, NoReturn

from aiohttp import web

from scripts.serve.http.limits import HttpLimits
from scripts.serve.http.responses import HTTPError

# A text that is not closed goes to the end: looking for its end again and again would take quadratic time.
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))


async def read_body(request: web.Request, limits: HttpLimits) -> bytes:
    """Return the body.

    Raises:
        HTTPError: it is packed, too large, too slow, or not what its headers announce.
    """
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise HTTPError(415, "send the body as it is, without Content-Encoding", close=True)
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
        raise HTTPError(400, "the body is not what its headers announce", close=True) from None
    return bytes(body)


def _too_large(limits: HttpLimits) -> HTTPError:
    return HTTPError(413, f"the body may have {limits.body_bytes} bytes", close=True)


def parse_object(body: bytes, limits: HttpLimits) -> dict[str, Any]:
    """Return the JSON object that a body is, whatever its Content-Type says.

    Raises:
        HTTPError: it is something else, names something twice, or is nested too deeply.
    """
    if not _is_shallow(body, limits.depth):
        raise HTTPError(400, f"the body is no JSON, or nested more than {limits.depth} deep")
    try:
        value = json.loads(body.decode(), object_pairs_hook=_reject_duplicates, parse_constant=_refuse)
    except ValueError:
        # The error quotes what it stumbled over, and a number may be too long for Python.
        raise HTTPError(400, "the body is no JSON, or a name stands twice in one of its objects") from None
    if not isinstance(value, dict):
        raise HTTPError(400, "the body must be a JSON object")
    return value


def _is_shallow(body: bytes, depth: int) -> bool:
    """Return whether the brackets of a text close, and at most so many are open at once.

    The innermost pairs are taken out, layer by layer: no parser, so nothing that depth could hurt.
    """
    left = _TEXT.sub(b"", body).translate(_ONE_KIND, _NO_BRACKET)
    for _ in range(depth):
        left, before = left.replace(b"[]", b""), left
        if not left or left == before:
            break
    return not left


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; of two values with one name, two readers would believe different ones."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _refuse(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no JSON")
