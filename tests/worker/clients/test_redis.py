"""The client of Redis repeats a call after its connection broke."""

import asyncio
from collections import Counter
from collections.abc import Awaitable
from typing import Any

import pytest
from redis.asyncio import Redis

from worker.clients.errors import ServiceUnavailable
from worker.clients.redis import check_redis, is_too_old, open_redis


async def test_a_broken_connection_is_replaced(redis_url: str) -> None:
    async with open_redis(redis_url) as redis, open_redis(redis_url) as another:
        await redis.set("key", "value")
        for each in await another.client_list():
            if int(each["id"]) != await another.client_id():
                await another.client_kill_filter(_id=each["id"])
        assert await redis.get("key") == "value"


async def test_callers_wait_for_a_connection_if_all_are_in_use(redis_url: str) -> None:
    # A draining worker releases all its evaluations at once, possibly many times its concurrency.
    async with open_redis(redis_url, connections=2) as redis:
        answers = await asyncio.gather(*[redis.ping() for _ in range(500)], return_exceptions=True)
    assert Counter(map(repr, answers)) == {"True": 500}


@pytest.mark.parametrize(
    ("version", "too_old"),
    [
        *(("5.0.14", True), ("6.0.20", True), ("6.2.0", False), ("7.2.4", False), ("10.0", False)),
        # Other servers with Redis's protocol may have any version.
        *(("", False), ("6", False), ("dragonfly-1.2", False), ("6.x", False)),
    ],
)
def test_a_redis_before_6_2_is_too_old(version: str, *, too_old: bool) -> None:
    assert is_too_old(version) == too_old


async def test_a_process_does_not_start_with_a_redis_that_is_too_old(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await check_redis(redis)
    info = redis.info
    monkeypatch.setattr(redis, "info", lambda section: with_old_version(info(section)))
    with pytest.raises(ServiceUnavailable, match=r"version 6\.0\.20, which is too old: 6\.2 or newer"):
        await check_redis(redis)


async def with_old_version(info: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    return await info | {"redis_version": "6.0.20"}
