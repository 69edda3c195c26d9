"""Limit the number of connections, and count the requests under way."""

import asyncio
import contextlib
from collections import Counter, defaultdict
from typing import Protocol

from scripts.serve.http.limits import HttpLimits


class Replaceable(Protocol):
    """A connection that can be closed in favour of another one."""

    def close_for_another(self) -> None:
        """Close the connection now."""


class ConnectionLimiter:
    """Limits connections, in all and from each address, and counts the requests under way.

    At the limit, the oldest connection that has not shown a valid secret is replaced by a new one. So a client without
    a secret cannot keep others out.

    Attributes:
        closing: whether each connection is closed after its next response.
    """

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._taken: Counter[str] = Counter()
        self._all = 0
        self._untrusted: dict[Replaceable, str] = {}
        self._strangers_of: defaultdict[str, dict[Replaceable, None]] = defaultdict(dict)
        self._under_way = 0
        self._quiet = asyncio.Event()
        self.closing = False

    def enter(self, connection: Replaceable, address: str) -> bool:
        """Take a slot; return whether one was free, or another connection was replaced."""
        if self._taken[address] >= self._limits.connections_per_address:
            oldest = next(iter(self._strangers_of.get(address, ())), None)
        elif self._all >= self._limits.connections:
            oldest = next(iter(self._untrusted), None)
        else:
            oldest = connection
        if oldest is None:
            return False
        if oldest is not connection:
            self.trust(oldest)
            oldest.close_for_another()
        self._all += 1
        self._taken[address] += 1
        self._untrusted[connection] = address
        self._strangers_of[address][connection] = None
        return True

    def trust(self, connection: Replaceable) -> None:
        """Protect a connection from being replaced: it has shown a valid secret."""
        address = self._untrusted.pop(connection, None)
        if address is not None:
            self._strangers_of[address].pop(connection, None)
            if not self._strangers_of[address]:
                del self._strangers_of[address]

    def leave(self, connection: Replaceable, address: str) -> None:
        """Return a slot."""
        self.trust(connection)
        self._all -= 1
        self._taken[address] -= 1
        if not self._taken[address]:
            del self._taken[address]

    def request_started(self) -> None:
        """Count a request under way."""
        self._under_way += 1
        self._quiet.clear()

    def request_ended(self) -> None:
        """Count a request as answered."""
        self._under_way -= 1
        if not self._under_way:
            self._quiet.set()

    async def close(self) -> None:
        """Wait for the requests under way, at most ``shutdown_seconds``.

        aiohttp's own shutdown does not: it reads nothing more, not even the rest of a body.
        """
        self.closing = True
        if self._under_way:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.shutdown_seconds):
                    await self._quiet.wait()
