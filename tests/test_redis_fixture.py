"""The fixture `redis`, mainly for tests marked ``both_redises``."""

import socket
from pathlib import Path

import psutil
import pytest
from redis.asyncio import Redis

from worker.clients.embedded_redis import server_binary
from worker.clients.redis import open_redis


@pytest.mark.parametrize("redis", ["fakeredis", "redis"], indirect=True)
async def test_only_a_test_on_redis_starts_a_server_and_connects_to_it(
    redis: Redis, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, connected = socket.socket.connect, []

    def connect_and_record(self: socket.socket, address: str) -> None:
        connected.append(address)
        connect(self, address)

    await redis.connection_pool.disconnect()
    monkeypatch.setattr(socket.socket, "connect", connect_and_record)
    assert await redis.eval("return redis.call('INCR', KEYS[1])", 1, "key") == 1

    is_real = request.node.callspec.params["redis"] == "redis"
    assert ("redis_url" in request.fixturenames, bool(connected)) == (is_real, is_real)


@pytest.mark.both_redises
@pytest.mark.parametrize("test", [1, 2])
async def test_each_test_gets_an_empty_redis(redis: Redis, test: int) -> None:
    assert await redis.keys() == []
    await redis.set("left", test)


@pytest.mark.both_redises
@pytest.mark.real_redis_only("fakeredis has no INFO")
async def test_redis_is_a_process_of_the_server(redis: Redis) -> None:
    server = psutil.Process((await redis.info("server"))["process_id"])
    assert server.name() == Path(server_binary()).name


@pytest.mark.both_redises
async def test_a_test_that_takes_the_url_runs_on_redis_only(redis: Redis, redis_url: str, eval_id: str) -> None:
    await redis.set("key", eval_id)
    async with open_redis(redis_url) as other:
        assert await other.get("key") == eval_id
