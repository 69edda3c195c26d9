"""If Redis's clock is set back by two hours, no evaluation waits until the clock reaches its old time again.

The tests do not change the clock. They move all times in Redis into the future instead.
"""

import json
from collections.abc import Sequence
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.ledger.refused_runs import list_refused_runs
from tasks.model.job import EnqueueOptions, Failure, Job, Queue, Trigger
from tasks.model.outcome import Outcome
from tests.tasks.ledger.ledger_steps import PREFIX

pytestmark = pytest.mark.both_redises

AHEAD = 2 * 3_600_000
"""Milliseconds."""
SETS = ("queued:live", "queued:backfill", "leased", "parked", "held:runs", "refused")
TIMES_OF_AGAIN = ("due", "accepted")
PATIENCE = {Queue.LIVE: 60.0, Queue.BACKFILL: 60.0}


async def accept(ledger: Ledger, *eval_ids: str, run: str | None = None, refresh: bool = False) -> None:
    order = EnqueueOptions(Queue.BACKFILL, "default", Trigger("enqueue", run=run), refresh=refresh)
    await ledger.accept(eval_ids, order)


async def lease(ledger: Ledger, *eval_ids: str) -> list[Job]:
    return await ledger.lease(eval_ids, token="ours")


async def claim(ledger: Ledger) -> list[str]:
    claimed = await ledger.claim(patience=PATIENCE, of_held={})
    return sorted(eval_id for eval_ids in claimed.values() for eval_id in eval_ids)


async def set_clock_back(redis: Redis) -> None:
    for key in SETS:
        for eval_id in await redis.zrange(PREFIX + key, 0, -1):
            await redis.zincrby(PREFIX + key, AHEAD, eval_id)
    for field in ("clock", "live", "backfill", "refusals_accepted"):
        if moved := await redis.hget(PREFIX + "reached", field):
            await redis.hset(PREFIX + "reached", field, str(int(float(moved)) + AHEAD))
    for eval_id, text in (await redis.hgetall(PREFIX + "entries")).items():
        job = json.loads(text)
        if again := job.get("again"):
            job["again"] = again | {field: again[field] + AHEAD for field in TIMES_OF_AGAIN if field in again}
            await redis.hset(PREFIX + "entries", eval_id, json.dumps(job))


async def let_two_minutes_pass(redis: Redis, eval_ids: Sequence[str]) -> None:
    for key in SETS:
        for eval_id in eval_ids:
            if await redis.zscore(PREFIX + key, eval_id) is not None:
                await redis.zincrby(PREFIX + key, -120_000, eval_id)


async def test_a_lost_message_is_replaced_after_the_usual_patience(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await accept(ledger, eval_id)
    await claim(ledger)
    await set_clock_back(redis)
    assert await claim(ledger) == []
    assert 0 <= (await ledger.get_stats()).oldest[Queue.BACKFILL] < 60

    await let_two_minutes_pass(redis, [eval_id])

    assert await claim(ledger) == [eval_id]


async def test_times_in_the_future_are_corrected_in_several_steps_for_many_evaluations(
    ledger: Ledger, redis: Redis
) -> None:
    eval_ids = [str(uuid4()) for _ in range(2_500)]
    await accept(ledger, *eval_ids)
    await claim(ledger)
    await set_clock_back(redis)
    for _ in range(3):
        assert await claim(ledger) == []
    latest = await redis.zrange(PREFIX + "queued:backfill", -1, -1, withscores=True)
    seconds, _ = await redis.time()
    assert latest[0][1] <= (int(seconds) + 1) * 1000


@pytest.mark.parametrize("queued_before", [1, 1_500])
async def test_an_evaluation_queued_before_the_change_does_not_count_as_overtaking_a_later_one(
    ledger: Ledger, redis: Redis, queued_before: int
) -> None:
    before, after = [str(uuid4()) for _ in range(queued_before)], str(uuid4())
    await accept(ledger, *before)
    await claim(ledger)
    await set_clock_back(redis)
    await accept(ledger, after)
    await claim(ledger)

    assert len(await lease(ledger, *before)) == queued_before

    assert await claim(ledger) == [], "a worker still has the message of the other"


async def test_the_age_of_a_queue_is_never_negative(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await accept(ledger, eval_id)
    await set_clock_back(redis)
    assert (await ledger.get_stats()).oldest[Queue.BACKFILL] == 0


async def test_leases_and_retries_end_when_they_would_have(ledger: Ledger, redis: Redis) -> None:
    leased, parked = str(uuid4()), str(uuid4())
    await accept(ledger, leased, parked)
    _, job = await lease(ledger, leased, parked)
    await ledger.retry_later(job, wait=60, attempts=1, failure=Failure("service_failed"))
    await claim(ledger)
    await set_clock_back(redis)
    assert await claim(ledger) == []

    await let_two_minutes_pass(redis, [leased, parked])

    assert await claim(ledger) == sorted([leased, parked])


@pytest.mark.parametrize("is_ordered_again", [False, True])
async def test_an_order_during_an_attempt_is_due_when_the_attempt_ends(
    ledger: Ledger,
    redis: Redis,
    eval_id: str,
    is_ordered_again: bool,  # noqa: FBT001
) -> None:
    await accept(ledger, eval_id)
    (job,) = await lease(ledger, eval_id)
    await accept(ledger, eval_id, refresh=True)
    await claim(ledger)
    await set_clock_back(redis)
    if is_ordered_again:
        await accept(ledger, eval_id, refresh=True)
    await ledger.complete(job, Outcome.ARCHIVED)
    assert await claim(ledger) == [eval_id]


@pytest.mark.parametrize("accepted_before", [True, False])
async def test_held_evaluations_of_a_run_go_on_when_its_refusals_are_accepted(
    ledger: Ledger,
    redis: Redis,
    accepted_before: bool,  # noqa: FBT001
) -> None:
    refused, held = [str(uuid4()) for _ in range(200)], [str(uuid4()) for _ in range(3)]
    await accept(ledger, *refused, *held, run="q3")
    await ledger.complete_all([(job, Outcome.NO_DOCUMENTS) for job in await lease(ledger, *refused)])
    assert await lease(ledger, *held) == []
    await claim(ledger)
    if accepted_before:
        assert await ledger.runs.accept_refusals("q3")
    await set_clock_back(redis)
    if not accepted_before:
        assert [run.age for run in await list_refused_runs(redis)] == [0]
        await claim(ledger)
        assert await ledger.runs.accept_refusals("q3")
    assert await claim(ledger) == sorted(held)
