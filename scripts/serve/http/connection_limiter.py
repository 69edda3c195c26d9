"""How many are in here, and how many of them are being answered."""

import asyncio
import contextlib
from collections import Counter

from scripts.serve.http.limits import HttpLimits


class ConnectionLimiter:
    """How many connections there are, in all and from each address, and how many requests are under way.

    Attributes:
        closing: whether each connection ends with its next answer.
    """

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._taken: Counter[str] = Counter()
        self._all = 0
        self._under_way = 0
        self._quiet = asyncio.Event()
        self.closing = False

    def enter(self, address: str) -> bool:
        """Take a place; return whether there was one."""
        if self._all >= self._limits.connections or self._taken[address] >= self._limits.connections_per_address:
            return False
        self._all += 1
        self._taken[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Give a place back."""
        self._all -= 1
        self._taken[address] -= 1
        if not self._taken[address]:
            del self._taken[address]

    def request_started(self) -> None:
        """A request is under way."""
        self._under_way += 1
        self._quiet.clear()

    def request_ended(self) -> None:
        """It is answered."""
        self._under_way -= 1
        if not self._under_way:
            self._quiet.set()

    async def close(self) -> None:
        """Let the requests under way come to their end, within their time.

        aiohttp's own farewell would not: it listens to nobody any more, not even to the rest of a body.
        """
        self.closing = True
        if self._under_way:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.shutdown_seconds):
                    await self._quiet.wait()
