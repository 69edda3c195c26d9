"""Redis is read at most once per second, even if many users load the page."""

import asyncio
from pathlib import Path

from redis.asyncio import Redis

from scripts.serve.page.overview_cache import OverviewCache
from tasks.ledger.ledger import Ledger
from tests.archives import eval_ids
from tests.scripts.serve.conftest import settings_for
from tests.scripts.serve.page.conftest import add_dead_letters
from worker.config.accounts import load_accounts


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_many_viewers_share_one_read_per_second_until_an_action(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    clock = Clock()
    cache = OverviewCache(redis, load_accounts(settings_for(redis_url, tmp_path)), clock)
    overviews = await asyncio.gather(*(cache.get() for _ in range(20)))
    assert all(each is overviews[0] for each in overviews)
    ids = eval_ids(2)
    await add_dead_letters(redis, ids)
    clock.now = 0.9
    assert await cache.get() is overviews[0]
    clock.now = 1.0
    assert (await cache.get()).causes == {"service_failed": 2}
    await Ledger(redis).dead_letters.drop(ids)
    cache.clear()
    assert (await cache.get()).causes == {}
