import time

import pytest
from redis.asyncio import Redis

from tasks.ledger import rejected_messages as module
from tasks.ledger.rejected_messages import RejectedMessage, RejectedMessages

pytestmark = pytest.mark.both_redises


@pytest.fixture
def rejected(redis: Redis) -> RejectedMessages:
    return RejectedMessages(redis)


async def list_all(rejected: RejectedMessages) -> list[RejectedMessage]:
    return [refusal async for refusal in rejected.iterate()]


async def test_a_rejected_message_is_recorded_with_its_cause(rejected: RejectedMessages) -> None:
    await rejected.add(cause="bad_message", why="it is no JSON", source="live", message="an ID")
    await rejected.add(cause="bad_event", why="it names no evaluation", source="webhook", event_type="reevaluation")
    first, second = await list_all(rejected)
    assert (first.cause, first.why, first.source, first.message) == ("bad_message", "it is no JSON", "live", "an ID")
    assert (second.cause, second.message) == ("bad_event", None)
    assert (first.event_type, second.event_type) == (None, "reevaluation")
    assert first.at == pytest.approx(time.time(), abs=60)
    assert await rejected.count() == 2


async def test_iterate_yields_more_messages_than_a_page(
    rejected: RejectedMessages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", 3)
    for number in range(10):
        await rejected.add(cause="bad_message", why=str(number), source="live")
    assert [each.why for each in await list_all(rejected)] == [str(number) for number in range(10)]


async def test_the_oldest_records_are_dropped_when_there_are_too_many(
    rejected: RejectedMessages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_RECORDS", 100)
    for number in range(500):
        await rejected.add(cause="bad_message", why=str(number), source="live")
    assert await rejected.count() < 300
    assert (await list_all(rejected))[-1].why == "499"


async def test_a_deleted_record_is_gone(rejected: RejectedMessages) -> None:
    for number in range(3):
        await rejected.add(cause="bad_message", why=str(number), source="live")
    first, _, last = await list_all(rejected)
    assert await rejected.delete([first.name, last.name, "1-1"]) == 2
    assert await rejected.delete([]) == 0
    assert [each.why for each in await list_all(rejected)] == ["1"]
