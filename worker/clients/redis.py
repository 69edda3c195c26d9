"""The client of Redis: opened, and seen to answer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.clients import sentinel
from worker.clients.errors import ServiceUnavailable
from worker.config.redis_url import is_sentinel_url

_CHECK_SECONDS = 10.0
# ZMSCORE, which the ledger needs, came with it.
_OLDEST = (6, 2)


@contextlib.asynccontextmanager
async def open_redis(
    url: str, connections: int = 8, *, seconds: float = 10.0, retries: int = 5
) -> "AsyncIterator[Redis]":
    """Open a client of Redis; its calls are tried again for a few seconds when the connection breaks.

    Args:
        url: where it is.
        connections: calls that may be under way at once; a few more are for what waits in Redis.
        seconds: longest time for one try of a call.
        retries: tries after the first; who has to answer somebody has little time for them.
    """
    options: dict[str, Any] = {
        "timeout": seconds,
        "decode_responses": True,
        "max_connections": connections + 8,
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds / 2,
        "health_check_interval": 30,
        "retry": Retry(ExponentialBackoff(cap=2.0, base=0.05), retries=retries),
        "retry_on_error": [RedisConnectionError, RedisTimeoutError],
    }
    async with contextlib.AsyncExitStack() as stack:
        if is_sentinel_url(url):
            pool: ConnectionPool = await stack.enter_async_context(sentinel.open_pool(url, **options))
        else:
            pool = BlockingConnectionPool.from_url(url, **options)
        yield await stack.enter_async_context(Redis.from_pool(pool))


async def check_redis(redis: "Redis") -> None:
    """See that Redis answers, and knows the commands that the ledger needs.

    Raises:
        ServiceUnavailable: it does not.
    """
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            version = str((await redis.info("server")).get("redis_version", ""))
    except (RedisError, OSError) as error:
        # Only its kind: texts of Redis's client may hold the password of its URL.
        raise ServiceUnavailable(
            f"Redis does not answer ({type(error).__name__}): see that it runs and DOCV_REDIS_URL names it"
        ) from None
    if is_too_old(version):
        raise ServiceUnavailable(
            f"Redis is of version {version}, which is too old: 6.2 or newer is needed, or any Valkey"
        )


def is_too_old(version: str) -> bool:
    """Return whether a Redis of this version lacks what the ledger needs; one that tells no version does not."""
    major, dot, rest = version.partition(".")
    minor = rest.partition(".")[0]
    return bool(dot) and major.isdecimal() and minor.isdecimal() and (int(major), int(minor)) < _OLDEST


def is_full(error: Exception) -> bool:
    """Return whether Redis refused something because it is full, in whatever error that came wrapped."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OutOfMemoryError) or "maxmemory" in str(found):
            return True
        found = found.__cause__
    return False
