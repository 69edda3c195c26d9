"""An order to archive an erased evaluation covers erasures before the order, and none after it."""

import json
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.model.outcome import Outcome
from tests.tasks.ledger.ledger_steps import lease_one

pytestmark = pytest.mark.both_redises

ENTRIES, DEAD, PARKED = "docv:ledger:entries", "docv:ledger:dead", "docv:ledger:parked"
TRIGGER = Trigger("enqueue")
ORDER = EnqueueOptions(Queue.BACKFILL, "default", TRIGGER, even_if_erased=True)
USUAL = EnqueueOptions(Queue.BACKFILL, "default", TRIGGER, refresh=True)


@pytest.fixture
def eval_id() -> str:
    return str(uuid4())


async def now(redis: Redis) -> float:
    seconds, micro = await redis.time()
    return float(seconds) + int(micro) / 1e6


async def rewrite_as_older_version(redis: Redis, key: str, eval_id: str, accepted: float) -> None:
    """Record only that there was such an order, and give it an age that it may have in a restored Redis."""
    text = await redis.hget(key, eval_id)
    job = json.loads(text or "")
    assert job["even_if_erased"]
    await redis.hset(key, eval_id, json.dumps(job | {"even_if_erased": True, "accepted": round(accepted * 1000)}))


async def test_an_order_covers_erasures_before_it_and_none_after_it(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    before = await now(redis)
    await ledger.accept([eval_id], ORDER)
    after = await now(redis)
    job = await lease_one(ledger, eval_id)
    assert job.covers_erasure(before - 0.01)
    assert not job.covers_erasure(after)


async def test_an_order_without_even_if_erased_covers_no_erasure(ledger: Ledger, eval_id: str) -> None:
    await ledger.accept([eval_id], USUAL)
    job = await lease_one(ledger, eval_id)
    assert (job.covers_erasure(0.0), job.ordered_at) == (False, None)


async def test_the_latest_order_with_even_if_erased_counts(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await ledger.accept([eval_id], ORDER)
    await rewrite_as_older_version(redis, ENTRIES, eval_id, accepted=1_000.0)
    await ledger.accept([eval_id], USUAL)
    job = await lease_one(ledger, eval_id)
    assert (job.covers_erasure(999.0), job.covers_erasure(1_001.0)) == (True, False)
    await ledger.release(job)
    between = await now(redis)
    await ledger.accept([eval_id], ORDER)
    assert (await lease_one(ledger, eval_id)).covers_erasure(between - 0.01)


async def test_an_entry_of_an_older_version_covers_erasures_before_its_acceptance(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await ledger.accept([eval_id], ORDER)
    await rewrite_as_older_version(redis, ENTRIES, eval_id, accepted=1_000.0)
    job = await lease_one(ledger, eval_id)
    assert (job.covers_erasure(999.0), job.covers_erasure(1_001.0)) == (True, False)


async def test_a_redriven_dead_letter_of_an_older_version_covers_erasures_before_its_acceptance(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await ledger.accept([eval_id], ORDER)
    await ledger.dead_letter(await lease_one(ledger, eval_id), attempts=6, failure=Failure("service_failed"))
    await rewrite_as_older_version(redis, DEAD, eval_id, accepted=1_000.0)
    await ledger.dead_letters.redrive([eval_id])
    job = await lease_one(ledger, eval_id)
    assert (job.covers_erasure(999.0), job.covers_erasure(1_001.0)) == (True, False)


async def test_a_dead_letter_keeps_the_time_of_its_order(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await ledger.accept([eval_id], ORDER)
    ordered = await now(redis)
    await ledger.dead_letter(await lease_one(ledger, eval_id), attempts=6, failure=Failure("service_failed"))
    await ledger.dead_letters.redrive([eval_id])
    job = await lease_one(ledger, eval_id)
    assert job.ordered_at
    assert job.ordered_at == pytest.approx(ordered, abs=0.5)
    assert not job.covers_erasure(ordered + 0.01)


@pytest.mark.parametrize("older", [False, True])
async def test_an_order_during_an_attempt_keeps_its_time(
    ledger: Ledger, redis: Redis, eval_id: str, *, older: bool
) -> None:
    await ledger.accept([eval_id], USUAL)
    job = await lease_one(ledger, eval_id)
    await ledger.accept([eval_id], ORDER)
    ordered = await now(redis)
    if older:
        entry = json.loads(await redis.hget(ENTRIES, eval_id) or "")
        entry["again"]["even_if_erased"], entry["accepted"] = True, 1_000_000
        await redis.hset(ENTRIES, eval_id, json.dumps(entry))
    await ledger.complete(job, Outcome.ARCHIVED)
    await redis.zadd(PARKED, {eval_id: 0})
    again = await lease_one(ledger, eval_id)
    assert again.refresh is True
    assert again.covers_erasure(999.0)
    assert not again.covers_erasure(1_001.0 if older else ordered + 0.01)


async def test_the_list_of_a_run_covers_erasures_before_the_run_began(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    other = str(uuid4())
    begun = await now(redis)
    await ledger.runs.begin("q3", total=2, fingerprint="f")
    for position, (each, ordered_at) in enumerate([(eval_id, 1_000.0), (other, begun + 7_200)]):
        order = EnqueueOptions(
            Queue.BACKFILL, "default", Trigger("backfill", run="q3"), even_if_erased=True, ordered_at=ordered_at
        )
        assert await ledger.runs.feed("q3", [each], order, position=position, backlog=1_000) == [each]
    old, ahead = await lease_one(ledger, eval_id), await lease_one(ledger, other)
    assert (old.covers_erasure(999.0), old.covers_erasure(1_001.0)) == (True, False)
    # The clock of the machine that began the run is two hours ahead.
    assert (ahead.covers_erasure(begun - 1), ahead.covers_erasure(begun + 5)) == (True, False)
