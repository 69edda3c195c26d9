"""A budget of bytes that many tasks share.

Small reservations are granted first, but a reservation is only overtaken a limited number of times. The limit grows
with its size. Urgent reservations come before all others, and a part of the budget is kept for them.
"""

import asyncio
import contextlib
import heapq
from collections.abc import AsyncIterator
from dataclasses import dataclass

_OVERTAKEN_BY = 64


@dataclass(slots=True)
class Reservation:
    """A part of a budget.

    Attributes:
        budget: the budget.
        amount: bytes that it holds now.
        is_urgent: see ``ByteBudget.reserve``.
    """

    budget: "ByteBudget"
    amount: int
    is_urgent: bool = False

    async def resize(self, amount: int) -> None:
        """Change to an amount, and wait for it if the budget does not have it now.

        The reservation holds nothing while it waits. Tasks that hold a part and wait for more could deadlock.
        """
        if amount > self.amount and not self.try_grow(amount):
            self.shrink(0)
            await self.budget.acquire(self, amount)
        self.shrink(amount)

    def try_grow(self, amount: int) -> bool:
        """Change to a larger amount if the budget has it now; return whether it did."""
        if not self.budget.take(amount - self.amount, is_urgent=self.is_urgent):
            return False
        self.amount = amount
        return True

    def shrink(self, amount: int) -> None:
        """Keep at most this amount and return the rest to the budget."""
        excess = max(0, self.amount - amount)
        self.amount -= excess
        self.budget.give_back(excess)


class ByteBudget:
    """A budget of bytes.

    Args:
        most: bytes of the whole budget.
        for_urgent: bytes of it that only urgent reservations get.
    """

    def __init__(self, most: int, for_urgent: int = 0) -> None:
        self._most = most
        self._left = most
        self._for_urgent = for_urgent
        self._arrived = 0
        self._waiting: list[tuple[bool, float, int, int, asyncio.Future[None]]] = []

    @contextlib.asynccontextmanager
    async def reserve(self, amount: int, *, is_urgent: bool = False) -> AsyncIterator["Reservation"]:
        """Reserve an amount for as long as the block lasts; a larger amount than the budget gets the whole budget.

        Args:
            is_urgent: whether it comes before all reservations that are not urgent.
        """
        reservation = Reservation(self, 0, is_urgent)
        await self.acquire(reservation, amount)
        try:
            yield reservation
        finally:
            reservation.shrink(0)

    def take(self, amount: int, *, is_urgent: bool) -> bool:
        """Take an amount if the budget has it now; return whether it did."""
        kept = 0 if is_urgent or self._left == self._most else self._for_urgent
        if amount > self._left - kept:
            return False
        self._left -= amount
        return True

    def give_back(self, amount: int) -> None:
        """Return an amount to the budget and grant waiting reservations."""
        self._left += amount
        self._grant()

    async def acquire(self, reservation: Reservation, amount: int) -> None:
        """Wait for an amount for a reservation that holds nothing."""
        amount = min(amount, self._most)
        self._arrived += 1
        granted = asyncio.get_running_loop().create_future()
        rank = self._arrived + _OVERTAKEN_BY * amount / self._most
        heapq.heappush(self._waiting, (not reservation.is_urgent, rank, self._arrived, amount, granted))
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._left += amount
            granted.cancel()
            self._grant()
            raise
        reservation.amount = amount

    def _grant(self) -> None:
        """Grant waiting reservations in order; none may pass the first one, or large ones would wait forever."""
        while self._waiting:
            is_ordinary, _, _, amount, granted = self._waiting[0]
            if not granted.done():
                if not self.take(amount, is_urgent=not is_ordinary):
                    return
                granted.set_result(None)
            heapq.heappop(self._waiting)
