import asyncio

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Failure, Job, Queue, Trigger
from tasks.model.outcome import Outcome
from tests.tasks.ledger.ledger_steps import (
    PREFIX,
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


@pytest.mark.parametrize(
    "trigger",
    [
        Trigger("webhook", run=None, event_type="evaluation_completed", event_id="Ereignis „42“"),
        Trigger("backfill", run="2026-q3"),
        Trigger("message"),
    ],
)
async def test_lease_returns_the_job_of_an_accepted_evaluation(ledger: Ledger, eval_id: str, trigger: Trigger) -> None:
    await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "berlin", trigger, refresh=True))

    entry = await lease_one(ledger, eval_id, "worker-1")

    assert entry == Job(
        eval_id=eval_id,
        token="worker-1",
        queue=Queue.LIVE,
        account="berlin",
        refresh=True,
        attempts=0,
        lost=0,
        trigger=trigger,
    )


async def test_a_duplicate_message_leases_nothing(ledger: Ledger, eval_id: str) -> None:
    await accept_and_lease(ledger, eval_id)
    assert await ledger.lease([eval_id, eval_id], token="another") == []


async def test_an_evaluation_named_twice_in_a_message_is_leased_once(ledger: Ledger, eval_id: str) -> None:
    await accept(ledger, eval_id)
    assert len(await ledger.lease([eval_id, eval_id], token="ours")) == 1


async def test_an_ended_or_unknown_evaluation_is_not_leased(ledger: Ledger, redis: Redis) -> None:
    ended, unknown = some_ids(2)
    await ledger.complete(await accept_and_lease(ledger, ended), Outcome.ARCHIVED)
    assert await ledger.lease([ended, unknown], token="ours") == []
    assert (await dump(redis)).keys() <= {PREFIX + "reached"}


async def test_the_other_evaluations_of_a_message_are_leased_if_one_is_in_progress(ledger: Ledger) -> None:
    first, second, third = some_ids(3)
    await accept(ledger, first, second, third)
    await lease_one(ledger, second)
    assert [entry.eval_id for entry in await ledger.lease([first, second, third], token="b")] == [first, third]


async def test_a_parked_evaluation_is_not_leased_before_it_is_due(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await ledger.retry_later(
        await accept_and_lease(ledger, eval_id), wait=60, attempts=2, failure=Failure("service_failed")
    )
    assert await ledger.lease([eval_id], token="too early") == []

    await backdate(redis, "parked", eval_id)

    entry = await lease_one(ledger, eval_id)
    assert (entry.attempts, entry.lost) == (2, 0)


async def test_an_expired_lease_goes_to_the_next_worker_and_counts_as_lost(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await accept_and_lease(ledger, eval_id)
    await backdate(redis, "leased", eval_id)

    entry = await lease_one(ledger, eval_id, "another")

    assert (entry.token, entry.lost, entry.attempts) == ("another", 1, 0)
    assert await ledger.lease([eval_id], token="a third") == []


async def test_a_lease_lasts_for_the_configured_time(redis: Redis, eval_id: str) -> None:
    ledger = Ledger(redis, lease_seconds=45)
    before = await now_in_milliseconds(redis)
    await accept_and_lease(ledger, eval_id)
    after = await now_in_milliseconds(redis)

    assert before - 1 <= await redis.zscore(PREFIX + "leased", eval_id) - 45_000 <= after


async def test_each_evaluation_is_leased_to_one_of_many_workers(ledger: Ledger, redis_url: str) -> None:
    eval_ids = some_ids(50)
    await accept(ledger, *eval_ids)
    async with open_redis(redis_url) as other:
        workers = [Ledger(other) if number % 2 else ledger for number in range(20)]
        leased = await asyncio.gather(*(each.lease(eval_ids, token=f"t{n}") for n, each in enumerate(workers)))
    assert sorted(entry.eval_id for jobs in leased for entry in jobs) == sorted(eval_ids)


async def test_extend_keeps_a_lease_from_running_out(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    entry = await accept_and_lease(ledger, eval_id)
    almost_over = await now_in_milliseconds(redis) + 30_000
    await redis.zadd(PREFIX + "leased", {eval_id: almost_over})

    assert await ledger.extend([entry]) == []

    assert await redis.zscore(PREFIX + "leased", eval_id) >= almost_over + 80_000


async def test_extend_renews_an_expired_lease_that_no_other_worker_has(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    entry = await accept_and_lease(ledger, eval_id)
    await backdate(redis, "leased", eval_id)

    assert await ledger.extend([entry]) == []

    assert await ledger.lease([eval_id], token="another") == []
    await ledger.complete(entry, Outcome.ARCHIVED)


async def test_extend_returns_the_lost_leases_and_keeps_the_others(ledger: Ledger, redis: Redis) -> None:
    eval_ids = some_ids(4)
    await accept(ledger, *eval_ids)
    entries = await ledger.lease(eval_ids, token="ours")
    kept, settled, claimed, taken_over = eval_ids
    await ledger.complete(entries[1], Outcome.ARCHIVED)
    await backdate(redis, "leased", claimed, taken_over)
    await claim(ledger)
    await lease_one(ledger, taken_over, "another")
    held_by_the_other = await redis.zscore(PREFIX + "leased", taken_over)

    assert await ledger.extend(entries) == [settled, claimed, taken_over]

    assert await redis.zscore(PREFIX + "leased", taken_over) == held_by_the_other
    assert [await state_of(redis, each) for each in eval_ids] == ["leased", "none", "queued:backfill", "leased"]
    assert await ledger.extend([entries[0]]) == []
    assert await state_of(redis, kept) == "leased"


async def test_extending_no_leases_succeeds(ledger: Ledger) -> None:
    assert await ledger.extend([]) == []


@pytest.mark.real_redis_only("thousands of steps take fakeredis seconds")
async def test_extend_keeps_the_leases_of_64_full_messages(ledger: Ledger, redis: Redis) -> None:
    eval_ids = some_ids(6400)
    entries: list[Job] = []
    for start in range(0, len(eval_ids), 100):
        await accept(ledger, *eval_ids[start : start + 100])
        entries += await ledger.lease(eval_ids[start : start + 100], token="ours")
    await backdate(redis, "leased", *eval_ids)

    assert await ledger.extend(entries) == []

    assert await claim(ledger) == {}
