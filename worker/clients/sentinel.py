"""Connect to a Redis behind Sentinel, which names the current primary for every new connection."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

from redis.asyncio import BlockingConnectionPool, ConnectionPool
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

from worker.config.redis_url import SentinelUrl, parse_sentinel_url

# After this time, the next Sentinel is tried.
_TIMEOUTS = {"socket_timeout": 2.0, "socket_connect_timeout": 2.0}


class _PrimaryPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the primary; a caller waits if none is free."""


@contextlib.asynccontextmanager
async def open_pool(url: str, **options: Any) -> AsyncIterator[ConnectionPool]:
    """Open a pool of connections to the primary. The caller must close the pool.

    Args:
        url: URL with Sentinels.
        options: the options of ``BlockingConnectionPool``.
    """
    parsed = parse_sentinel_url(url)
    named = {"db": parsed.database, "username": parsed.username, "password": parsed.password, **_tls_options(parsed)}
    sentinel = Sentinel(parsed.sentinels, sentinel_kwargs=_sentinel_options(parsed))  # type: ignore[no-untyped-call]
    async with sentinel:
        yield _PrimaryPool(parsed.service, sentinel, **named, **options)  # type: ignore[no-untyped-call]


def kombu_url(url: str) -> str:
    """Return kombu's form of a URL with Sentinels: a complete URL for each Sentinel."""
    parsed = parse_sentinel_url(url)
    user = f"{quote(parsed.username or '', safe='')}:{quote(parsed.password, safe='')}@" if parsed.password else ""
    return ";".join(
        f"sentinel://{user}{f'[{host}]' if ':' in host else host}:{port}/{parsed.database}"
        for host, port in parsed.sentinels
    )


def kombu_options(url: str) -> dict[str, Any]:
    """Return the options with which kombu finds the primary."""
    parsed = parse_sentinel_url(url)
    return {"master_name": parsed.service, "sentinel_kwargs": _sentinel_options(parsed)}


def kombu_tls(url: str) -> dict[str, Any] | None:
    """Return kombu's TLS options for the primary; None without TLS."""
    parsed = parse_sentinel_url(url)
    return None if parsed.tls is None else {"ssl_cert_reqs": "required", "ssl_check_hostname": True, **parsed.tls}


def _sentinel_options(parsed: SentinelUrl) -> dict[str, Any]:
    login = {"username": parsed.sentinel_username, "password": parsed.sentinel_password}
    return {**_TIMEOUTS, **{name: value for name, value in login.items() if value}, **_tls_options(parsed)}


def _tls_options(parsed: SentinelUrl) -> dict[str, Any]:
    return {} if parsed.tls is None else {"ssl": True, **parsed.tls}


def primary_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a kombu connection that lead another connection to the same primary."""
    return {name: options[name] for name in ("master_name", "sentinel_kwargs") if name in options}
