"""Record a span for each request in the caller's trace, without address and query and with the route as the path."""

from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler

from scripts.serve.request_log import METHODS
from tasks.telemetry import tracing

# Load balancers and Prometheus send these requests all the time.
_PROBED = {"/livez", "/readyz", "/metrics"}


@web.middleware
async def trace_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a request within a span; an inner middleware has turned errors into responses."""
    resource = request.match_info.route.resource
    route = resource.canonical if resource else None
    if route in _PROBED:
        return await handler(request)
    method = request.method if request.method in METHODS else "_OTHER"
    # A repeated header is not valid and is ignored (W3C Trace Context).
    found = request.headers.getall("traceparent", [])
    with tracing.http_request(method, route, found[0] if len(found) == 1 else None):
        response = await handler(request)
        tracing.set_attributes({"http.response.status_code": response.status})
        if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            tracing.record_failure(str(response.status))
        return response
