"""Process many items concurrently, and yield the results in order."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def ordered_gather(limit: int, work: Callable[[T], Awaitable[R]], things: AsyncIterator[T]) -> AsyncIterator[R]:
    """Yield the result of each item; at most ``limit`` items are processed, or wait to be yielded, at a time."""
    under_way: deque[asyncio.Future[R]] = deque()
    try:
        async for thing in things:
            under_way.append(asyncio.ensure_future(work(thing)))
            if len(under_way) >= limit:
                yield await under_way.popleft()
        while under_way:
            yield await under_way.popleft()
    finally:
        for left in under_way:
            left.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
