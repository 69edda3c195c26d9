import time

import pytest
from redis.asyncio import Redis

from tasks.ledger import rejected_messages as module
from tasks.ledger.rejected_messages import RejectedMessage, RejectedMessages

pytestmark = pytest.mark.both_redises


@pytest.fixture
def refusals(redis: Redis) -> RejectedMessages:
    return RejectedMessages(redis)


async def kept(refusals: RejectedMessages) -> list[RejectedMessage]:
    return [refusal async for refusal in refusals.iterate()]


async def test_what_was_refused_is_kept_with_its_cause(refusals: RejectedMessages) -> None:
    await refusals.add(cause="bad_message", why="it is no JSON", source="live", message="an ID")
    await refusals.add(cause="bad_event", why="it names no evaluation", source="webhook")
    first, second = await kept(refusals)
    assert (first.cause, first.why, first.source, first.message) == ("bad_message", "it is no JSON", "live", "an ID")
    assert (second.cause, second.message) == ("bad_event", None)
    assert first.at == pytest.approx(time.time(), abs=60)
    assert await refusals.count() == 2


async def test_all_are_told_of_however_many(refusals: RejectedMessages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 3)
    for number in range(10):
        await refusals.add(cause="bad_message", why=str(number), source="live")
    assert [each.why for each in await kept(refusals)] == [str(number) for number in range(10)]


async def test_the_oldest_give_way(refusals: RejectedMessages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 100)
    for number in range(500):
        await refusals.add(cause="bad_message", why=str(number), source="live")
    assert await refusals.count() < 300
    assert (await kept(refusals))[-1].why == "499"


async def test_what_is_dropped_is_gone(refusals: RejectedMessages) -> None:
    for number in range(3):
        await refusals.add(cause="bad_message", why=str(number), source="live")
    first, _, last = await kept(refusals)
    assert await refusals.delete([first.name, last.name, "1-1"]) == 2
    assert await refusals.delete([]) == 0
    assert [each.why for each in await kept(refusals)] == ["1"]
