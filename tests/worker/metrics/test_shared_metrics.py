"""Shared metrics are read from Redis every few seconds, and never make a scrape fail."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import CollectorRegistry, generate_latest
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.counting import samples
from worker.metrics.shared_metrics import Samples, SharedGauge, SharedMetrics

SAMPLES: Samples = {
    SharedGauge.DEAD_LETTERS: {(): 3},
    SharedGauge.HOLDS: {("kyb", "account", "401"): 1, ("", "archive", "outage"): 0},
}


class FakeRedis:
    """The part of Redis that shared metrics need, with an answer that a test can replace."""

    def __init__(self, answer: Callable[[], Awaitable[Samples]], patience_seconds: float = 60.0) -> None:
        self.answer, self.reads, self.now = answer, 0, 0.0
        loop = asyncio.get_running_loop()
        shared = SharedMetrics(self.read, loop, clock=lambda: self.now, patience_seconds=patience_seconds)
        self._registry = CollectorRegistry()
        self._registry.register(shared)

    async def read(self) -> Samples:
        self.reads += 1
        return await self.answer()

    async def page(self) -> dict[str, float]:
        return await asyncio.to_thread(self.scrape)

    def scrape(self) -> dict[str, float]:
        return samples(generate_latest(self._registry).decode())


async def return_samples() -> Samples:
    await asyncio.sleep(0)
    return SAMPLES


async def raise_connection_error() -> Samples:
    raise RedisConnectionError


async def never_answer() -> Samples:
    """Never answer, and swallow one cancellation, as a Redis client may."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.sleep(0)
    raise RedisConnectionError


async def test_registering_reads_nothing_and_a_scrape_returns_every_sample() -> None:
    redis = FakeRedis(return_samples)
    assert redis.reads == 0
    assert await redis.page() == {
        "docv_redis_up": 1,
        "docv_dead_letters": 3,
        'docv_holds{account="kyb",reason="401",scope="account"}': 1,
        'docv_holds{account="",reason="outage",scope="archive"}': 0,
    }


async def test_redis_is_read_at_most_every_few_seconds() -> None:
    redis = FakeRedis(return_samples)
    pages = await asyncio.gather(*(redis.page() for _ in range(20)))
    assert redis.reads == 1
    assert [page["docv_redis_up"] for page in pages] == [1] * 20
    redis.now = 4.9
    await redis.page()
    assert redis.reads == 1
    redis.now = 5.1
    await redis.page()
    assert redis.reads == 2


async def test_a_scrape_without_redis_succeeds_without_old_samples() -> None:
    redis = FakeRedis(return_samples)
    await redis.page()
    redis.answer, redis.now = raise_connection_error, 10
    assert await redis.page() == {"docv_redis_up": 0}
    redis.answer, redis.now = return_samples, 20
    assert (await redis.page())["docv_redis_up"] == 1


async def test_a_scrape_succeeds_if_redis_never_answers() -> None:
    assert await FakeRedis(never_answer, patience_seconds=0.05).page() == {"docv_redis_up": 0}


async def test_a_scrape_succeeds_if_shared_values_cannot_be_read() -> None:
    async def broken() -> Samples:
        raise KeyError("reason")

    assert await FakeRedis(broken).page() == {"docv_redis_up": 0}


async def test_a_scrape_succeeds_if_the_event_loop_has_stalled() -> None:
    redis = FakeRedis(return_samples, patience_seconds=0.05)
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(redis.scrape).result() == {"docv_redis_up": 0}
