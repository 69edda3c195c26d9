"""A budget that many share, such as memory: who may have his part next?

The smallest goes first, but nobody is overtaken for ever: each may be overtaken by so many only, the larger his part,
the more.
"""

import asyncio
import contextlib
import heapq
from collections.abc import AsyncIterator

_OVERTAKEN_BY = 64


class ByteBudget:
    """A budget of something that is counted.

    Args:
        most: how much there is.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = most
        self._arrived = 0
        self._waiting: list[tuple[float, int, int, asyncio.Future[None]]] = []

    @contextlib.asynccontextmanager
    async def reserve(self, amount: int) -> AsyncIterator[None]:
        """Have a part for as long as the block lasts; who asks for more than there is gets all of it, alone."""
        amount = min(amount, self._most)
        await self._acquire(amount)
        try:
            yield
        finally:
            self._left += amount
            self._grant()

    async def _acquire(self, amount: int) -> None:
        self._arrived += 1
        turn = asyncio.get_running_loop().create_future()
        rank = self._arrived + _OVERTAKEN_BY * amount / self._most
        heapq.heappush(self._waiting, (rank, self._arrived, amount, turn))
        self._grant()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._left += amount
            turn.cancel()
            self._grant()
            raise

    def _grant(self) -> None:
        """Give their part to those who are next; nobody passes who is not, for the large ones would wait for ever."""
        while self._waiting:
            _, _, amount, turn = self._waiting[0]
            if not turn.done():
                if amount > self._left:
                    return
                self._left -= amount
                turn.set_result(None)
            heapq.heappop(self._waiting)
