"""A Redis that may lose data is logged, or refused."""

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
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[MutableMapping[str, Any]]]:
    """Return the logged events, with a new logger, because others may be configured already."""
    with structlog.testing.capture_logs() as events:
        monkeypatch.setattr(redis_durability, "_log", structlog.get_logger("docv.resources"))
        yield events


@contextlib.asynccontextmanager
async def redis_with(*flags: str) -> AsyncIterator[Redis]:
    """Run a separate server for this test."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's folders are too deep for the path of a socket
        path = f"{folder}/redis.sock"
        server = await asyncio.create_subprocess_exec(
            *(server_binary(), "--dir", folder, "--unixsocket", path, "--port", "0", "--save", "", *flags),
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            async with open_redis(f"unix://{path}") as redis:
                await wait_for_answer(redis)
                yield redis
        finally:
            server.kill()
            await server.wait()


async def wait_for_answer(redis: Redis) -> None:
    """Wait until a starting server answers."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(RedisConnectionError):
                await redis.ping()
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("strict", [False, True])
async def test_a_durable_redis_logs_nothing(
    redis: Redis, logged: list[MutableMapping[str, Any]], *, strict: bool
) -> None:
    await check_persistence(redis, strict=strict)
    assert logged == []


async def test_a_redis_that_may_lose_data_is_logged_as_an_error_with_a_fix(
    logged: list[MutableMapping[str, Any]],
) -> None:
    async with redis_with("--appendonly", "no", "--maxmemory-policy", "allkeys-lru") as forgetful:
        await check_persistence(forgetful, strict=False)
    assert [(event["event"], event["log_level"]) for event in logged] == [("redis.not_durable", "error")] * 2
    no_file, evicts = (event["fault"] for event in logged)
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
async def test_a_strict_process_does_not_start_with_a_redis_that_may_lose_data(
    flags: tuple[str, ...], advice: str, logged: list[MutableMapping[str, Any]]
) -> None:
    async with redis_with(*flags) as forgetful:
        with pytest.raises(ServiceUnavailable, match=f"DOCV_STRICT.*{advice}"):
            await check_persistence(forgetful, strict=True)
    assert logged == []


@pytest.mark.parametrize("strict", [False, True])
async def test_a_redis_that_syncs_before_it_answers_logs_nothing(
    logged: list[MutableMapping[str, Any]], *, strict: bool
) -> None:
    async with redis_with("--appendonly", "yes", "--appendfsync", "always") as careful:
        await check_fsync(careful, strict=strict)
    assert logged == []


async def test_a_redis_that_answers_before_it_syncs_is_logged_or_refused(
    redis: Redis, logged: list[MutableMapping[str, Any]]
) -> None:
    await redis.config_set("appendfsync", "everysec")
    await check_fsync(redis, strict=False)
    assert [event["event"] for event in logged] == ["redis.not_durable"]
    assert "set appendfsync always" in logged[0]["fault"]
    with pytest.raises(ServiceUnavailable, match=r"DOCV_STRICT.*appendfsync always"):
        await check_fsync(redis, strict=True)


async def test_a_redis_with_an_unknown_fsync_setting_logs_nothing(logged: list[MutableMapping[str, Any]]) -> None:
    async with redis_with("--rename-command", "CONFIG", "") as closed:
        await check_fsync(closed, strict=True)
    assert logged == []
