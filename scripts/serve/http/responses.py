"""Make responses; this is the only module that translates errors into responses."""

from collections.abc import Mapping
from pathlib import PurePath
from traceback import extract_tb

import orjson
import structlog
from aiohttp import web
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from tasks.errors import IntegrityError, StorageError
from tasks.ledger.script import NotReplicated
from worker.clients.redis import is_full

_log = structlog.get_logger("docv.serve")
_ALWAYS = {"Cache-Control": "no-store", "Server": "docv-archive"}


class HTTPError(Exception):  # a response rather than an error
    """A request is answered with an error.

    Args:
        status: the HTTP status, 4xx or 5xx.
        why: a sentence for the caller; never a part of the request.
        headers: headers of the response.
        close: whether the connection ends with it, since the bytes that follow cannot be trusted.
    """

    def __init__(self, status: int, why: str, headers: Mapping[str, str] | None = None, *, close: bool = False) -> None:
        super().__init__(status, why, headers, close)
        self.status, self.why, self.headers, self.close = status, why, headers or {}, close


def json_response(status: int, value: object, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a value as a JSON response."""
    return web.Response(
        status=status, body=orjson.dumps(value), content_type="application/json", headers={**_ALWAYS, **(headers or {})}
    )


def raw_response(content_type: str, body: bytes) -> web.Response:
    """Return bytes as a response, for content that is not JSON."""
    return web.Response(body=body, headers={**_ALWAYS, "Content-Type": content_type})


def error_response(refused: HTTPError) -> web.Response:
    """Return an error as a response."""
    response = json_response(refused.status, {"error": refused.why}, refused.headers)
    if refused.close:
        response.force_close()
    return response


def to_http_error(error: Exception) -> HTTPError:
    """Translate an error that ended a request."""
    match error:
        case HTTPError():
            return error
        case web.HTTPException():
            allow = error.headers.get("Allow")
            return HTTPError(error.status, f"{error.reason}: see /openapi.json", {"Allow": allow} if allow else None)
        case IntegrityError():
            return HTTPError(502, f"{error}; an operator must look into this")
        case StorageError() | RedisError() | KombuError() | OSError():
            return HTTPError(503, _why_later(error), {"Retry-After": "5"})
    # An unforeseen error. Only its place is logged: its text may hold a part of the request.
    place = extract_tb(error.__traceback__)[-1]
    where = f"{PurePath(place.filename).name}:{place.lineno}"
    _log.error("request.failed", error=type(error).__name__, where=where)
    return HTTPError(500, "an internal error of docv-archive; see its log")


def _why_later(error: Exception) -> str:
    if isinstance(error, StorageError):
        return "the archive does not answer; try again later"
    if is_full(error):
        return "Redis is full: consider nothing accepted, and send the request again later"
    if isinstance(error, NotReplicated):
        return "too few replicas of Redis have stored it: consider nothing accepted, and send the request again later"
    return "Redis does not answer: consider nothing accepted, and send the request again later"
