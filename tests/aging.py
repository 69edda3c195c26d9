"""Make entries in Redis older than they are, so that tests do not have to wait."""

from redis.asyncio import Redis

from tasks.model.job import Queue


async def age_queued_evaluations(redis: Redis) -> None:
    """Make queued evaluations a minute older; for a minute, the ledger assumes that a worker has their message."""
    for queue in Queue:
        key = f"docv:ledger:queued:{queue}"
        aged = {eval_id: since - 60_000 for eval_id, since in await redis.zrange(key, 0, -1, withscores=True)}
        if aged:
            await redis.zadd(key, aged, xx=True)
