"""Serve the simulator: in the process of a test, or until a signal ends it."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

import yarl
from aiohttp import web

from scripts.simulator import control
from scripts.simulator.keys import Keys
from scripts.simulator.options import SimulatorOptions
from scripts.simulator.service import ELSEWHERE
from scripts.simulator.stats import StatsSnapshot

# At the end, answers in progress have this many seconds; unfinished ones are then cut off.
_GRACE_SECONDS = 0.2


class Simulator:
    """A running simulator; use it as ``async with await start_simulator(options) as simulator``.

    Attributes:
        url: base URL, such as ``http://127.0.0.1:40123``.
    """

    def __init__(self, url: str, keys: Keys, runner: web.AppRunner) -> None:
        self.url = url
        self._keys = keys
        self._runner = runner

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def options(self) -> SimulatorOptions:
        """How it behaves now."""
        return self._keys.first.options

    def stats(self, key: str | None = None) -> StatsSnapshot:
        """Return the counters of a key, or of the first key if none is named."""
        return self._keys.of(key).snapshot()

    def reset(self) -> None:
        """Set the counters to zero; how often each evaluation was requested is kept."""
        self._keys.first.reset()

    def change(self, key: str | None = None, **changes: Any) -> None:
        """Change the options of a key, or of the first key if none is named.

        Raises:
            ValueError: an option is unknown or cannot be changed, or a value is impossible; the message says which.
        """
        self._keys.of(key).change(changes)

    async def stop(self) -> None:
        """Stop listening and end all connections, the slow ones too."""
        await self._runner.cleanup()


async def start_simulator(
    options: SimulatorOptions, others: Sequence[str] = (), *, one_rate: bool = False
) -> Simulator:
    """Start a simulator in this event loop.

    Args:
        options: options of the simulator.
        others: further accepted keys.
        one_rate: whether all keys share rate and quota.

    Raises:
        OSError: the simulator cannot listen on the address.
    """
    keys = Keys(options, others, one_rate=one_rate)
    runner = web.AppRunner(
        _application(keys),
        access_log=None,
        handler_cancellation=True,  # no work for a client that hung up
        shutdown_timeout=_GRACE_SECONDS,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, options.host, options.port).start()
    except OSError:
        await runner.cleanup()
        raise
    host, port = runner.addresses[0][:2]
    return Simulator(str(yarl.URL.build(scheme="http", host=host, port=port)), keys, runner)


def serve(
    options: SimulatorOptions, announce: Callable[[str], None], others: Sequence[str] = (), *, one_rate: bool = False
) -> None:
    """Run a simulator until SIGINT or SIGTERM.

    Args:
        options: options of the simulator.
        announce: called with the base URL once it listens.
        others: further accepted keys.
        one_rate: whether all keys share rate and quota.

    Raises:
        OSError: the simulator cannot listen on the address.
    """
    asyncio.run(_until_signalled(start_simulator(options, others, one_rate=one_rate), announce))


async def _until_signalled(starting: Awaitable[Simulator], announce: Callable[[str], None]) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with await starting as simulator:
        announce(simulator.url)
        await ended.wait()


def _application(keys: Keys) -> web.Application:
    application = web.Application()
    application.cleanup_ctx.extend(account.run_neighbour for account in keys.accounts)
    application.add_routes(
        [
            web.get("/api/evaluation/{eval_id:[^/]+}/documents", keys.documents, allow_head=False),
            web.get("/api/evaluation/{eval_id:[^/]+}", keys.record, allow_head=False),
            web.get(ELSEWHERE, keys.first.elsewhere, allow_head=False),
            *control.routes(keys),
        ]
    )
    return application
