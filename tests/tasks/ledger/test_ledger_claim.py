import asyncio
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.job import Failure, Queue
from tasks.model.outcome import Outcome
from tests.tasks.ledger.ledger_steps import (
    HOUR,
    PREFIX,
    STATES,
    accept,
    accept_and_lease,
    backdate,
    claim,
    dump,
    lease_one,
    now_in_milliseconds,
    some_ids,
    state_of,
)
from worker.clients.redis import open_redis

pytestmark = pytest.mark.both_redises


async def test_claim_leaves_evaluations_that_are_not_due(ledger: Ledger, redis: Redis) -> None:
    queued, leased, parked, held = some_ids(4)
    await accept(ledger, queued)
    await accept_and_lease(ledger, leased)
    await ledger.await_hold(await accept_and_lease(ledger, held), cause="account_held")
    await accept(ledger, parked, delay=60)
    assert await claim(ledger) == {}  # this call also records the time
    before = await dump(redis)

    assert await claim(ledger) == {}

    after = await dump(redis)
    for state in (before, after):
        state["docv:ledger:reached"].pop("clock")
    assert after == before


async def test_claim_takes_the_evaluations_of_a_dead_worker(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await accept_and_lease(ledger, eval_id)
    await backdate(redis, "leased", eval_id)

    assert await claim(ledger) == {Queue.BACKFILL: [eval_id]}

    assert await claim(ledger) == {}
    assert (await lease_one(ledger, eval_id, "another")).lost == 1


async def test_each_lost_lease_of_an_evaluation_is_counted(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await accept(ledger, eval_id)
    for deaths in range(4):
        assert (await lease_one(ledger, eval_id, f"worker-{deaths}")).lost == deaths
        await backdate(redis, "leased", eval_id)
        if deaths % 2:
            await claim(ledger)
    assert (await lease_one(ledger, eval_id)).lost == 4


@pytest.mark.parametrize("lost", Queue)
async def test_claim_takes_an_evaluation_whose_message_was_lost_after_the_patience(
    ledger: Ledger, redis: Redis, lost: Queue
) -> None:
    old = {Queue.LIVE: str(uuid4()), Queue.BACKFILL: str(uuid4())}
    for queue, eval_id in old.items():
        await accept(ledger, eval_id, queue=queue)
        await redis.zadd(f"{PREFIX}queued:{queue}", {eval_id: await now_in_milliseconds(redis) - 600_000})
        await accept(ledger, str(uuid4()), queue=queue)
    patience = {queue: 300 if queue is lost else HOUR for queue in Queue}

    assert await claim(ledger, patience=patience) == {lost: [old[lost]]}

    assert await claim(ledger, patience=patience) == {}, "it was published a moment ago"


@pytest.mark.parametrize("queue", Queue)
async def test_claim_takes_an_evaluation_that_was_overtaken_in_its_queue(
    ledger: Ledger, redis: Redis, queue: Queue
) -> None:
    lost, close_behind, young, other = some_ids(4)
    others = next(each for each in Queue if each is not queue)
    await accept(ledger, lost, close_behind, young, queue=queue)
    await accept(ledger, other, queue=others)
    for eval_id, age in ((lost, 61), (close_behind, 59)):
        await redis.zincrby(PREFIX + f"queued:{queue}", -age * 1000, eval_id)
    await redis.zincrby(PREFIX + f"queued:{others}", -61_000, other)
    assert await claim(ledger) == {}

    await lease_one(ledger, young)

    assert await claim(ledger) == {queue: [lost]}


async def test_leasing_an_old_evaluation_does_not_undo_the_progress_of_its_queue(ledger: Ledger, redis: Redis) -> None:
    lost, old, young = some_ids(3)
    await accept(ledger, lost, old, young)
    await redis.zincrby(PREFIX + "queued:backfill", -90_000, lost)
    await redis.zincrby(PREFIX + "queued:backfill", -80_000, old)
    await lease_one(ledger, young)
    await lease_one(ledger, old)
    assert await claim(ledger) == {Queue.BACKFILL: [lost]}


async def test_refund_attempts_gives_an_attempt_back_and_holds_the_evaluation(ledger: Ledger, redis: Redis) -> None:
    parked, twice, leased, gone = some_ids(4)
    await ledger.retry_later(
        await accept_and_lease(ledger, parked), wait=60, attempts=1, failure=Failure("service_failed")
    )
    await ledger.retry_later(
        await accept_and_lease(ledger, twice), wait=60, attempts=2, failure=Failure("service_failed")
    )
    await accept_and_lease(ledger, leased)

    await ledger.refund_attempts([parked, twice, leased, gone])
    await ledger.refund_attempts([])

    assert [await state_of(redis, each) for each in (parked, twice, leased)] == ["held:backfill"] * 2 + ["leased"]
    await claim(ledger, of_held=2)
    assert [entry.attempts for entry in await ledger.lease([parked, twice], token="ours")] == [0, 1]


async def test_claim_takes_at_most_the_limit_and_the_rest_next_time(ledger: Ledger, redis: Redis) -> None:
    eval_ids = {state: some_ids(3) for state in STATES}
    for state in ("queued:live", "held:live"):
        await accept(ledger, *eval_ids[state], queue=Queue.LIVE)
    for state in ("queued:backfill", "leased", "parked", "held:backfill"):
        await accept(ledger, *eval_ids[state], delay=60 if state == "parked" else 0)
    await ledger.lease(eval_ids["leased"], token="dead")
    for entry in await ledger.lease([*eval_ids["held:live"], *eval_ids["held:backfill"]], token="held"):
        await ledger.await_hold(entry, cause="account_held")
    for state in STATES:
        await backdate(redis, state, *eval_ids[state])

    rounds = [await claim(ledger, limit=6, of_held=1000) for _ in range(4)]

    claimed = [[each for some in found.values() for each in some] for found in rounds]
    assert [len(found) for found in claimed] == [6, 6, 6, 0]
    assert sorted(sum(claimed, [])) == sorted(sum(eval_ids.values(), []))  # noqa: RUF017  # a dozen
    assert set(claimed[2][3:]) == set(eval_ids["queued:backfill"]), "live evaluations do not wait behind a backfill"


async def test_each_due_evaluation_is_claimed_by_one_of_many_workers(ledger: Ledger, redis_url: str) -> None:
    eval_ids = some_ids(50)
    entries = [await accept_and_lease(ledger, eval_id) for eval_id in eval_ids]
    for entry in entries:
        await ledger.retry_later(entry, wait=0, attempts=1, failure=Failure("service_failed"))
    async with open_redis(redis_url) as other:
        workers = [Ledger(other) if number % 2 else ledger for number in range(10)]
        rounds = await asyncio.gather(*(claim(each, limit=20) for each in workers))
    assert sorted(each for found in rounds for some in found.values() for each in some) == sorted(eval_ids)


async def test_end_leases_makes_leased_evaluations_due(ledger: Ledger) -> None:
    eval_ids = some_ids(3)
    entries = [await accept_and_lease(ledger, eval_id) for eval_id in eval_ids]
    await ledger.complete(entries.pop(), Outcome.ARCHIVED)

    assert await ledger.end_leases() == 2

    assert {key: set(found) for key, found in (await claim(ledger)).items()} == {Queue.BACKFILL: set(eval_ids[:2])}
    assert await ledger.end_leases() == 0
