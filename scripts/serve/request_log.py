"""One line and one count for each request: no address, no query, no header, and the route instead of the path."""

import time

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from scripts.serve.http.connection import HttpConnection
from scripts.serve.http.responses import error_response, to_http_error
from scripts.serve.metrics import UNKNOWN, HttpMetrics

_log = structlog.get_logger("docv.serve")
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def log_requests(figures: HttpMetrics) -> Middleware:
    """Return the middleware that sees every request."""

    @web.middleware
    async def log_request(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.perf_counter()
        if isinstance(request.protocol, HttpConnection):
            request.protocol.on_request(request)
        response = await _handle_and_log(request, handler)
        seconds = time.perf_counter() - began
        figures.observe_request(_route(request), response.status, seconds)
        _log.info("request.answered", **_fields(request, response), ms=round(seconds * 1000, 2))
        return response

    return log_request


async def _handle_and_log(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Exception as error:  # noqa: BLE001  # the edge: beyond it aiohttp would log what came in
        return error_response(to_http_error(error))


def _fields(request: web.Request, response: web.StreamResponse) -> dict[str, object]:
    method = request.method if request.method in _METHODS else "other"
    length = response.content_length or 0
    return {"method": method, "route": _route(request), "status": response.status, "bytes": length}


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource else UNKNOWN
