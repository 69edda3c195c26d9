"""Shared metrics are read from Redis now and then, and never at the expense of a scrape."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry, generate_latest
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.counting import samples
from worker.metrics.shared_metrics import Samples, SharedGauge, SharedMetrics

SAMPLES: Samples = {
    SharedGauge.DEAD_LETTERS: {(): 3},
    SharedGauge.HOLDS: {("kyb", "account", "401"): 1, ("", "archive", "outage"): 0},
}


class Redis:
    """As much of Redis as the metrics need: it answers, or not."""

    def __init__(self, answer: Callable[[], Awaitable[Samples]]) -> None:
        self.answer, self.reads, self.now = answer, 0, 0.0
        shared = SharedMetrics(self.read, asyncio.get_running_loop(), clock=lambda: self.now, patience_seconds=0.05)
        self._registry = CollectorRegistry()
        self._registry.register(shared)

    async def read(self) -> Samples:
        self.reads += 1
        return await self.answer()

    async def page(self) -> dict[str, float]:
        return samples((await asyncio.to_thread(generate_latest, self._registry)).decode())


async def well() -> Samples:
    await asyncio.sleep(0)
    return SAMPLES


async def away() -> Samples:
    raise RedisConnectionError


async def frozen() -> Samples:
    """Never answer, and swallow one cancellation, as a client may."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.sleep(0)
    raise RedisConnectionError


async def test_registering_reads_nothing_and_a_scrape_shows_every_sample() -> None:
    redis = Redis(well)
    assert redis.reads == 0
    assert await redis.page() == {
        "docv_redis_up": 1,
        "docv_dead_letters": 3,
        'docv_holds{account="kyb",reason="401",scope="account"}': 1,
        'docv_holds{account="",reason="outage",scope="archive"}': 0,
    }


async def test_redis_is_read_at_most_every_few_seconds_however_many_scrape() -> None:
    redis = Redis(well)
    pages = await asyncio.gather(*(redis.page() for _ in range(20)))
    assert redis.reads == 1
    assert [page["docv_redis_up"] for page in pages] == [1] * 20
    redis.now = 4.9
    await redis.page()
    assert redis.reads == 1
    redis.now = 5.1
    await redis.page()
    assert redis.reads == 2


async def test_a_scrape_does_without_redis_and_shows_nothing_old() -> None:
    redis = Redis(well)
    await redis.page()
    for answer in (away, frozen):
        redis.answer, redis.now = answer, redis.now + 10
        assert await redis.page() == {"docv_redis_up": 0}
    redis.answer, redis.now = well, redis.now + 10
    assert (await redis.page())["docv_redis_up"] == 1


async def test_a_scrape_does_without_a_loop_that_has_stalled() -> None:
    redis = Redis(well)
    scrape = asyncio.create_task(redis.page())
    await asyncio.sleep(0)
    time.sleep(0.5)  # noqa: ASYNC251  # this is the stall
    assert await scrape == {"docv_redis_up": 0}
