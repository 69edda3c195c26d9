"""One line and one count for each request: no address, no query, no header, and the route instead of the path."""

import time

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from scripts.serve.http.connection import HttpConnection
from scripts.serve.http.responses import error_response, to_http_error
from scripts.serve.metrics import HttpMetrics

_log = structlog.get_logger("docv.serve")
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def log_requests(figures: HttpMetrics) -> Middleware:
    """Return the middleware that sees every request."""

    @web.middleware
    async def log_request(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.perf_counter()
        if isinstance(request.protocol, HttpConnection):
            request.protocol.on_request(request)
        try:
            response = await handler(request)
        except Exception as error:  # noqa: BLE001  # the edge: beyond it aiohttp would log what came in
            response = error_response(to_http_error(error))
        seconds = time.perf_counter() - began
        # Paths without a route share one label.
        resource = request.match_info.route.resource
        route = resource.canonical if resource else "unknown"
        figures.observe_request(route, response.status, seconds)
        _log.info(
            "request.answered",
            method=request.method if request.method in _METHODS else "other",
            route=route,
            status=response.status,
            bytes=response.content_length or 0,
            ms=round(seconds * 1000, 2),
        )
        return response

    return log_request
