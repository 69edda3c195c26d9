"""The client of Redis: opened, seen to answer, and to keep what it is told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import structlog
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker import sentinel
from worker.redis_url import is_watched
from worker.unreachable import Unreachable

_log = structlog.get_logger("docv.resources")
_TIMEOUT = 10.0
_CHECK_SECONDS = 10.0
# ZMSCORE, which the ledger needs, came with it.
_OLDEST = (6, 2)


class NotReplicated(RedisError):
    """Redis has what it was told, and too few of its replicas do: a failover now would lose it.

    Args:
        found: replicas that have it.
        wanted: how many should.
    """

    def __init__(self, found: int, wanted: int) -> None:
        super().__init__(found, wanted)
        self.found, self.wanted = found, wanted

    def __str__(self) -> str:
        return f"{self.found} of {self.wanted} replicas of Redis have what was to be accepted"


@contextlib.asynccontextmanager
async def open_redis(
    url: str, connections: int = 8, *, seconds: float = _TIMEOUT, retries: int = 5
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
        if is_watched(url):
            pool: ConnectionPool = await stack.enter_async_context(sentinel.open_pool(url, **options))
        else:
            pool = BlockingConnectionPool.from_url(url, **options)
        yield await stack.enter_async_context(Redis.from_pool(pool))


async def check_redis(redis: "Redis") -> None:
    """See that Redis answers, and knows the commands that the ledger needs.

    Raises:
        Unreachable: it does not.
    """
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            version = str((await redis.info("server")).get("redis_version", ""))
    except (RedisError, OSError) as error:
        raise Unreachable(
            f"Redis does not answer ({_short(error)}): see that it runs and DOCV_REDIS_URL names it"
        ) from None
    if is_too_old(version):
        raise Unreachable(f"Redis is of version {version}, which is too old: 6.2 or newer is needed, or any Valkey")


def is_too_old(version: str) -> bool:
    """Return whether a Redis of this version lacks what the ledger needs; one that tells no version does not."""
    major, dot, rest = version.partition(".")
    minor = rest.partition(".")[0]
    return bool(dot) and major.isdecimal() and minor.isdecimal() and (int(major), int(minor)) < _OLDEST


async def check_keeping(redis: "Redis", *, strict: bool) -> None:
    """See that Redis keeps what it is told: an append-only file, and nothing evicted.

    Raises:
        Unreachable: it may lose some of it, and the settings are strict about that.
    """
    facts = await redis.info()
    faults = []
    if not int(facts.get("aof_enabled", 0)):
        faults.append("it has no append-only file, so that a restart forgets what was accepted: set appendonly yes")
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        faults.append(f"when it is full it throws away what was accepted ({policy}): set maxmemory-policy noeviction")
    _tell(faults, strict=strict)


async def check_syncing(redis: "Redis", *, strict: bool) -> None:
    """See that what Redis is told is on its disk before it answers: for whoever answers others on its word.

    With ``everysec`` a crash of its process alone loses up to two seconds of what it has acknowledged: while an fsync
    takes long it puts off writing, too (seen with a disk that takes 0.7 s: 16 of 500). Nothing is said where the server
    does not tell how it is set.

    Raises:
        Unreachable: it may lose some of it, and the settings are strict about that.
    """
    if await syncing(redis) not in {None, "always"}:
        _tell(["its crash may lose the last two seconds of what was accepted: set appendfsync always"], strict=strict)


async def syncing(redis: "Redis") -> str | None:
    """Return how Redis is set to sync its file, None where it does not tell: services of a cloud refuse ``CONFIG``."""
    try:
        return str((await redis.config_get("appendfsync"))["appendfsync"])
    except (ResponseError, KeyError):
        return None


def _tell(faults: Iterable[str], *, strict: bool) -> None:
    for fault in faults:
        if strict:
            raise Unreachable(f"Redis may lose evaluations, and DOCV_STRICT is set: {fault}")
        _log.error("redis.may_lose", fault=fault)


def _short(error: Exception) -> str:
    """An error's kind; texts of Redis's client may hold the password of its URL."""
    return type(error).__name__


def is_full(error: Exception) -> bool:
    """Return whether Redis refused something because it is full, in whatever error that came wrapped."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OutOfMemoryError) or "maxmemory" in str(found):
            return True
        found = found.__cause__
    return False
