"""Store the rates of the last hour for the chart: configured, allowed and sent.

They are stored in this process: they are not worth a write to Redis, and `/metrics` covers more than an hour. The chart
of a process that has just started is empty.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web
from redis.exceptions import RedisError

from scripts.serve.page.rate_chart import HOUR, Point, RateChart, draw_chart
from tasks.consumer.loop import Loop, run_loop
from tasks.resilience.adaptive_rate import RateStatus

_EVERY = 10.0


class RateHistory:
    """The rate of an account, every ten seconds of the last hour.

    Args:
        read: reads the rate.
        every: seconds between two reads.
    """

    def __init__(self, read: Callable[[], Awaitable[RateStatus]], every: float = _EVERY) -> None:
        self._read, self._every = read, every
        self._points: deque[Point] = deque(maxlen=round(HOUR / _EVERY))

    async def record(self) -> None:
        """Read the rate once; if Redis does not answer there is a gap."""
        now = round(time.time())
        try:
            rate = await self._read()
        except (RedisError, OSError):
            self._points.append((now, None, None, None))
        else:
            self._points.append((now, rate.configured, round(rate.effective, 3), round(rate.observed, 3)))

    async def run(self, _: web.Application) -> AsyncIterator[None]:
        """Record the rate while the application runs."""
        task = asyncio.create_task(run_loop(Loop("rate_history", self._every, self.record)))
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def chart(self) -> RateChart:
        """Return the chart of the last hour."""
        return draw_chart(self._points)
