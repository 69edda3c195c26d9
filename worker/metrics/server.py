"""Serve the metrics of this worker and its health over HTTP.

The server has its own threads, so that a worker whose event loop has stalled can still report it.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
import yarl
from prometheus_client import CollectorRegistry, make_wsgi_app

from worker.clients.errors import ServiceUnavailable

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_log = structlog.get_logger("docv.metrics")
_CONNECTIONS = 16
_SOCKET_SECONDS = 5.0
_POLL_SECONDS = 0.1


@contextlib.contextmanager
def serve_metrics(
    registry: CollectorRegistry, problem: Callable[[], str | None], host: str, port: int
) -> Iterator[str]:
    """Serve ``/metrics`` and ``/livez`` during the block; yield the URL.

    Args:
        registry: the metrics.
        problem: returns why this process has stalled, or None.
        host: address to listen on.
        port: port to listen on; 0 for a free one.

    Raises:
        ServiceUnavailable: the address is in use.
    """
    with _MetricsServer(_listen(host, port), _make_application(registry, problem)) as server:
        threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,), name="metrics", daemon=True).start()
        url = str(yarl.URL.build(scheme="http", host=host, port=server.server_port))
        _log.info("metrics.started", url=url)
        try:
            yield url
        finally:
            server.shutdown()


class _RequestHandler(WSGIRequestHandler):
    timeout = _SOCKET_SECONDS

    def log_message(self, *_: object) -> None:
        """Keep scrapes out of the log."""


class _MetricsServer(ThreadingMixIn, WSGIServer):
    """Serve each connection in a thread; a new connection replaces the oldest one if there are too many."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, application: "WSGIApplication") -> None:
        super().__init__(listener.getsockname()[:2], _RequestHandler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        # server_bind() would set both, but it waits for DNS.
        self.server_name, self.server_port = listener.getsockname()[:2]
        self.setup_environ()
        self.set_app(application)
        self._lock = threading.Lock()
        self._connections: dict[Any, None] = {}

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._connections) >= _CONNECTIONS:
                oldest = next(iter(self._connections))
                del self._connections[oldest]
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
            self._connections[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  # the base class names them
        """Log a failed connection at DEBUG; the base class would print a traceback."""
        _log.debug("metrics.connection_failed", exc_info=True)


def _make_application(registry: CollectorRegistry, problem: Callable[[], str | None]) -> "WSGIApplication":
    metrics = make_wsgi_app(registry)

    def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            response: Iterable[bytes] = metrics(environ, start_response)
            return response
        status, text = HTTPStatus.NOT_FOUND, "not found"
        if environ["PATH_INFO"] == "/livez":
            why = problem()
            status, text = (HTTPStatus.SERVICE_UNAVAILABLE, why) if why else (HTTPStatus.OK, "alive")
        start_response(f"{status.value} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text}\n".encode()]

    return application


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), backlog=_CONNECTIONS, family=family)
    except OSError as error:
        # The text of the error ends with the address.
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ServiceUnavailable(
            f"{host}:{port} cannot be used ({why}): give each worker on this machine its own "
            "DOCV_METRICS_PORT, or 0 for a free port"
        ) from None
