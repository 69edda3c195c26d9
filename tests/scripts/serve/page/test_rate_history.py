"""The rate of the last hour is recorded periodically, with a gap while Redis does not answer."""

import asyncio
from typing import Any

from scripts.serve.page.rate_history import RateHistory
from tasks.resilience.adaptive_rate import RateStatus
from tests.scripts.serve.page.conftest import PageUser

ANYTHING: Any = None


class RateReader:
    """Return a rate, or fail."""

    is_healthy = True
    reads = 0

    async def __call__(self) -> RateStatus:
        self.reads += 1
        if not self.is_healthy:
            raise OSError
        return RateStatus(configured=10.0, effective=8.0, manual=False, used_today=0, observed=7.5)


async def test_a_read_adds_a_point_and_a_failed_read_a_gap() -> None:
    reader = RateReader()
    history = RateHistory(reader)
    assert history.chart().since is None
    await history.record()
    assert (history.chart().sent_now, history.chart().highest, history.chart().top) == (7.5, 7.5, 10.0)
    reader.is_healthy = False
    await history.record()
    assert (history.chart().sent_now, history.chart().highest) == (None, 7.5)


async def test_the_history_keeps_at_most_an_hour() -> None:
    history = RateHistory(RateReader())
    for _ in range(400):
        await history.record()
    assert len(history._points) == 360


async def test_the_rate_is_read_until_the_application_ends() -> None:
    reader = RateReader()
    running = RateHistory(reader, every=0.001).run(ANYTHING)
    await anext(running)
    async with asyncio.timeout(10):
        while reader.reads < 3:
            await asyncio.sleep(0.001)
    assert await anext(running, "ended") == "ended"


async def test_the_loop_ends_even_if_a_cancellation_gets_lost() -> None:
    began = asyncio.Event()

    async def read() -> RateStatus:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError from None
        raise AssertionError

    running = RateHistory(read).run(ANYTHING)
    await anext(running)
    await began.wait()
    async with asyncio.timeout(5):
        assert await anext(running, "ended") == "ended"


async def test_the_chart_needs_no_javascript_and_reports_that_it_is_empty(viewer: PageUser) -> None:
    answer = await viewer.get_page("/page/rate")
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    first = (await viewer.get_page("/")).body.decode()
    for body in (answer.body.decode(), first):
        assert "this process has just started" in body or ("<svg" in body and "No requests since then." in body)
