"""Open the client of Redis, and check that Redis works."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import AuthenticationError, OutOfMemoryError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.clients import sentinel
from worker.clients.errors import ServiceUnavailable
from worker.clients.primary import async_primary_only, check_writable
from worker.clients.redis_errors import explain_redis_error, find_problem_of_mode
from worker.config.redis_url import is_sentinel_url

_CHECK_SECONDS = 10.0
# The ledger needs ZMSCORE, which was added in 6.2.
_OLDEST = (6, 2)


class _RetryUnlessRefused(Retry):
    """Retries unless Redis refuses the login, which redis-py also raises as a connection error."""

    async def call_with_retry(
        self,
        do: Any,
        fail: Any,
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,  # noqa: FBT001, FBT002  # as redis-py has it
    ) -> Any:
        def may_help(error: Exception) -> bool:
            return not isinstance(error, AuthenticationError) and (is_retryable is None or is_retryable(error))

        return await super().call_with_retry(do, fail, may_help, with_failure_count)


@contextlib.asynccontextmanager
async def open_redis(
    url: str, connections: int = 8, *, seconds: float = 10.0, retries: int = 5
) -> "AsyncIterator[Redis]":
    """Open a client of Redis, which retries its calls for a few seconds if the connection breaks.

    Args:
        url: URL of Redis.
        connections: maximum number of concurrent calls, besides a few that block in Redis.
        seconds: timeout of one attempt of a call.
        retries: attempts after the first one; few if a user waits for the result.
    """
    options: dict[str, Any] = {
        "timeout": seconds,
        "decode_responses": True,
        # A damaged byte must not make the whole answer unreadable.
        "encoding_errors": "replace",
        "max_connections": connections + 8,
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds / 2,
        "health_check_interval": 30,
        "retry": _RetryUnlessRefused(ExponentialBackoff(cap=2.0, base=0.05), retries=retries),
        "retry_on_error": [RedisConnectionError, RedisTimeoutError],
    }
    async with contextlib.AsyncExitStack() as stack:
        if is_sentinel_url(url):
            pool: ConnectionPool = await stack.enter_async_context(sentinel.open_pool(url, **options))
        else:
            pool = BlockingConnectionPool.from_url(url, **options)
        pool.connection_class = async_primary_only(pool.connection_class)
        yield await stack.enter_async_context(Redis.from_pool(pool))


async def check_redis(redis: "Redis") -> None:
    """Check that Redis answers, accepts writes, and has the commands that the ledger needs.

    Raises:
        ServiceUnavailable: one of these checks failed.
    """
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            facts = await redis.info("server")
            if problem := find_problem_of_mode(facts):
                raise ServiceUnavailable(str(problem))
            await check_writable(redis)
    except (RedisError, OSError) as error:
        raise ServiceUnavailable(str(explain_redis_error(error))) from None
    version = str(facts.get("redis_version", ""))
    if is_too_old(version):
        raise ServiceUnavailable(
            f"Redis is of version {version}, which is too old: 6.2 or newer is needed, or any Valkey"
        )


def is_too_old(version: str) -> bool:
    """Return whether a Redis of this version lacks commands of the ledger; an unknown version is accepted."""
    major, dot, rest = version.partition(".")
    minor = rest.partition(".")[0]
    return bool(dot) and major.isdecimal() and minor.isdecimal() and (int(major), int(minor)) < _OLDEST


def is_full(error: Exception) -> bool:
    """Return whether an error, or one of its causes, says that Redis is full."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OutOfMemoryError) or "maxmemory" in str(found):
            return True
        found = found.__cause__
    return False
