"""Rejected messages are listed newest first, in pages, with their reason in words."""

import re

import pytest
from redis.asyncio import Redis

from tasks.ledger.rejected_messages import RejectedMessages
from tests.scripts.serve.page.conftest import HTML, PageUser
from tests.scripts.serve.page.test_views import text_of

MESSAGE = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"


async def test_a_rejected_message_is_shown_with_time_problem_reason_and_source(viewer: PageUser, redis: Redis) -> None:
    await RejectedMessages(redis).add(cause="bad_message", why="it is not JSON", source="live", message=MESSAGE)
    await RejectedMessages(redis).add(cause="bad_event", why=HTML, source="webhook", event_type="evaluation_completed")
    answer = await viewer.get_page("/page/rejected")
    text = text_of(answer.body)
    assert re.search(rf"(just now|s ago) Invalid message it is not JSON Live queue {MESSAGE}", text)
    assert re.search(r"(just now|s ago) Invalid event &lt;img src=x .* Webhook evaluation_completed none", text)
    assert text.index("Invalid event") < text.index("Invalid message")
    assert "look in RiskOS's dashboard for the evaluation that completed at this time" in text.replace("&#39;", "'")
    assert b"<img" not in answer.body
    assert "Rejected messages 2" in text_of((await viewer.get_page("/")).body)


async def test_rejected_messages_are_paged(viewer: PageUser, redis: Redis) -> None:
    for number in range(60):
        await RejectedMessages(redis).add(cause="bad_message", why=f"reason {number:02}", source="live")
    first = (await viewer.get_page("/page/rejected")).body.decode()
    assert re.findall(r"reason \d\d", first) == [f"reason {number:02}" for number in range(59, 9, -1)]
    [path] = re.findall(r'rel="next" href="([^"]*)"', first)
    second = (await viewer.get_page(path)).body.decode()
    assert re.findall(r"reason \d\d", second) == [f"reason {number:02}" for number in range(9, -1, -1)]
    assert 'rel="next"' not in second


@pytest.mark.parametrize("before", ["x", "1-1%0d%0a", "9" * 40])
async def test_an_invalid_position_shows_the_first_page(viewer: PageUser, redis: Redis, before: str) -> None:
    await RejectedMessages(redis).add(cause="bad_message", why="it is not JSON", source="live")
    assert "it is not JSON" in text_of((await viewer.get_page(f"/page/rejected?before={before}")).body)


async def test_the_view_is_empty_when_there_are_no_rejected_messages(viewer: PageUser) -> None:
    assert "No rejected messages." in text_of((await viewer.get_page("/page/rejected")).body)
