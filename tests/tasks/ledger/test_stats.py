from uuid import uuid4

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.job import Failure, Queue
from tests.tasks.ledger.ledger_steps import (
    PREFIX,
    accept,
    accept_and_lease,
    backdate,
    claim,
    lease_one,
    now_in_milliseconds,
    some_ids,
)

pytestmark = pytest.mark.both_redises


async def test_the_stats_of_an_empty_ledger_are_zero(ledger: Ledger) -> None:
    stats = await ledger.get_stats()
    assert (sum(stats.queued.values()), stats.leased, stats.parked, stats.dead_letters) == (0, 0, 0, 0)
    assert stats.oldest == {Queue.LIVE: 0.0, Queue.BACKFILL: 0.0}
    assert stats.next_due is None


async def test_the_stats_count_each_evaluation_in_its_state(ledger: Ledger) -> None:
    live, backfill, leased, parked, dead, held = (some_ids(count) for count in range(1, 7))
    await accept(ledger, *live, queue=Queue.LIVE)
    await accept(ledger, *backfill, *leased, *dead, *held)
    await accept(ledger, *parked, delay=60)
    await ledger.lease(leased, token="ours")
    for entry in await ledger.lease(dead, token="ours"):
        await ledger.dead_letter(entry, attempts=6, failure=Failure("service_failed"))
    for entry in await ledger.lease(held, token="ours"):
        await ledger.await_hold(entry, cause="account_held")

    stats = await ledger.get_stats()

    assert stats.queued == {Queue.LIVE: 1, Queue.BACKFILL: 2}
    assert (stats.leased, stats.parked, stats.dead_letters) == (3, 4, 5)
    assert stats.held == {Queue.LIVE: 0, Queue.BACKFILL: 6}


async def test_the_stats_have_the_age_of_the_oldest_and_the_time_until_the_next_is_due(
    ledger: Ledger, redis: Redis
) -> None:
    now = await now_in_milliseconds(redis)
    for ages in ((100, 50), (3000, 2000)):
        queue = Queue.LIVE if ages == (100, 50) else Queue.BACKFILL
        for age, eval_id in zip(ages, some_ids(2), strict=True):
            await accept(ledger, eval_id, queue=queue)
            await redis.zadd(f"{PREFIX}queued:{queue}", {eval_id: now - age * 1000})
    for delay in (500, 900):
        await accept(ledger, str(uuid4()), delay=delay)

    stats = await ledger.get_stats()

    assert 100 <= stats.oldest[Queue.LIVE] < 200
    assert 3000 <= stats.oldest[Queue.BACKFILL] < 3100
    assert stats.next_due is not None
    assert 400 < stats.next_due <= 500


async def test_the_stats_have_the_reason_why_the_next_evaluation_was_parked(ledger: Ledger, eval_id: str) -> None:
    failure = Failure("store_failed", "the clock differs by 2:00:00 from S3's", 403)
    await ledger.retry_later(await accept_and_lease(ledger, eval_id), wait=0, attempts=1, failure=failure)
    assert (await ledger.get_stats()).parked_for == "store_failed: the clock differs by 2:00:00 from S3's"
    await claim(ledger)
    await ledger.await_hold(await lease_one(ledger, eval_id), cause="account_held")
    assert (await ledger.get_stats()).parked_for == ""


async def test_the_stats_report_an_overdue_evaluation_as_due_now(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await accept(ledger, eval_id, delay=60)
    await backdate(redis, "parked", eval_id)
    assert (await ledger.get_stats()).next_due == 0.0
