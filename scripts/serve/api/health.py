"""Report whether this process is alive, and whether Redis and the archive answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from scripts.serve.http.responses import json_response

_FRESH_SECONDS = 1.0


class HealthApi:
    """Checks the services that this process needs, at most once per second.

    Args:
        checks: a check for each service, by its name; it raises an exception if the service does not answer.
        seconds: time limit for a check.
        clock: returns the seconds of a monotonic clock.
    """

    def __init__(
        self,
        checks: Mapping[str, Callable[[], Awaitable[object]]],
        *,
        seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checks = checks
        self._seconds = seconds
        self._clock = clock
        self._lock = asyncio.Lock()
        self._running: dict[str, asyncio.Task[object]] = {}
        self._found: dict[str, bool] = {}
        self._checked_at: float | None = None

    async def live(self, _: web.Request) -> web.Response:
        """Answer ``GET /livez``: a process that answers is alive."""
        return json_response(200, {"alive": True})

    async def ready(self, _: web.Request) -> web.Response:
        """Answer ``GET /readyz``."""
        async with self._lock:
            if self._checked_at is None or self._clock() - self._checked_at >= _FRESH_SECONDS:
                answers = await asyncio.gather(*map(self._answers, self._checks))
                self._found = dict(zip(self._checks, answers, strict=True))
                self._checked_at = self._clock()
        return json_response(200 if all(self._found.values()) else 503, self._found)

    async def close(self, *_: object) -> None:
        """Cancel the checks that are still running."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _answers(self, name: str) -> bool:
        """Return whether a service answers in time; a check that still runs is not started again."""
        task = self._running.get(name) or asyncio.ensure_future(self._checks[name]())
        # Kept while it runs, so that close() cancels it even if the request is cancelled.
        self._running[name] = task
        await asyncio.wait({task}, timeout=self._seconds)
        if not task.done():
            return False
        del self._running[name]
        return not task.cancelled() and task.exception() is None
