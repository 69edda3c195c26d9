"""Log and count each request, without address, query and headers, and with the route instead of the path."""

import secrets
import time
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from scripts.serve.auth.access_log import REQUEST_ID, log_refused
from scripts.serve.http.connection import HttpConnection
from scripts.serve.http.responses import error_response, to_http_error
from scripts.serve.metrics import HttpMetrics

_log = structlog.get_logger("docv.serve")
# Load balancers send this request every second.
_PROBED = "/livez"
_REFUSED = {401, 403}
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
"""Methods that are logged by name; any other is logged as ``other``."""


def log_requests(metrics: HttpMetrics) -> Middleware:
    """Return the middleware that logs and counts every request."""

    @web.middleware
    async def log_request(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.perf_counter()
        request[REQUEST_ID] = secrets.token_hex(8)
        if isinstance(request.protocol, HttpConnection):
            request.protocol.on_request(request)
        try:
            response = await handler(request)
        except Exception as error:  # noqa: BLE001  # outermost: aiohttp would log details of the request
            response = error_response(to_http_error(error))
        seconds = time.perf_counter() - began
        # Paths without a route share one label.
        resource = request.match_info.route.resource
        route = resource.canonical if resource else "unknown"
        metrics.observe_request(route, response.status, seconds)
        if response.status in _REFUSED:
            log_refused(request, route, response.status)
        if route == _PROBED and response.status == HTTPStatus.OK:
            return response
        _log.info(
            "request.answered",
            method=request.method if request.method in METHODS else "other",
            route=route,
            status=response.status,
            bytes=response.content_length or 0,
            ms=round(seconds * 1000, 2),
            request_id=request[REQUEST_ID],
        )
        return response

    return log_request
