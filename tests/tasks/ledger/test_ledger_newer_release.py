"""Values and fields of a newer release are shown unchanged, and survive a rollback."""

import json

import pytest
from redis.asyncio import Redis

from tasks.ledger.counters import RunCounters
from tasks.ledger.entries import find_entry
from tasks.ledger.ledger import Ledger
from tasks.ledger.serialization import parse_counters
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.model.outcome import Outcome

pytestmark = pytest.mark.both_redises
ENTRIES, DEAD = "docv:ledger:entries", "docv:ledger:dead"
NEWER = {"colour": "green", "priority": {"of": [1, 2]}}


async def accept_newer(ledger: Ledger, redis: Redis, eval_id: str, **fields: object) -> None:
    """Accept an evaluation, and change its entry to that of a newer release."""
    await ledger.accept([eval_id], EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run="q3")))
    job = json.loads(await redis.hget(ENTRIES, eval_id) or "")
    await redis.hset(ENTRIES, eval_id, json.dumps(job | NEWER | fields))


async def fields_of(redis: Redis, key: str, eval_id: str) -> dict[str, object]:
    return dict(json.loads(await redis.hget(key, eval_id) or ""))


async def test_an_entry_keeps_its_fields_from_lease_to_redrive(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await accept_newer(ledger, redis, eval_id)
    (job,) = await ledger.lease([eval_id], token="a")
    await ledger.retry_later(job, wait=0, attempts=1, failure=Failure("service_failed"))
    assert (await fields_of(redis, ENTRIES, eval_id)).items() >= NEWER.items()
    (job,) = await ledger.lease([eval_id], token="b")
    await ledger.dead_letter(job, attempts=2, failure=Failure("service_failed"))
    assert (await fields_of(redis, DEAD, eval_id)).items() >= NEWER.items()
    assert await ledger.dead_letters.redrive([eval_id]) == [eval_id]
    renewed = await fields_of(redis, ENTRIES, eval_id)
    assert renewed.items() >= NEWER.items()
    assert not renewed.keys() & {"cause", "why", "status", "request_id", "first", "last", "lease"}


async def test_unknown_values_reach_the_worker_unchanged(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    trigger = {"source": "satellite", "run": "q3", "orbit": 7}
    await accept_newer(
        ledger, redis, eval_id, trigger=trigger, evidence=["of_tomorrow"], refresh_outcomes=["withdrawn"]
    )
    (job,) = await ledger.lease([eval_id], token="a")
    assert (job.trigger, job.evidence, job.refresh_outcomes) == (
        Trigger("satellite", run="q3"),
        ("of_tomorrow",),
        ("withdrawn",),
    )


async def test_an_unknown_queue_is_served_as_the_backfill_queue(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await accept_newer(ledger, redis, eval_id, queue="express")
    entry = await find_entry(redis, eval_id)
    assert entry
    assert entry.queue == "express"
    (job,) = await ledger.lease([eval_id], token="a")
    assert job.queue is Queue.BACKFILL
    await ledger.release(job)
    patience = {Queue.LIVE: -1.0, Queue.BACKFILL: -1.0}
    assert await ledger.claim(patience=patience, of_held={}) == {Queue.BACKFILL: [eval_id]}
    (job,) = await ledger.lease([eval_id], token="b")
    await ledger.await_hold(job, cause="account_held")
    assert (await ledger.get_stats()).held[Queue.BACKFILL] == 1
    patience = {Queue.LIVE: 3_600.0, Queue.BACKFILL: 3_600.0}
    of_held = {"default": {Queue.LIVE: 1, Queue.BACKFILL: 1}}
    assert await ledger.claim(patience=patience, of_held=of_held) == {Queue.BACKFILL: [eval_id]}
    assert (await fields_of(redis, ENTRIES, eval_id))["queue"] == "express"
    (job,) = await ledger.lease([eval_id], token="c")
    await ledger.complete(job, Outcome.ARCHIVED)
    assert (await ledger.runs.get_counters("q3")).pending == 0


def counters(**fields: int) -> RunCounters:
    return parse_counters({name: str(value) for name, value in fields.items()})


def test_an_unknown_outcome_is_counted_under_its_name() -> None:
    found = counters(total=14, unfed=5, archived=3, parked=2, teleported=4, fed=9)
    assert (found.pending, found.errors) == (7, 4)
    assert {outcome.value: count for outcome, count in found.outcomes.items() if count} == {
        "archived": 3,
        "teleported": 4,
    }
    assert found.sentence() == "3 archived, 4 teleported"


def test_an_unknown_counter_is_not_an_outcome() -> None:
    found = counters(total=9, archived=7, parked=2, megabytes=4)
    assert (found.pending, found.errors, len(found.outcomes)) == (2, 0, len(Outcome))


def test_an_unknown_outcome_is_counted_as_unknown_next_to_an_unknown_counter() -> None:
    found = counters(total=9, archived=3, parked=2, teleported=4, megabytes=700)
    assert (found.pending, found.outcomes[Outcome.ARCHIVED], found.sentence()) == (2, 3, "3 archived, 4 unknown")
