"""One look at what is under way finds every figure that is promised."""

from uuid import uuid4

from redis.asyncio import Redis

from tasks.entry import Order, Queue, Trigger
from tasks.hold import Holds, Reason, backfill_of
from tasks.ledger import Ledger
from tasks.presence import Presence
from tasks.refusals import Refusals
from tasks.under_way import UnderWay
from worker.shared_figures import SHARED

ACCOUNT = "default"


async def test_an_empty_redis_has_a_value_for_every_figure(redis: Redis) -> None:
    found = await UnderWay(redis, ACCOUNT, 10.0, 1_000).look()
    assert found.keys() == SHARED.keys()
    for name, values in found.items():
        assert values
        assert {len(labels) for labels in values} == {len(SHARED[name][1])}
    assert found["docv_quota_left_requests"] == {(): 1_000}
    assert not any(found["docv_holds"].values())


async def test_what_is_under_way_is_counted(redis: Redis) -> None:
    eval_ids = [str(uuid4()) for _ in range(5)]
    ledger = Ledger(redis)
    await ledger.accept(eval_ids, Order(Queue.LIVE, ACCOUNT, Trigger("enqueue")))
    await ledger.take(eval_ids[:2], token="one")
    await Holds(redis).by_hand(backfill_of(ACCOUNT), "a note")
    await Refusals(redis).keep(cause="bad_message", why="because", source="live")
    await Presence(redis).tell("worker", [Queue.LIVE])
    found = await UnderWay(redis, ACCOUNT, 10.0, None).look()
    assert found["docv_ledger_evaluations"] == {("queued",): 3, ("leased",): 2, ("parked",): 0, ("held",): 0}
    assert found["docv_queue_evaluations"] == {("live",): 3, ("backfill",): 0}
    assert found["docv_queue_workers"] == {("live",): 1, ("backfill",): 0}
    assert found["docv_refused_messages"] == {(): 1}
    assert [labels for labels, value in found["docv_holds"].items() if value] == [("backfill", Reason.BY_HAND)]
    assert "docv_quota_left_requests" not in found
    assert not any(eval_id in str(found) for eval_id in eval_ids)
