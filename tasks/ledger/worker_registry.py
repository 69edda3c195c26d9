"""Which workers are there: each says so every second, and who has not for a while is gone."""

import contextlib
from collections.abc import Collection

from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from tasks.model.job import Queue

_PREFIX = "docv:workers:"
"""ZSET for each queue: worker -> when it last said that it serves it, seconds of Redis's clock."""
_GONE = 15.0


class WorkerRegistry:
    """The workers of each queue, in Redis.

    Args:
        redis: the client, with ``decode_responses``.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def heartbeat(self, worker: str, queues: Collection[Queue]) -> None:
        """Say that a worker is there; a full Redis does not take it, and that is no reason to stop."""
        now, _ = await self._redis.time()
        async with self._redis.pipeline(transaction=False) as pipe:
            for queue in queues:
                pipe.zremrangebyscore(_PREFIX + queue, "-inf", now - _GONE)
                pipe.zadd(_PREFIX + queue, {worker: now})
            with contextlib.suppress(OutOfMemoryError):
                await pipe.execute()

    async def deregister(self, worker: str) -> None:
        """Say that it is no more."""
        async with self._redis.pipeline(transaction=True) as pipe:
            for queue in Queue:
                pipe.zrem(_PREFIX + queue, worker)
            await pipe.execute()

    async def count(self) -> dict[Queue, int]:
        """Return how many workers serve each queue."""
        now, _ = await self._redis.time()
        async with self._redis.pipeline(transaction=True) as pipe:
            for queue in Queue:
                pipe.zcount(_PREFIX + queue, now - _GONE, "+inf")
            return dict(zip(Queue, await pipe.execute(), strict=True))
