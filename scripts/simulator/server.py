"""Serve the simulator: in the process of a test, or until a signal ends it."""

import asyncio
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import yarl
from aiohttp import web

from scripts.simulator import control
from scripts.simulator.options import Options
from scripts.simulator.service import ELSEWHERE, Service
from scripts.simulator.stats import Snapshot

# Whoever is still being answered when the end comes has this long; slow answers are then cut off.
_GRACE_SECONDS = 0.2


class Simulator:
    """A RiskOS that listens; use it as ``async with await start(options) as simulator``.

    Attributes:
        url: base URL, such as ``http://127.0.0.1:40123``.
    """

    def __init__(self, url: str, service: Service, runner: web.AppRunner) -> None:
        self.url = url
        self._service = service
        self._runner = runner

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def options(self) -> Options:
        """How it behaves now."""
        return self._service.options

    def stats(self) -> Snapshot:
        """Return what was asked and answered until now."""
        return self._service.stats.snapshot()

    def reset(self) -> None:
        """Empty the figures; how often an evaluation was asked is still known to the evaluation."""
        self._service.reset()

    def change(self, **changes: Any) -> None:
        """Change how it behaves.

        Raises:
            ValueError: a name or a value is not possible; the message says which.
        """
        self._service.change(changes)

    async def stop(self) -> None:
        """Stop listening and end all connections, the slow ones too."""
        await self._runner.cleanup()


async def start(options: Options) -> Simulator:
    """Start a simulator in this event loop.

    Raises:
        OSError: the address cannot be listened at.
    """
    service = Service(options)
    runner = web.AppRunner(
        _application(service),
        access_log=None,
        handler_cancellation=True,  # whoever hangs up is not answered any further
        shutdown_timeout=_GRACE_SECONDS,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, options.host, options.port).start()
    except OSError:
        await runner.cleanup()
        raise
    host, port = runner.addresses[0][:2]
    return Simulator(str(yarl.URL.build(scheme="http", host=host, port=port)), service, runner)


def serve(options: Options, announce: Callable[[str], None]) -> None:
    """Run a simulator until SIGINT or SIGTERM.

    Args:
        options: what it is told.
        announce: called with the base URL once it listens.

    Raises:
        OSError: the address cannot be listened at.
    """
    asyncio.run(_until_signalled(options, announce))


async def _until_signalled(options: Options, announce: Callable[[str], None]) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with await start(options) as simulator:
        announce(simulator.url)
        await ended.wait()


def _application(service: Service) -> web.Application:
    application = web.Application()
    application.add_routes(
        [
            web.get("/api/evaluation/{eval_id:[^/]+}/documents", service.documents, allow_head=False),
            web.get(ELSEWHERE, service.elsewhere, allow_head=False),
            *control.routes(service),
        ]
    )
    return application
