"""Sentinels with a login, and TLS to them and to Redis, with real servers behind a TLS proxy."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kombu import Connection
from pydantic import SecretStr
from redis.exceptions import RedisError

from tests.faults.redis_server import RedisServer, SentinelServer
from tests.tls import server_context, tls_server
from worker.app import make_publishing_app
from worker.clients.redis import open_redis
from worker.config.settings import Settings

LOGIN = "sentinel_username=asker&sentinel_password=word-of-the-sentinels"


@dataclass(frozen=True)
class SentinelAddresses:
    """The addresses of a Sentinel, with and without TLS, and the authority of its certificate."""

    plain: int
    tls: int
    authority: Path

    def url(self, login: str = LOGIN) -> str:
        return f"redis+sentinel://:word-of-redis@127.0.0.1:{self.plain}/docv?{login}"

    def tls_url(self) -> str:
        return f"rediss+sentinel://:word-of-redis@127.0.0.1:{self.tls}/docv?{LOGIN}&ssl_ca_certs={self.authority}"


@pytest.fixture(params=["127.0.0.1"])
async def secured_sentinel(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SentinelAddresses]:
    """Run a Redis with a password, and a Sentinel with a login that names the port of Redis's TLS proxy."""
    context, authority = server_context(tmp_path, request.param)
    redis = RedisServer(tmp_path / "redis", "--requirepass", "word-of-redis")
    await redis.start()
    with tls_server(context, redis.port) as primary:
        lines = (
            "sentinel auth-pass docv word-of-redis",
            "user default off",
            "user asker on >word-of-the-sentinels allchannels +@all",
        )
        sentinel = SentinelServer(tmp_path / "sentinel", "docv", primary.port, *lines)
        await sentinel.start()
        with tls_server(context, sentinel.port) as sentinel_proxy:
            yield SentinelAddresses(sentinel.port, sentinel_proxy.port, authority)
        await sentinel.kill()
    await redis.kill()


def ping(queue: Connection) -> bool:
    return bool(queue.channel().client.ping())


async def is_reached_by_both_clients(url: str) -> bool:
    """Return whether both the ledger's client and kombu's find the primary and log in."""
    settings = Settings(redis_url=SecretStr(url))
    async with open_redis(url, retries=0) as redis:
        with make_publishing_app(settings).connection_for_read() as queue:
            return bool(await redis.ping()) and await asyncio.to_thread(ping, queue)


async def test_both_clients_log_in_to_the_sentinels(secured_sentinel: SentinelAddresses) -> None:
    assert await is_reached_by_both_clients(secured_sentinel.url())


async def test_tls_is_used_for_the_sentinels_and_for_redis(secured_sentinel: SentinelAddresses) -> None:
    assert await is_reached_by_both_clients(secured_sentinel.tls_url())


async def test_no_primary_is_found_with_a_wrong_password(secured_sentinel: SentinelAddresses) -> None:
    with pytest.raises(RedisError):
        async with open_redis(
            secured_sentinel.url("sentinel_username=asker&sentinel_password=another"), retries=0
        ) as redis:
            await redis.ping()


@pytest.mark.parametrize("secured_sentinel", ["other.example"], indirect=True)
async def test_no_primary_is_found_if_the_certificate_has_another_name(secured_sentinel: SentinelAddresses) -> None:
    with pytest.raises(RedisError):
        await is_reached_by_both_clients(secured_sentinel.tls_url())
