"""A Redis that may lose something is told of, or refused."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator, MutableMapping
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from worker.clients import redis_durability
from worker.clients.embedded_redis import server_binary
from worker.clients.errors import ServiceUnavailable
from worker.clients.redis import open_redis
from worker.clients.redis_durability import check_fsync, check_persistence


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[MutableMapping[str, Any]]]:
    """Return the events that were told; by a logger of this test's own, since others may be set up already."""
    with structlog.testing.capture_logs() as events:
        monkeypatch.setattr(redis_durability, "_log", structlog.get_logger("docv.resources"))
        yield events


@contextlib.asynccontextmanager
async def redis_with(*flags: str) -> AsyncIterator[Redis]:
    """Run a server of this test's own."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are too deep for the path of a socket
        path = f"{folder}/redis.sock"
        server = await asyncio.create_subprocess_exec(
            *(server_binary(), "--dir", folder, "--unixsocket", path, "--port", "0", "--save", "", *flags),
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            async with open_redis(f"unix://{path}") as redis:
                await answers(redis)
                yield redis
        finally:
            server.kill()
            await server.wait()


async def answers(redis: Redis) -> None:
    """Wait until a server that is being started answers."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(RedisConnectionError):
                await redis.ping()
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("strict", [False, True])
async def test_a_redis_that_keeps_everything_is_no_news(
    redis: Redis, told: list[MutableMapping[str, Any]], *, strict: bool
) -> None:
    await check_persistence(redis, strict=strict)
    assert told == []


async def test_a_redis_that_may_forget_is_an_error_in_the_log_with_what_to_do(
    told: list[MutableMapping[str, Any]],
) -> None:
    async with redis_with("--appendonly", "no", "--maxmemory-policy", "allkeys-lru") as forgetful:
        await check_persistence(forgetful, strict=False)
    assert [(event["event"], event["log_level"]) for event in told] == [("redis.not_durable", "error")] * 2
    no_file, evicts = (event["fault"] for event in told)
    assert "set appendonly yes" in no_file
    assert "(allkeys-lru): set maxmemory-policy noeviction" in evicts


@pytest.mark.parametrize(
    ("flags", "advice"),
    [
        (("--appendonly", "no"), "set appendonly yes"),
        (("--appendonly", "yes", "--maxmemory-policy", "volatile-ttl"), "set maxmemory-policy noeviction"),
    ],
    ids=["no append-only file", "evicts"],
)
async def test_whoever_is_strict_does_not_start_with_a_redis_that_may_forget(
    flags: tuple[str, ...], advice: str, told: list[MutableMapping[str, Any]]
) -> None:
    async with redis_with(*flags) as forgetful:
        with pytest.raises(ServiceUnavailable, match=f"DOCV_STRICT.*{advice}"):
            await check_persistence(forgetful, strict=True)
    assert told == []


@pytest.mark.parametrize("strict", [False, True])
async def test_a_redis_that_syncs_before_it_answers_is_no_news(
    told: list[MutableMapping[str, Any]], *, strict: bool
) -> None:
    async with redis_with("--appendonly", "yes", "--appendfsync", "always") as careful:
        await check_fsync(careful, strict=strict)
    assert told == []


async def test_a_redis_that_answers_before_it_syncs_is_told_or_refused(
    redis: Redis, told: list[MutableMapping[str, Any]]
) -> None:
    await redis.config_set("appendfsync", "everysec")
    await check_fsync(redis, strict=False)
    assert [event["event"] for event in told] == ["redis.not_durable"]
    assert "set appendfsync always" in told[0]["fault"]
    with pytest.raises(ServiceUnavailable, match=r"DOCV_STRICT.*appendfsync always"):
        await check_fsync(redis, strict=True)


async def test_of_a_redis_that_does_not_tell_how_it_syncs_nothing_is_said(told: list[MutableMapping[str, Any]]) -> None:
    async with redis_with("--rename-command", "CONFIG", "") as closed:
        await check_fsync(closed, strict=True)
    assert told == []
