"""A Redis that Sentinel watches: who of its servers is the primary is asked whenever a connection is made."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

from redis.asyncio import BlockingConnectionPool, ConnectionPool
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

from worker.config.redis_url import parse_sentinel_url

# A Sentinel that does not answer soon is passed over for the next one.
_ASKING = {"socket_timeout": 2.0, "socket_connect_timeout": 2.0}


class _PrimaryPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the primary; who finds none free waits for one."""


@contextlib.asynccontextmanager
async def open_pool(url: str, **options: Any) -> AsyncIterator[ConnectionPool]:
    """Open a pool of connections to the primary; whoever takes the pool closes it.

    Args:
        url: of a watched Redis.
        options: of the connections, as ``BlockingConnectionPool`` takes them.
    """
    watched = parse_sentinel_url(url)
    named = {"db": watched.database, "username": watched.username, "password": watched.password}
    asking = Sentinel(watched.sentinels, sentinel_kwargs=dict(_ASKING))  # type: ignore[no-untyped-call]
    async with asking:
        yield _PrimaryPool(watched.service, asking, **named, **options)  # type: ignore[no-untyped-call]


def kombu_url(url: str) -> str:
    """Return the URL of a watched Redis as kombu writes it: one for each Sentinel, each with all of the rest."""
    watched = parse_sentinel_url(url)
    user = f"{quote(watched.username or '', safe='')}:{quote(watched.password, safe='')}@" if watched.password else ""
    return ";".join(
        f"sentinel://{user}{f'[{host}]' if ':' in host else host}:{port}/{watched.database}"
        for host, port in watched.sentinels
    )


def kombu_options(url: str) -> dict[str, Any]:
    """Return the options by which kombu finds the primary."""
    return {"master_name": parse_sentinel_url(url).service, "sentinel_kwargs": dict(_ASKING)}


def same_primary(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return, out of the options of one connection of kombu, those by which another finds the same primary."""
    return {name: options[name] for name in ("master_name", "sentinel_kwargs") if name in options}
