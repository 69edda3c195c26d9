"""Show what this worker counts, and whether it lives, on a port of their own.

In a thread and on a loop of its own: a worker whose loop stands still must be able to say so.
"""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager

import structlog
import yarl
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from worker.clients.errors import ServiceUnavailable
from worker.metrics.shared_metrics import Look, SharedMetrics

_log = structlog.get_logger("docv.metrics")
_FAREWELL_SECONDS = 1.0
_BACKLOG = 16


class MetricsServer:
    """``/metrics`` and ``/livez`` of one worker.

    Args:
        registry: the figures of this process.
        looking: opens what asks Redis for the figures that all processes share.
        stalled: returns why this process has stalled, or None.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        looking: Callable[[], AbstractAsyncContextManager[Look]],
        stalled: Callable[[], str | None],
    ) -> None:
        self._registry, self._looking, self._stalled = registry, looking, stalled
        self._started: Future[None] = Future()
        self._stopped = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self, host: str, port: int) -> str:
        """Begin to listen; return the URL.

        Args:
            host: address to listen on.
            port: 0 takes a free one.

        Raises:
            ServiceUnavailable: somebody else listens there.
        """
        listener = _listen(host, port)
        self._thread = threading.Thread(target=self._run, args=(listener,), name="metrics", daemon=True)
        self._thread.start()
        self._started.result()
        url = str(yarl.URL.build(scheme="http", host=host, port=listener.getsockname()[1]))
        _log.info("metrics.started", url=url)
        return url

    def close(self) -> None:
        """Listen no more."""
        if self._thread and self._loop:
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join()

    def _run(self, listener: socket.socket) -> None:
        try:
            with contextlib.closing(listener):
                asyncio.run(self._serve(listener))
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        async with self._looking() as look, _answering(self._application(look), listener):
            self._started.set_result(None)
            await self._stopped.wait()

    def _application(self, look: Look) -> web.Application:
        shared = SharedMetrics(look)
        self._registry.register(shared)

        async def metrics(_: web.Request) -> web.Response:
            await shared.refresh()
            return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

        async def live(_: web.Request) -> web.Response:
            why = self._stalled()
            return web.Response(status=503 if why else 200, text=f"{why or 'alive'}\n")

        application = web.Application()
        application.router.add_get("/metrics", metrics)
        application.router.add_get("/livez", live)
        return application


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=_BACKLOG, family=_family(host))
    except OSError as error:
        raise ServiceUnavailable(
            f"{host}:{port} cannot be listened on ({_why(error)}): give each worker of this machine a "
            "DOCV_METRICS_PORT of its own, or 0 for a free one"
        ) from None


def _why(error: OSError) -> str:
    """The system's word; Python puts the address into its own, once more."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@contextlib.asynccontextmanager
async def _answering(application: web.Application, listener: socket.socket) -> AsyncIterator[None]:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_FAREWELL_SECONDS)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()
