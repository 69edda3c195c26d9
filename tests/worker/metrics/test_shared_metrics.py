"""What all processes share: asked of Redis now and then, and never at the expense of a scrape."""

import asyncio
from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry, generate_latest
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.counting import samples
from worker.metrics.shared_metrics import Found, SharedMetrics

FOUND: Found = {
    "docv_dead_letters": {(): 3},
    "docv_holds": {("kyb", "account", "401"): 1, ("", "archive", "outage"): 0},
}


class Redis:
    """As much of Redis as the figures need: it answers, or not."""

    def __init__(self, answer: Callable[[], Awaitable[Found]]) -> None:
        self.answer, self.asked, self.now = answer, 0, 0.0
        self.shared = SharedMetrics(self.look, clock=lambda: self.now, patience=0.05)

    async def look(self) -> Found:
        self.asked += 1
        return await self.answer()

    async def page(self) -> dict[str, float]:
        await self.shared.refresh()
        registry = CollectorRegistry()
        registry.register(self.shared)
        return samples(generate_latest(registry).decode())


async def well() -> Found:
    await asyncio.sleep(0)
    return FOUND


async def away() -> Found:
    raise RedisConnectionError


async def frozen() -> Found:
    """Answer never, and swallow one cancellation, as a client may."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.sleep(0)
    return FOUND


async def test_what_redis_says_is_shown() -> None:
    assert await Redis(well).page() == {
        "docv_redis_up": 1,
        "docv_dead_letters": 3,
        'docv_holds{account="kyb",reason="401",scope="account"}': 1,
        'docv_holds{account="",reason="outage",scope="archive"}': 0,
    }


async def test_redis_is_asked_at_most_every_few_seconds_however_many_scrape() -> None:
    redis = Redis(well)
    pages = await asyncio.gather(*(redis.page() for _ in range(20)))
    assert redis.asked == 1
    assert [page["docv_redis_up"] for page in pages] == [1] * 20
    redis.now = 4.9
    await redis.page()
    assert redis.asked == 1
    redis.now = 5.1
    await redis.page()
    assert redis.asked == 2


async def test_a_scrape_does_without_redis_and_shows_nothing_old() -> None:
    redis = Redis(well)
    await redis.page()
    for answer in (away, frozen):
        redis.answer, redis.now = answer, redis.now + 10
        assert await redis.page() == {"docv_redis_up": 0}
    redis.answer, redis.now = well, redis.now + 10
    assert (await redis.page())["docv_redis_up"] == 1
