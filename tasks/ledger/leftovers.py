"""Remember objects that a worker wrote while their evaluation was erased, until `erase --pending` removes them."""

from collections.abc import Collection

from redis.asyncio import Redis

_KEY = "docv:erased:leftovers"
"""SET of keys in the archive."""


class Leftovers:
    """The keys of leftover objects, in Redis.

    Args:
        redis: the client, with ``decode_responses``.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._unwritten: set[str] = set()

    def add(self, keys: Collection[str]) -> None:
        """Remember objects in memory until ``flush``, because Redis may be unavailable now."""
        self._unwritten.update(keys)

    async def flush(self) -> None:
        """Write the remembered objects to Redis.

        Raises:
            RedisError: they were not written; the next call tries again.
        """
        if keys := sorted(self._unwritten):
            await self._redis.sadd(_KEY, *keys)
            self._unwritten.difference_update(keys)

    async def count(self) -> int:
        """Return the number of objects in Redis."""
        return int(await self._redis.scard(_KEY))

    async def list_all(self) -> list[str]:
        """Return the keys of the objects in Redis, sorted."""
        return sorted(map(str, await self._redis.smembers(_KEY)))

    async def remove(self, keys: Collection[str]) -> None:
        """Forget objects that were removed."""
        if keys:
            await self._redis.srem(_KEY, *keys)
