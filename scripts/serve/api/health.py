"""Is this process alive, and does what it needs answer?"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from scripts.serve.http.responses import json_response

_FRESH_SECONDS = 1.0


class HealthApi:
    """Asks what this process needs, at most once a second, however often somebody wants to know.

    Args:
        checks: what is needed, and how to see that it answers: by an exception if it does not.
        seconds: how long it may take to answer.
        clock: seconds of a clock that never goes back.
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
        self._turn = asyncio.Lock()
        self._asked: dict[str, asyncio.Task[object]] = {}
        self._found: dict[str, bool] = {}
        self._looked: float | None = None

    async def live(self, _: web.Request) -> web.Response:
        """Answer ``GET /livez``: whoever can, is alive."""
        return json_response(200, {"alive": True})

    async def ready(self, _: web.Request) -> web.Response:
        """Answer ``GET /readyz``."""
        async with self._turn:
            if self._looked is None or self._clock() - self._looked >= _FRESH_SECONDS:
                answers = await asyncio.gather(*map(self._answers, self._checks))
                self._found = dict(zip(self._checks, answers, strict=True))
                self._looked = self._clock()
        return json_response(200 if all(self._found.values()) else 503, self._found)

    async def close(self, *_: object) -> None:
        """Wait for nothing any more."""
        for task in self._asked.values():
            task.cancel()
        await asyncio.gather(*self._asked.values(), return_exceptions=True)

    async def _answers(self, name: str) -> bool:
        """Return whether it answers in time; who has not answered yet is not asked a second time."""
        task = self._asked.pop(name, None) or asyncio.ensure_future(self._checks[name]())
        await asyncio.wait({task}, timeout=self._seconds)
        if not task.done():
            self._asked[name] = task
            return False
        return not task.cancelled() and task.exception() is None
