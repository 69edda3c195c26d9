"""Connections to a demoted Redis are closed after any refusal, for all clients."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tests.faults.forwarder import RedisFailover, running_failover
from worker.app import make_publishing_app
from worker.broker.options import publisher_options
from worker.clients.errors import ServiceUnavailable
from worker.clients.primary import NotPrimary, check_writable
from worker.clients.redis import check_redis, open_redis
from worker.config.settings import Settings

SCRIPT = "return redis.call('SET', KEYS[1], ARGV[1])"


async def write(redis: Redis) -> None:
    await redis.set("key", "value")


async def run_script(redis: Redis) -> None:
    await redis.eval(SCRIPT, 1, "key", "value")


async def run_transaction(redis: Redis) -> None:
    async with redis.pipeline(transaction=True) as pipe:
        pipe.get("key")
        pipe.set("key", "value")
        await pipe.execute()


async def run_script_in_transaction(redis: Redis) -> None:
    async with redis.pipeline(transaction=True) as pipe:
        pipe.eval(SCRIPT, 1, "key", "value")
        await pipe.execute()


async def run_pipeline(redis: Redis) -> None:
    async with redis.pipeline(transaction=False) as pipe:
        pipe.get("key")
        pipe.set("key", "value")
        await pipe.execute()


@pytest.fixture
async def redises(tmp_path: Path) -> AsyncIterator[RedisFailover]:
    async with running_failover(tmp_path / "redis") as redises:
        yield redises


async def test_every_kind_of_call_finds_the_new_primary_despite_old_connections(redises: RedisFailover) -> None:
    async with open_redis(redises.url, connections=4, seconds=2.0, retries=1) as redis:
        for call in (write, run_script, run_transaction, run_script_in_transaction, run_pipeline):
            await asyncio.gather(*(redis.ping() for _ in range(8)))
            await redises.demote()
            redises.move_name()
            await call(redis)
            async with redises.primary.client() as primary:
                assert await primary.getdel("key") == "value", call


async def test_a_replica_is_not_writable_until_the_name_points_to_the_primary(redises: RedisFailover) -> None:
    async with open_redis(redises.url, seconds=2.0, retries=0) as redis:
        await check_writable(redis)
        await redises.demote()
        assert await redis.ping()
        with pytest.raises(NotPrimary, match="read only replica"):
            await check_writable(redis)
        with pytest.raises(ServiceUnavailable, match=r"Redis takes no writes .*name its primary"):
            await check_redis(redis)
        redises.move_name()
        await check_redis(redis)


async def test_a_celery_publisher_finds_the_new_primary(redises: RedisFailover) -> None:
    app = make_publishing_app(Settings(redis_url=SecretStr(redises.url)))
    with app, app.connection_for_write(transport_options=publisher_options(app.conf)) as connection:
        # In another thread, because the forwarder runs in this one.
        queue = await asyncio.to_thread(connection.SimpleQueue, "live")
        await asyncio.to_thread(queue.put, {"number": 1})
        await redises.demote()
        redises.move_name()
        await asyncio.to_thread(queue.put, {"number": 2})
        async with redises.primary.client() as primary:
            assert await primary.llen("docv:live") == 2


@pytest.mark.parametrize(
    "refusal",
    [
        "READONLY You can't write against a read only replica.",
        "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "LOADING Redis is loading the dataset in memory",
        "NOREPLICAS Not enough good replicas to write.",
        "MISCONF Errors writing to the AOF file: No space left on device",
        "ERR Error running script: @user_script:1: -READONLY You can't write against a read only replica.",
    ],
)
async def test_a_connection_is_closed_and_the_call_repeated_after_any_refusal(refusal: str) -> None:
    async with refusing_once(refusal) as (url, connections), open_redis(url, retries=1) as redis:
        assert await redis.delete("key") == 1
        assert connections() == 2


async def test_a_connection_stays_open_after_any_other_error() -> None:
    async with refusing_once("WRONGTYPE that is a list") as (url, connections), open_redis(url, retries=1) as redis:
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await redis.delete("key")
        assert await redis.delete("key") == 1
        assert connections() == 1


@contextlib.asynccontextmanager
async def refusing_once(refusal: str) -> AsyncIterator[tuple[str, Callable[[], int]]]:
    """Act as a Redis that answers the first DEL with an error; yield its URL and the count of its connections."""
    refusals, connections = [refusal], 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.closing(writer):
            while command := await read_command(reader):
                answer = {b"PING": "+PONG", b"DEL": ":1"}.get(command[0], "+OK")
                if command[0] == b"DEL" and refusals:
                    answer = f"-{refusals.pop()}"
                writer.write(f"{answer}\r\n".encode())

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"redis://127.0.0.1:{port}/0?protocol=2", lambda: connections


async def read_command(reader: asyncio.StreamReader) -> list[bytes]:
    head = await reader.readline()
    words = []
    for _ in range(int(head[1:] or 0)):
        size = int((await reader.readline())[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words
