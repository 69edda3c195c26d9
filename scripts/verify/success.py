"""Record the time of a success in Redis, from where the metrics of workers and `serve` show it."""

import asyncio

import click
from redis.exceptions import RedisError

from tasks.ledger.last_success import LastSuccess, NightlyCommand
from worker.clients.errors import ServiceUnavailable
from worker.clients.redis import open_redis

_SECONDS = 2.0


async def record_success(redis_url: str, command: NightlyCommand) -> None:
    """Record that a nightly command succeeded; a failure of Redis does not change the result."""
    try:
        async with asyncio.timeout(2 * _SECONDS), open_redis(redis_url, 1, seconds=_SECONDS, retries=0) as redis:
            await LastSuccess(redis, command).record()
    except (RedisError, OSError, ServiceUnavailable) as error:
        click.echo(
            f"docv-archive: Redis did not record this success ({type(error).__name__}), so "
            f"docv_{command.name.lower()}_last_success_timestamp_seconds still shows the previous one",
            err=True,
        )
