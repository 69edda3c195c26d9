"""The last hour's rate: a point for each look, a gap where there was no answer, and an end."""

import asyncio
import json
from typing import Any

from scripts.serve.page.rate_history import RateHistory
from tasks.resilience.adaptive_rate import RateStatus
from tests.scripts.serve.page.conftest import Person

ANYTHING: Any = None


class Sight:
    """A rate to be seen: it answers, or not."""

    well = True
    looks = 0

    async def __call__(self) -> RateStatus:
        self.looks += 1
        if not self.well:
            raise OSError
        return RateStatus(configured=10.0, effective=8.0, manual=False, used_today=0, observed=7.5)


async def points(history: RateHistory) -> Any:
    body = (await history.show(ANYTHING, ANYTHING)).body
    assert isinstance(body, bytes)
    return json.loads(body)


async def test_each_look_is_a_point_and_no_answer_a_gap() -> None:
    sight = Sight()
    history = RateHistory(sight)
    assert await points(history) == [[], [], [], []]
    await history.record()
    sight.well = False
    await history.record()
    _, asked, kept, reached = await points(history)
    assert (asked, kept, reached) == ([10.0, None], [8.0, None], [7.5, None])


async def test_no_more_than_an_hour_is_kept() -> None:
    history = RateHistory(Sight())
    for _ in range(400):
        await history.record()
    assert [len(column) for column in await points(history)] == [360] * 4


async def test_it_looks_again_and_again_until_it_is_told_to_end() -> None:
    sight = Sight()
    looking = RateHistory(sight, every=0.001).run(ANYTHING)
    await anext(looking)
    async with asyncio.timeout(10):
        while sight.looks < 3:
            await asyncio.sleep(0.001)
    assert await anext(looking, "ended") == "ended"


async def test_it_ends_also_when_a_cancellation_gets_lost() -> None:
    began = asyncio.Event()

    async def see() -> RateStatus:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError from None
        raise AssertionError

    looking = RateHistory(see).run(ANYTHING)
    await anext(looking)
    await began.wait()
    async with asyncio.timeout(10):
        assert await anext(looking, "ended") == "ended"


async def test_the_page_gives_four_lists_to_the_chart(viewer: Person) -> None:
    answer = await viewer.see("/page/rate")
    assert answer.status == 200
    assert [len(column) for column in answer.json] in ([0] * 4, [1] * 4)
    assert answer.headers["Cache-Control"] == "no-store"
