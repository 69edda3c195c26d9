"""A damaged entry is set aside for an operator, and stops nothing else."""

import json

import pytest
from redis.asyncio import Redis

from tasks.ledger.damaged_entries import DamagedEntries
from tasks.ledger.entries import find_entry
from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.model.outcome import Outcome

pytestmark = pytest.mark.both_redises
IDS = [f"0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a{number:02x}" for number in range(3)]
ENTRIES, DEAD = "docv:ledger:entries", "docv:ledger:dead"
NOW = {Queue.LIVE: -1.0, Queue.BACKFILL: -1.0}


@pytest.fixture
def damaged(redis: Redis) -> DamagedEntries:
    return DamagedEntries(redis)


async def accept(ledger: Ledger, run: str | None = "q3") -> None:
    await ledger.accept(IDS, EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run=run)))


async def damage(redis: Redis, key: str = ENTRIES, **fields: object) -> None:
    """Change fields of the middle entry, or make its text invalid JSON if no fields are given."""
    text = await redis.hget(key, IDS[1]) or ""
    await redis.hset(key, IDS[1], json.dumps(json.loads(text) | fields) if fields else "no JSON")


@pytest.mark.parametrize(
    "fields", [{}, {"runs": 5}, {"account": None}, {"attempts": "many"}, {"trigger": {"source": 1}}, {"again": {}}]
)
async def test_a_damaged_entry_is_set_aside_and_its_neighbours_are_claimed(
    ledger: Ledger, damaged: DamagedEntries, redis: Redis, fields: dict[str, object]
) -> None:
    await accept(ledger)
    await damage(redis, **fields)
    assert await ledger.claim(patience=NOW, of_held={}) == {Queue.BACKFILL: [IDS[0], IDS[2]]}
    assert [eval_id async for eval_id in damaged.iterate()] == [IDS[1]]
    assert (await damaged.count(), (await ledger.get_stats()).damaged) == (1, 1)
    assert await ledger.locate(IDS) == [("queued", None), ("damaged", None), ("queued", None)]
    entry = await find_entry(redis, IDS[1])
    assert entry
    assert (entry.state, entry.cause) == ("damaged", "damaged_entry")
    assert [job.eval_id for job in await ledger.lease(IDS, token="ours")] == [IDS[0], IDS[2]]


async def test_a_parked_evaluation_with_a_damaged_cause_is_counted_without_it(ledger: Ledger, redis: Redis) -> None:
    await accept(ledger)
    await damage(redis, cause=[], why=[[]])
    await redis.zadd("docv:ledger:parked", {IDS[1]: 1})

    stats, entry = await ledger.get_stats(), await find_entry(redis, IDS[1])

    assert (stats.parked, stats.parked_for) == (1, "")
    assert entry
    assert (entry.state, entry.cause) == ("parked", None)


async def test_a_run_counts_its_damaged_entry_as_failed_and_ends(ledger: Ledger, redis: Redis) -> None:
    await accept(ledger)
    await damage(redis, attempts="many")
    for job in await ledger.lease(IDS, token="ours"):
        await ledger.complete(job, Outcome.ARCHIVED)
    run = await ledger.runs.get_counters("q3")
    assert (run.pending, run.outcomes[Outcome.ARCHIVED], run.outcomes[Outcome.FAILED]) == (0, 2, 1)


async def test_an_entry_that_is_damaged_in_flight_is_a_lost_lease_for_its_worker(ledger: Ledger, redis: Redis) -> None:
    await accept(ledger)
    jobs = await ledger.lease(IDS, token="ours")
    await damage(redis)
    assert await ledger.extend(jobs) == [IDS[1]]
    assert [age > 0 for age in await ledger.complete_all([(job, "archived") for job in jobs])] == [True, False, True]


@pytest.mark.parametrize("fields", [{}, {"cause": [1]}, {"runs": [True]}, {"status": "x"}, {"last": 1e300}, {"why": 5}])
async def test_a_damaged_dead_letter_is_set_aside_when_it_is_redriven(
    ledger: Ledger, damaged: DamagedEntries, redis: Redis, fields: dict[str, object]
) -> None:
    await accept(ledger)
    for job in await ledger.lease(IDS, token="ours"):
        await ledger.dead_letter(job, attempts=6, failure=Failure("service_failed"))
    await damage(redis, DEAD, **fields)
    assert {letter.failure.cause async for letter in ledger.dead_letters.iterate()} == {
        "service_failed",
        "damaged_entry",
    }
    assert await ledger.dead_letters.redrive(IDS) == [IDS[0], IDS[2]]
    assert [eval_id async for eval_id in damaged.iterate()] == [IDS[1]]
    assert await ledger.dead_letters.count_causes() == {}


@pytest.mark.parametrize("field", ["attempts", "status"])
async def test_a_dead_letter_with_a_count_beyond_64_bits_is_reported_as_damaged(
    ledger: Ledger, redis: Redis, field: str
) -> None:
    await accept(ledger)
    for job in await ledger.lease(IDS, token="ours"):
        await ledger.dead_letter(job, attempts=6, failure=Failure("service_failed"))
    await damage(redis, DEAD, **{field: 10**20})
    causes = [letter.failure.cause async for letter in ledger.dead_letters.iterate()]
    assert sorted(causes) == ["damaged_entry", "service_failed", "service_failed"]


@pytest.mark.parametrize("way", ["accept", "erase", "drop"])
async def test_a_damaged_entry_is_forgotten_when_its_evaluation_is_erased_or_ordered(
    ledger: Ledger, damaged: DamagedEntries, redis: Redis, way: str
) -> None:
    await accept(ledger)
    await damage(redis)
    await ledger.claim(patience=NOW, of_held={})
    if way == "accept":
        await accept(ledger)
        assert [job.eval_id for job in await ledger.lease(IDS, token="ours")] == IDS
    elif way == "erase":
        assert await ledger.erase(IDS[1])
    else:
        assert await damaged.drop(IDS) == [IDS[1]]
    assert await damaged.count() == 0


async def test_an_evaluation_without_an_entry_is_not_claimed(ledger: Ledger, redis: Redis) -> None:
    await accept(ledger)
    await redis.hdel(ENTRIES, IDS[1])
    assert await ledger.claim(patience=NOW, of_held={}) == {Queue.BACKFILL: [IDS[0], IDS[2]]}
    assert (await ledger.get_stats()).queued[Queue.BACKFILL] == 2
