"""When `verify` last found no difference in the archive, for the metrics that all processes share.

A command that ends cannot be scraped, so it leaves the time in Redis.
"""

import math

from redis.asyncio import Redis

_KEY = "docv:verify:last_success"
"""STRING: seconds since the epoch, of Redis's clock."""


class LastVerified:
    """The time of the last success, in Redis.

    Args:
        redis: the client, with ``decode_responses``.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def record(self) -> None:
        """Record a success now."""
        seconds, _ = await self._redis.time()
        await self._redis.set(_KEY, seconds)

    async def get(self) -> float:
        """Return the time of the last success; 0 if there was none, or if its text is damaged."""
        try:
            at = float(await self._redis.get(_KEY) or 0)
        except ValueError:
            return 0.0
        return at if math.isfinite(at) else 0.0
