"""Read how long the oldest dead letter has waited for an operator."""

import math

from redis.asyncio import Redis

from tasks.ledger.entries import KEY_PREFIX


async def read_dead_letter_age(redis: "Redis") -> float:
    """Return the seconds since the last attempt of the oldest dead letter; 0 without one."""
    async with redis.pipeline(transaction=True) as pipe:
        pipe.time()
        pipe.zrange(f"{KEY_PREFIX}causes", 0, -1)
        (seconds, micro), causes = await pipe.execute()
    async with redis.pipeline(transaction=True) as pipe:
        for cause in causes:
            pipe.zrange(f"{KEY_PREFIX}dead:{cause}", 0, 0, withscores=True)
        found = await pipe.execute() if causes else []
    # A damaged score may be infinite.
    failed_at = [score for rows in found for _, score in rows if math.isfinite(score)]
    return max(0.0, seconds + micro / 1e6 - min(failed_at) / 1000) if failed_at else 0.0
