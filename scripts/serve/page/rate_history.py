"""The rate of the last hour, asked and reached, for the chart.

It is kept in this process: a look is no fact worth a write, a full Redis must not be bothered with it, and whoever
wants more than an hour has `/metrics`. A process that has just started begins with an empty chart.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web
from redis.exceptions import RedisError

from scripts.serve.auth.roles import Caller
from scripts.serve.http.responses import json_response
from tasks.resilience.adaptive_rate import RateStatus

_EVERY = 10.0
_HOUR = 3600.0
Point = tuple[int, float | None, float | None, float | None]


class RateHistory:
    """One look each ten seconds.

    Args:
        see: how to look.
        every: seconds between looks.
    """

    def __init__(self, see: Callable[[], Awaitable[RateStatus]], every: float = _EVERY) -> None:
        self._read_overview, self._every = see, every
        self._ended = asyncio.Event()
        self._points: deque[Point] = deque(maxlen=round(_HOUR / _EVERY))

    async def record(self) -> None:
        """Look once; where Redis does not answer there is a gap."""
        now = round(time.time())
        try:
            rate = await self._read_overview()
        except (RedisError, OSError):
            self._points.append((now, None, None, None))
        else:
            self._points.append((now, rate.configured, round(rate.effective, 3), round(rate.observed, 3)))

    async def run(self, _: web.Application) -> AsyncIterator[None]:
        """Look for as long as the application lives."""
        task = asyncio.create_task(self._again_and_again())
        yield
        # Should a cancellation get lost on its way through Redis's client, the event ends it.
        self._ended.set()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def show(self, _: web.Request, __: Caller) -> web.Response:
        """Answer ``GET /page/rate``: four lists for uPlot, moments first."""
        return json_response(200, [list(column) for column in zip(*self._points, strict=True)] or [[], [], [], []])

    async def _again_and_again(self) -> None:
        while not self._ended.is_set():
            await self.record()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._ended.wait()
