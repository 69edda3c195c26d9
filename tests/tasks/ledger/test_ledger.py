"""Time passes in these tests by changing scores in Redis, so they neither wait nor depend on the machine's speed."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from tasks.errors import LeaseLost
from tasks.ledger.cancellation import Cancellation
from tasks.ledger.ledger import Ledger
from tasks.ledger.runs import BeginResult
from tasks.ledger.script import NotReplicated
from tasks.model.job import EnqueueOptions, Failure, Job, Queue, Trigger
from tasks.model.outcome import ManifestOutcome, Outcome
from worker.clients.redis import open_redis

pytestmark = pytest.mark.both_redises

PREFIX = "docv:ledger:"
STATES = ("queued:live", "queued:backfill", "leased", "parked", "held:live", "held:backfill")
HOUR = 3600.0
PATIENCE = {Queue.LIVE: HOUR, Queue.BACKFILL: HOUR}
BY_HAND = Trigger("enqueue")

Ending = Callable[[Ledger, Job], Awaitable[None]]
ENDINGS: dict[str, Ending] = {
    "complete": lambda ledger, entry: ledger.complete(entry, Outcome.ARCHIVED),
    "retry_later": lambda ledger, entry: ledger.retry_later(
        entry, wait=60, attempts=1, failure=Failure("service_failed")
    ),
    "await_hold": lambda ledger, entry: ledger.await_hold(entry, cause="account_held"),
    "release": lambda ledger, entry: ledger.release(entry),
    "dead_letter": lambda ledger, entry: ledger.dead_letter(entry, attempts=6, failure=Failure("service_failed")),
}
RELEASES = ("retry_later", "release", "await_hold")


@pytest.fixture
def ledger(redis: Redis) -> Ledger:
    return Ledger(redis)


def some_ids(count: int) -> list[str]:
    return [str(uuid4()) for _ in range(count)]


async def accept(
    ledger: Ledger,
    *eval_ids: str,
    queue: Queue = Queue.BACKFILL,
    run: str | None = None,
    **wanted: Any,
) -> list[str]:
    return await ledger.accept(eval_ids, EnqueueOptions(queue, "default", Trigger("enqueue", run=run), **wanted))


async def lease_one(ledger: Ledger, eval_id: str, token: str = "ours") -> Job:  # noqa: S107  # no password
    (entry,) = await ledger.lease([eval_id], token=token)
    return entry


async def accept_and_lease(ledger: Ledger, eval_id: str, *, run: str | None = None) -> Job:
    await accept(ledger, eval_id, run=run)
    return await lease_one(ledger, eval_id)


async def claim(
    ledger: Ledger, *, of_held: int = 0, limit: int = 1000, patience: dict[Queue, float] = PATIENCE
) -> dict[Queue, list[str]]:
    each = {"default": dict.fromkeys(Queue, of_held)}
    return await ledger.claim(patience=patience, of_held=each, limit=limit)


async def backdate(redis: Redis, state: str, *eval_ids: str) -> None:
    """Move the times of these evaluations in a state far into the past."""
    assert await redis.zadd(PREFIX + state, dict.fromkeys(eval_ids, 1), xx=True, ch=True) == len(eval_ids)


async def now_in_milliseconds(redis: Redis) -> float:
    seconds, micro = await redis.time()
    return seconds * 1000 + micro / 1000


async def state_of(redis: Redis, eval_id: str) -> str:
    """Return the one state of an evaluation; None if it is not in the ledger."""
    states = [state for state in STATES if await redis.zscore(PREFIX + state, eval_id) is not None]
    assert len(states) == int(await redis.hexists(PREFIX + "entries", eval_id))
    return states[0] if states else "none"


async def dump(redis: Redis) -> dict[str, object]:
    """Return all keys and values in Redis, to check that nothing changed."""
    found: dict[str, object] = {}
    async for key in redis.scan_iter():
        is_hash = await redis.type(key) == "hash"
        found[key] = await redis.hgetall(key) if is_hash else await redis.zrange(key, 0, -1, withscores=True)
    return found


# -- accept


async def test_an_accepted_evaluation_is_queued_and_returned_to_be_published(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    assert await accept(ledger, eval_id, queue=Queue.LIVE) == [eval_id]
    assert await state_of(redis, eval_id) == "queued:live"


async def test_an_evaluation_in_the_ledger_is_not_published_again(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await accept(ledger, eval_id)
    assert await accept(ledger, eval_id) == []
    await lease_one(ledger, eval_id)
    assert await accept(ledger, eval_id) == []
    assert await state_of(redis, eval_id) == "leased"


async def test_an_evaluation_named_twice_in_an_order_is_published_once(ledger: Ledger, eval_id: str) -> None:
    assert await accept(ledger, eval_id, eval_id) == [eval_id]


async def test_accepting_no_evaluations_succeeds(ledger: Ledger, redis: Redis) -> None:
    assert await accept(ledger) == []
    assert (await dump(redis)).keys() <= {PREFIX + "reached"}


@pytest.mark.real_redis_only("it is about how many arguments Redis takes")
async def test_thousands_of_evaluations_are_accepted_in_one_step(ledger: Ledger) -> None:
    eval_ids = some_ids(5000)
    assert await accept(ledger, *eval_ids) == eval_ids
    assert (await ledger.get_stats()).queued == {Queue.LIVE: 0, Queue.BACKFILL: 5000}


async def test_a_delayed_evaluation_waits_in_the_ledger_until_it_is_due(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    assert await accept(ledger, eval_id, queue=Queue.LIVE, delay=60) == []
    assert await ledger.lease([eval_id], token="too early") == []
    assert await claim(ledger) == {}

    await backdate(redis, "parked", eval_id)

    assert await claim(ledger) == {Queue.LIVE: [eval_id]}


async def test_the_delay_is_in_seconds(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    before = await now_in_milliseconds(redis)
    await accept(ledger, eval_id, delay=60)
    after = await now_in_milliseconds(redis)

    due = await redis.zscore(PREFIX + "parked", eval_id)

    assert before - 1 <= due - 60_000 <= after


async def test_a_live_order_moves_an_evaluation_out_of_the_backfill_queue(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await accept(ledger, eval_id, queue=Queue.BACKFILL)

    assert await accept(ledger, eval_id, queue=Queue.LIVE) == [eval_id]

    assert await state_of(redis, eval_id) == "queued:live"
    assert (await lease_one(ledger, eval_id)).queue is Queue.LIVE


async def test_a_backfill_order_leaves_an_evaluation_in_the_live_queue(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await accept(ledger, eval_id, queue=Queue.LIVE)

    assert await accept(ledger, eval_id, queue=Queue.BACKFILL) == []

    assert await state_of(redis, eval_id) == "queued:live"
    assert (await lease_one(ledger, eval_id)).queue is Queue.LIVE


async def test_a_live_order_for_a_parked_evaluation_keeps_its_wait_and_makes_it_live(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await ledger.retry_later(
        await accept_and_lease(ledger, eval_id), wait=60, attempts=1, failure=Failure("service_failed")
    )

    assert await accept(ledger, eval_id, queue=Queue.LIVE) == []
    assert await state_of(redis, eval_id) == "parked"

    await backdate(redis, "parked", eval_id)
    assert await claim(ledger) == {Queue.LIVE: [eval_id]}


async def test_a_leased_evaluation_is_released_to_the_live_queue_after_a_live_order(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    entry = await accept_and_lease(ledger, eval_id)
    assert await accept(ledger, eval_id, queue=Queue.LIVE) == []
    await ledger.release(entry)
    assert await state_of(redis, eval_id) == "queued:live"


async def test_a_refresh_order_for_a_queued_evaluation_is_merged(ledger: Ledger, eval_id: str) -> None:
    await accept(ledger, eval_id)
    assert await accept(ledger, eval_id, refresh=True) == []
    assert (await lease_one(ledger, eval_id)).refresh
    assert await claim(ledger) == {}


async def test_an_order_without_refresh_keeps_the_refresh_of_an_earlier_order(ledger: Ledger, eval_id: str) -> None:
    await accept(ledger, eval_id, refresh=True)
    await accept(ledger, eval_id, refresh=False)
    assert (await lease_one(ledger, eval_id)).refresh


async def test_a_refresh_order_during_an_attempt_makes_the_evaluation_due_again(ledger: Ledger, eval_id: str) -> None:
    await accept(ledger, eval_id, run="first")
    entry = await lease_one(ledger, eval_id)
    changed = Trigger("webhook", event_type="documents_updated", event_id="e2")

    assert await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "default", changed, refresh=True)) == []
    assert not entry.refresh
    await ledger.complete(entry, Outcome.ARCHIVED)

    assert await claim(ledger) == {Queue.LIVE: [eval_id]}
    second = await lease_one(ledger, eval_id, "another")
    assert second == Job(eval_id, "another", Queue.LIVE, "default", True, 0, 0, changed)  # noqa: FBT003
    await ledger.complete(second, Outcome.UNCHANGED)
    assert await ledger.lease([eval_id], token="a third") == []
    assert (await ledger.runs.get_counters("first")).outcomes[Outcome.ARCHIVED] == 1
    assert (await ledger.runs.get_counters("first")).total == 1


async def test_a_refresh_order_during_an_attempt_survives_its_failure_and_its_worker(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    entry = await accept_and_lease(ledger, eval_id)
    await accept(ledger, eval_id, refresh=True)
    await ledger.retry_later(entry, wait=0, attempts=1, failure=Failure("service_failed"))
    await lease_one(ledger, eval_id, "dies")
    await backdate(redis, "leased", eval_id)

    await ledger.complete(await lease_one(ledger, eval_id, "third"), Outcome.ARCHIVED)

    assert await claim(ledger) == {Queue.BACKFILL: [eval_id]}
    assert (await lease_one(ledger, eval_id)).refresh


async def test_refresh_outcomes_of_orders_are_merged_and_keep_a_refresh(ledger: Ledger, eval_id: str) -> None:
    await accept(ledger, eval_id, refresh_outcomes=(ManifestOutcome.REJECTED, ManifestOutcome.NOT_FOUND))
    await accept(ledger, eval_id, refresh_outcomes=(ManifestOutcome.NO_DOCUMENTS, ManifestOutcome.REJECTED))
    await accept(ledger, eval_id)
    entry = await lease_one(ledger, eval_id)
    assert not entry.refresh
    assert entry.refresh_outcomes == (ManifestOutcome.REJECTED, ManifestOutcome.NOT_FOUND, ManifestOutcome.NO_DOCUMENTS)
    await ledger.release(entry)
    await accept(ledger, eval_id, refresh=True)
    await accept(ledger, eval_id, refresh_outcomes=(ManifestOutcome.NO_DOCUMENTS,))
    assert (await lease_one(ledger, eval_id)).refresh


@pytest.mark.parametrize(
    ("others", "refresh"), [((), False), (({"refresh": True},), True), (({"even_if_erased": True},), True)]
)
async def test_refresh_outcomes_ordered_during_an_attempt_apply_to_the_next_one(
    ledger: Ledger, eval_id: str, others: tuple[dict[str, bool], ...], *, refresh: bool
) -> None:
    entry = await accept_and_lease(ledger, eval_id, run="first")
    await accept(ledger, eval_id, run="second", refresh_outcomes=(ManifestOutcome.NO_DOCUMENTS,))
    for other in others:
        await accept(ledger, eval_id, **other)
    await ledger.complete(entry, Outcome.ARCHIVED)
    await claim(ledger)
    again = await lease_one(ledger, eval_id)
    assert (again.refresh, again.refresh_outcomes) == (refresh, (ManifestOutcome.NO_DOCUMENTS,))
    await ledger.complete(again, Outcome.UNCHANGED, ManifestOutcome.ARCHIVED)
    assert (await ledger.runs.get_counters("first")).outcomes[Outcome.ARCHIVED] == 1
    assert (await ledger.runs.get_counters("second")).unchanged_outcomes[ManifestOutcome.ARCHIVED] == 1


async def test_a_next_attempt_recorded_by_an_older_version_is_a_refresh(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    entry = await accept_and_lease(ledger, eval_id)
    await accept(ledger, eval_id, refresh=True)
    job = json.loads(await redis.hget(PREFIX + "entries", eval_id) or "")
    del job["again"]["refresh"]
    await redis.hset(PREFIX + "entries", eval_id, json.dumps(job))
    await accept(ledger, eval_id, refresh_outcomes=(ManifestOutcome.NO_DOCUMENTS,))
    await ledger.complete(entry, Outcome.ARCHIVED)
    await claim(ledger)
    assert (await lease_one(ledger, eval_id)).refresh


async def test_a_redriven_dead_letter_keeps_its_refresh_outcomes(ledger: Ledger, eval_id: str) -> None:
    await accept(ledger, eval_id, refresh_outcomes=(ManifestOutcome.REJECTED,))
    await ledger.dead_letter(await lease_one(ledger, eval_id), attempts=6, failure=Failure("service_failed"))
    await ledger.dead_letters.redrive([eval_id])
    await claim(ledger)
    assert (await lease_one(ledger, eval_id)).refresh_outcomes == (ManifestOutcome.REJECTED,)


async def test_the_live_one_of_two_refresh_orders_during_an_attempt_decides_the_queue(
    ledger: Ledger, eval_id: str
) -> None:
    entry = await accept_and_lease(ledger, eval_id)
    await accept(ledger, eval_id, queue=Queue.BACKFILL, refresh=True)
    await accept(ledger, eval_id, queue=Queue.LIVE, refresh=True)
    await ledger.complete(entry, Outcome.ARCHIVED)
    assert await claim(ledger) == {Queue.LIVE: [eval_id]}


async def test_a_dead_letter_is_removed_when_its_evaluation_is_accepted_again(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await ledger.dead_letter(await accept_and_lease(ledger, eval_id), attempts=6, failure=Failure("service_failed"))

    assert await accept(ledger, eval_id) == [eval_id]

    assert not await redis.hexists(PREFIX + "dead", eval_id)
    assert (await lease_one(ledger, eval_id)).attempts == 0


async def test_an_evaluation_that_ended_can_be_accepted_again(ledger: Ledger, eval_id: str) -> None:
    await ledger.complete(await accept_and_lease(ledger, eval_id), Outcome.ARCHIVED)
    assert await accept(ledger, eval_id) == [eval_id]


# -- lease


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
    ended, unheard_of = some_ids(2)
    await ledger.complete(await accept_and_lease(ledger, ended), Outcome.ARCHIVED)
    assert await ledger.lease([ended, unheard_of], token="ours") == []
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
        takers = [Ledger(other) if number % 2 else ledger for number in range(20)]
        hauls = await asyncio.gather(*(each.lease(eval_ids, token=f"t{n}") for n, each in enumerate(takers)))
    assert sorted(entry.eval_id for haul in hauls for entry in haul) == sorted(eval_ids)


# -- extend


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


# -- complete, retry_later, await_hold, release, dead_letter


async def test_a_completed_evaluation_leaves_nothing_in_redis(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await ledger.complete(await accept_and_lease(ledger, eval_id), Outcome.NOT_FOUND)
    assert (await dump(redis)).keys() <= {PREFIX + "reached"}


async def test_a_parked_evaluation_keeps_its_attempts_when_it_is_due(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    entry = await accept_and_lease(ledger, eval_id)
    before = await now_in_milliseconds(redis)
    await ledger.retry_later(entry, wait=90, attempts=3, failure=Failure("service_failed"))
    after = await now_in_milliseconds(redis)

    assert before - 1 <= await redis.zscore(PREFIX + "parked", eval_id) - 90_000 <= after
    await backdate(redis, "parked", eval_id)
    assert await claim(ledger) == {Queue.BACKFILL: [eval_id]}
    assert (await lease_one(ledger, eval_id)).attempts == 3


@pytest.mark.parametrize("wait", [0, -1])
async def test_an_evaluation_parked_for_zero_seconds_is_due_at_once(ledger: Ledger, eval_id: str, wait: float) -> None:
    await ledger.retry_later(
        await accept_and_lease(ledger, eval_id), wait=wait, attempts=1, failure=Failure("manifest_changed")
    )
    assert await claim(ledger) == {Queue.BACKFILL: [eval_id]}


async def test_a_held_evaluation_keeps_its_attempts(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await ledger.retry_later(
        await accept_and_lease(ledger, eval_id), wait=0, attempts=2, failure=Failure("service_failed")
    )
    await ledger.await_hold(await lease_one(ledger, eval_id), cause="account_held")
    assert await state_of(redis, eval_id) == "held:backfill"

    assert await claim(ledger, of_held=1) == {Queue.BACKFILL: [eval_id]}

    entry = await lease_one(ledger, eval_id, "another")
    assert (entry.attempts, entry.lost) == (2, 0)


async def test_a_held_evaluation_is_not_leased_by_a_stray_message(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await ledger.await_hold(await accept_and_lease(ledger, eval_id), cause="account_held")
    await backdate(redis, "held:backfill", eval_id)
    assert await ledger.lease([eval_id], token="stray") == []
    assert await state_of(redis, eval_id) == "held:backfill"


async def test_a_held_evaluation_takes_a_live_order_and_a_refresh(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await ledger.await_hold(await accept_and_lease(ledger, eval_id), cause="account_held")

    assert await accept(ledger, eval_id, queue=Queue.LIVE, refresh=True, run="2026-q3") == []

    assert await state_of(redis, eval_id) == "held:live"
    assert await claim(ledger, of_held=1) == {Queue.LIVE: [eval_id]}
    assert (await lease_one(ledger, eval_id)).refresh
    assert (await ledger.runs.get_counters("2026-q3")).pending == 1


async def test_claim_takes_held_evaluations_up_to_the_limit_the_oldest_first(ledger: Ledger, redis: Redis) -> None:
    eval_ids = some_ids(5)
    for age, eval_id in enumerate(eval_ids):
        await ledger.await_hold(await accept_and_lease(ledger, eval_id), cause="account_held")
        await redis.zincrby(PREFIX + "held:backfill", -60_000 * age, eval_id)

    assert await claim(ledger, of_held=0) == {}
    assert await claim(ledger, of_held=1) == {Queue.BACKFILL: eval_ids[4:]}
    assert set((await claim(ledger, of_held=2))[Queue.BACKFILL]) == set(eval_ids[2:4])
    assert set((await claim(ledger, of_held=1000))[Queue.BACKFILL]) == set(eval_ids[:2])


async def test_a_suspect_is_claimed_as_a_probe_only_if_no_other_is_left(ledger: Ledger) -> None:
    suspect, parked, fresh = some_ids(3)
    await ledger.await_hold(await accept_and_lease(ledger, suspect), cause="service_failed", suspect=True)
    await ledger.retry_later(
        await accept_and_lease(ledger, parked), wait=60, attempts=1, failure=Failure("service_failed")
    )
    await ledger.refund_attempts([parked])
    await ledger.await_hold(await accept_and_lease(ledger, fresh), cause="account_held")
    assert [await claim(ledger, of_held=1) for _ in range(3)] == [
        {Queue.BACKFILL: [fresh]},
        {Queue.BACKFILL: [suspect]},
        {Queue.BACKFILL: [parked]},
    ]


async def test_a_hold_does_not_stop_evaluations_that_are_due_for_another_reason(ledger: Ledger, redis: Redis) -> None:
    held, dead = some_ids(2)
    await ledger.await_hold(await accept_and_lease(ledger, held), cause="account_held")
    await accept_and_lease(ledger, dead)
    await backdate(redis, "leased", dead)
    assert await claim(ledger, of_held=0) == {Queue.BACKFILL: [dead]}


async def test_a_released_evaluation_is_queued_unchanged(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await ledger.release(await accept_and_lease(ledger, eval_id))

    assert await state_of(redis, eval_id) == "queued:backfill"
    entry = await lease_one(ledger, eval_id, "another")
    assert (entry.attempts, entry.lost) == (0, 0)


async def test_a_dead_letter_has_the_facts_that_an_operator_needs(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    before = await now_in_milliseconds(redis)
    entry = await accept_and_lease(ledger, eval_id, run="2026-q3")

    failure = Failure("service_failed", "RiskOS answered with status 503", 503, "0b54a4d4-6e5b")
    await ledger.retry_later(entry, wait=0, attempts=1, failure=Failure("connection_failed"))
    await ledger.dead_letter(await lease_one(ledger, eval_id), attempts=2, failure=failure)

    assert await state_of(redis, eval_id) == "none"
    (letter,) = [each async for each in ledger.dead_letters.iterate()]
    assert (letter.eval_id, letter.failure, letter.attempts) == (eval_id, failure, 2)
    assert (letter.account, letter.queue, letter.runs) == ("default", Queue.BACKFILL, ("2026-q3",))
    moments = [
        before / 1000 - 0.001,
        letter.accepted,
        letter.first,
        letter.last,
        await now_in_milliseconds(redis) / 1000,
    ]
    assert moments == sorted(moments)


@pytest.mark.real_redis_only("thousands of steps take fakeredis seconds")
async def test_iterate_yields_more_dead_letters_than_a_page(ledger: Ledger) -> None:
    eval_ids = some_ids(2500)
    await accept(ledger, *eval_ids)
    for entry in await ledger.lease(eval_ids, token="ours"):
        await ledger.dead_letter(entry, attempts=6, failure=Failure("service_failed"))
    assert {each.eval_id async for each in ledger.dead_letters.iterate()} == set(eval_ids)
    assert len(await ledger.dead_letters.redrive(eval_ids)) == 2500
    assert [each async for each in ledger.dead_letters.iterate()] == []


async def test_a_redriven_dead_letter_starts_again_and_is_pending_for_its_run(ledger: Ledger, eval_id: str) -> None:
    await accept(ledger, eval_id, run="2026-q3", refresh=True)
    await ledger.dead_letter(await lease_one(ledger, eval_id), attempts=6, failure=Failure("service_failed"))
    assert (await ledger.runs.get_counters("2026-q3")).outcomes[Outcome.FAILED] == 1

    assert await ledger.dead_letters.redrive([eval_id, *some_ids(1)]) == [eval_id]

    counters = await ledger.runs.get_counters("2026-q3")
    assert (counters.total, counters.pending, counters.outcomes[Outcome.FAILED]) == (1, 1, 0)
    assert await claim(ledger) == {Queue.BACKFILL: [eval_id]}
    entry = await lease_one(ledger, eval_id)
    assert (entry.attempts, entry.refresh, entry.trigger) == (0, True, Trigger("enqueue", run="2026-q3"))
    await ledger.complete(entry, Outcome.ARCHIVED)
    assert (await ledger.runs.get_counters("2026-q3")).outcomes[Outcome.ARCHIVED] == 1
    assert await ledger.dead_letters.redrive([eval_id]) == []


async def test_a_dropped_dead_letter_is_still_counted_as_failed(ledger: Ledger, eval_id: str) -> None:
    await ledger.dead_letter(
        await accept_and_lease(ledger, eval_id, run="2026-q3"), attempts=6, failure=Failure("service_failed")
    )
    assert await ledger.dead_letters.drop([eval_id]) == [eval_id]
    assert await ledger.dead_letters.drop([eval_id]) == []
    assert (await ledger.get_stats()).dead_letters == 0
    assert (await ledger.runs.get_counters("2026-q3")).outcomes[Outcome.FAILED] == 1


async def test_dead_letters_are_counted_and_listed_by_their_cause(ledger: Ledger) -> None:
    failed, large, dropped, erased, anew = some_ids(5)
    for eval_id in (failed, large, dropped, erased, anew):
        cause = "bundle_too_large" if eval_id == large else "service_failed"
        await ledger.dead_letter(await accept_and_lease(ledger, eval_id), attempts=6, failure=Failure(cause))
    assert await ledger.dead_letters.count_causes() == {"service_failed": 4, "bundle_too_large": 1}
    assert await ledger.dead_letters.count_causes(1) == {"service_failed": 4}
    assert [await ledger.dead_letters.count(cause) for cause in ("bundle_too_large", "unheard_of")] == [1, 0]

    await ledger.dead_letters.drop([dropped, dropped])
    await ledger.erase(erased)
    await accept(ledger, anew)
    await ledger.dead_letters.redrive([large])

    assert await ledger.dead_letters.count_causes() == {"service_failed": 1}
    assert await ledger.dead_letters.list_of_cause("service_failed", 10) == [failed]
    assert await ledger.dead_letters.list_of_cause("bundle_too_large", 10) == []
    assert [letter.eval_id for letter in await ledger.dead_letters.get_many([large, failed])] == [failed]
    assert await ledger.dead_letters.get_many([]) == []


async def test_dead_letters_of_a_cause_are_listed_in_pages_the_latest_failure_first(
    ledger: Ledger, redis: Redis
) -> None:
    eval_ids = some_ids(5)
    for eval_id in eval_ids:
        await ledger.dead_letter(await accept_and_lease(ledger, eval_id), attempts=6, failure=Failure("service_failed"))
    for second, eval_id in enumerate(eval_ids):
        await redis.zadd(PREFIX + "dead:service_failed", {eval_id: second})
    newest_first = eval_ids[::-1]
    assert await ledger.dead_letters.list_of_cause("service_failed", 2) == newest_first[:2]
    assert await ledger.dead_letters.list_of_cause("service_failed", 2, skip=4) == newest_first[4:]


async def test_runs_are_listed_in_pages_the_newest_first(ledger: Ledger, redis: Redis) -> None:
    for second, run in enumerate(("first", "second", "third")):
        await accept(ledger, *some_ids(second + 1), run=run)
        await redis.zadd(PREFIX + "runs", {run: second})
    assert await ledger.runs.list_newest() == ["third", "second", "first"]
    assert await ledger.runs.list_newest(1, skip=1) == ["second"]
    assert await ledger.runs.count() == 3
    counters = await ledger.runs.get_many_counters(["third", "unheard-of"])
    assert {run: found.total for run, found in counters.items()} == {"third": 3, "unheard-of": 0}


async def test_a_failed_evaluation_is_suspect_and_a_held_one_is_not(ledger: Ledger) -> None:
    parked, waited, failed_in_an_outage, redriven, asked_again = some_ids(5)
    await ledger.retry_later(
        await accept_and_lease(ledger, parked), wait=0, attempts=1, failure=Failure("service_failed")
    )
    await ledger.await_hold(await accept_and_lease(ledger, waited), cause="account_held")
    await ledger.await_hold(await accept_and_lease(ledger, failed_in_an_outage), cause="service_failed", suspect=True)
    for eval_id in (redriven, asked_again):
        await ledger.dead_letter(await accept_and_lease(ledger, eval_id), attempts=6, failure=Failure("service_failed"))
    await ledger.dead_letters.redrive([redriven])
    await accept(ledger, asked_again)

    await claim(ledger, of_held=2)

    eval_ids = [parked, waited, failed_in_an_outage, redriven, asked_again]
    assert [entry.suspect for entry in await ledger.lease(eval_ids, token="ours")] == [
        True,
        False,
        True,
        True,
        True,
    ]


async def test_the_time_of_an_excused_failure_is_recorded(ledger: Ledger, redis: Redis) -> None:
    charged, waited, held, released, handed_back = eval_ids = some_ids(5)
    before, _ = await redis.time()
    await ledger.retry_later(
        await accept_and_lease(ledger, charged), wait=0, attempts=1, failure=Failure("service_failed")
    )
    await ledger.await_hold(await accept_and_lease(ledger, waited), cause="account_held")
    await ledger.await_hold(await accept_and_lease(ledger, held), cause="store_failed", suspect=True)
    await ledger.release(await accept_and_lease(ledger, released), excused=True)
    await ledger.release(await accept_and_lease(ledger, handed_back))

    await claim(ledger, of_held=2)

    excused = {each.eval_id: each.excused_at for each in await ledger.lease(eval_ids, token="ours")}
    assert {eval_id for eval_id, at in excused.items() if at is None} == {charged, waited, handed_back}
    assert all(before <= (excused[eval_id] or 0) <= before + 60 for eval_id in (held, released))


async def test_an_evaluation_with_a_pending_refresh_starts_again_instead_of_becoming_a_dead_letter(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    entry = await accept_and_lease(ledger, eval_id)
    await accept(ledger, eval_id, refresh=True)

    await ledger.dead_letter(entry, attempts=6, failure=Failure("service_failed"))
    assert await claim(ledger) == {Queue.BACKFILL: [eval_id]}
    await ledger.complete(await lease_one(ledger, eval_id), Outcome.ARCHIVED)

    assert not await redis.hexists(PREFIX + "dead", eval_id)


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize("how", ["claimed", "leased again", "completed", "completed and accepted again", "dead letter"])
async def test_a_worker_that_lost_its_lease_changes_nothing(
    ledger: Ledger, redis: Redis, eval_id: str, how: str, ending: Ending
) -> None:
    entry = await accept_and_lease(ledger, eval_id, run="2026-q3")
    match how:
        case "claimed":
            await backdate(redis, "leased", eval_id)
            await claim(ledger)
        case "leased again":
            await backdate(redis, "leased", eval_id)
            await lease_one(ledger, eval_id, "another")
        case "completed":
            await ledger.complete(entry, Outcome.UNCHANGED)
        case "completed and accepted again":
            await ledger.complete(entry, Outcome.UNCHANGED)
            await accept(ledger, eval_id)
            await lease_one(ledger, eval_id, "another")
        case "dead letter":
            await ledger.dead_letter(entry, attempts=6, failure=Failure("service_failed"))
    before = await dump(redis)

    with pytest.raises(LeaseLost):
        await ending(ledger, entry)

    assert await dump(redis) == before


@pytest.mark.parametrize("ending", [ENDINGS[name] for name in RELEASES], ids=RELEASES)
async def test_a_worker_that_parked_or_released_an_evaluation_cannot_change_it(
    ledger: Ledger, redis: Redis, eval_id: str, ending: Ending
) -> None:
    entry = await accept_and_lease(ledger, eval_id)
    await ending(ledger, entry)
    before = await dump(redis)

    for each in ENDINGS.values():
        with pytest.raises(LeaseLost):
            await each(ledger, entry)

    assert await ledger.extend([entry]) == [eval_id]
    assert await dump(redis) == before


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
async def test_an_expired_lease_is_valid_until_another_worker_has_the_evaluation(
    ledger: Ledger, redis: Redis, eval_id: str, ending: Ending
) -> None:
    entry = await accept_and_lease(ledger, eval_id)
    await backdate(redis, "leased", eval_id)
    await ending(ledger, entry)
    assert await state_of(redis, eval_id) != "leased"


# -- claim


async def test_claim_leaves_evaluations_that_are_not_due(ledger: Ledger, redis: Redis) -> None:
    queued, leased, parked, held = some_ids(4)
    await accept(ledger, queued)
    await accept_and_lease(ledger, leased)
    await ledger.await_hold(await accept_and_lease(ledger, held), cause="account_held")
    await accept(ledger, parked, delay=60)
    assert await claim(ledger) == {}  # it also records the time
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


async def test_leasing_an_old_evaluation_keeps_the_progress_of_the_queue(ledger: Ledger, redis: Redis) -> None:
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
    assert set(claimed[2][3:]) == set(eval_ids["queued:backfill"]), "what is live is not behind a backfill"


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


# -- runs


async def test_an_unknown_run_has_no_age_and_no_counts(ledger: Ledger) -> None:
    counters = await ledger.runs.get_counters("unheard-of")
    assert (counters.total, counters.pending, set(counters.outcomes.values())) == (0, 0, {0})
    assert await ledger.runs.get_age("unheard-of") is None
    assert await ledger.runs.list_newest() == []


async def test_the_counters_of_a_run_add_up_at_any_time(ledger: Ledger, redis: Redis) -> None:
    total = len(Outcome) + 1
    eval_ids = some_ids(total)
    await accept(ledger, *eval_ids, run="2026-q3")
    assert ((await ledger.runs.get_counters("2026-q3")).total, (await ledger.runs.get_counters("2026-q3")).pending) == (
        total,
        total,
    )

    for done, (eval_id, outcome) in enumerate(zip(eval_ids, Outcome, strict=False), start=1):
        entry = await lease_one(ledger, eval_id)
        if outcome is Outcome.FAILED:
            await ledger.dead_letter(entry, attempts=6, failure=Failure("service_failed"))
        elif outcome is Outcome.CANCELLED:
            await ledger.release(entry)
            await Cancellation(redis).cancel_evaluations([eval_id])
        else:
            await ledger.complete(entry, outcome)
        assert (await ledger.runs.get_counters("2026-q3")).pending == total - done

    counters = await ledger.runs.get_counters("2026-q3")
    assert counters.outcomes == dict.fromkeys(Outcome, 1)
    assert counters.total == total


async def test_an_evaluation_counts_once_for_a_run_that_names_it_several_times(ledger: Ledger, eval_id: str) -> None:
    await accept(ledger, eval_id, eval_id, run="2026-q3")
    await accept(ledger, eval_id, run="2026-q3")
    entry = await lease_one(ledger, eval_id)
    await accept(ledger, eval_id, run="2026-q3")
    assert (await ledger.runs.get_counters("2026-q3")).total == 1

    await ledger.complete(entry, Outcome.ARCHIVED)

    assert (await ledger.runs.get_counters("2026-q3")).pending == 0


async def test_an_evaluation_counts_once_for_a_run_that_names_it_again_with_a_refresh(
    ledger: Ledger, eval_id: str
) -> None:
    await accept_and_lease(ledger, eval_id, run="2026-q3")
    await accept(ledger, eval_id, run="2026-q3", refresh=True)
    assert (await ledger.runs.get_counters("2026-q3")).total == 1


async def test_an_evaluation_counts_once_for_a_run_whose_refresh_is_pending(ledger: Ledger, eval_id: str) -> None:
    await accept_and_lease(ledger, eval_id)
    await accept(ledger, eval_id, run="2026-q3", refresh=True)
    await accept(ledger, eval_id, run="2026-q3")
    assert (await ledger.runs.get_counters("2026-q3")).total == 1


async def test_an_evaluation_counts_for_every_run_that_named_it(ledger: Ledger, eval_id: str) -> None:
    await accept(ledger, eval_id, run="first")
    await accept(ledger, eval_id, run="second")

    await ledger.complete(await lease_one(ledger, eval_id), Outcome.NOT_FOUND)

    for name in ("first", "second"):
        counters = await ledger.runs.get_counters(name)
        assert (counters.total, counters.pending, counters.outcomes[Outcome.NOT_FOUND]) == (1, 0, 1)


async def test_unchanged_evaluations_of_a_run_are_counted_by_manifest_outcome(ledger: Ledger) -> None:
    first, second, _ = [await accept_and_lease(ledger, eval_id, run="2026-q3") for eval_id in some_ids(3)]
    await ledger.complete(first, Outcome.UNCHANGED, ManifestOutcome.ARCHIVED)
    await ledger.complete(second, Outcome.UNCHANGED, ManifestOutcome.REJECTED)

    counters = await ledger.runs.get_counters("2026-q3")
    assert (counters.total, counters.pending, counters.outcomes[Outcome.UNCHANGED]) == (3, 1, 2)
    assert counters.unchanged_outcomes == dict.fromkeys(ManifestOutcome, 0) | {
        ManifestOutcome.ARCHIVED: 1,
        ManifestOutcome.REJECTED: 1,
    }
    assert counters.errors == 1


async def test_counters_of_a_version_that_did_not_split_unchanged_are_still_read(ledger: Ledger, redis: Redis) -> None:
    await redis.hset(PREFIX + "run:2026-q3", mapping={"total": 3, "unchanged": 3, "unchanged:archived": 1})
    counters = await ledger.runs.get_counters("2026-q3")
    assert (counters.pending, counters.errors, counters.outcomes[Outcome.UNCHANGED]) == (0, 0, 3)
    assert counters.sentence() == "3 unchanged (archived 1, unknown 2)"
    await redis.hdel(PREFIX + "run:2026-q3", "unchanged:archived")
    assert (await ledger.runs.get_counters("2026-q3")).sentence() == "3 unchanged"


async def test_a_run_that_orders_a_refresh_during_an_attempt_waits_for_the_next_outcome(
    ledger: Ledger, eval_id: str
) -> None:
    entry = await accept_and_lease(ledger, eval_id, run="first")
    await accept(ledger, eval_id, run="second", refresh=True)

    await ledger.complete(entry, Outcome.ARCHIVED)
    assert ((await ledger.runs.get_counters("first")).pending, (await ledger.runs.get_counters("second")).pending) == (
        0,
        1,
    )

    await ledger.complete(await lease_one(ledger, eval_id), Outcome.UNCHANGED)
    assert (await ledger.runs.get_counters("second")).outcomes[Outcome.UNCHANGED] == 1
    assert (await ledger.runs.get_counters("first")).total == 1


async def test_an_evaluation_without_a_run_is_not_counted(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await ledger.complete(await accept_and_lease(ledger, eval_id), Outcome.ARCHIVED)
    assert await redis.keys(PREFIX + "run*") == []


async def test_a_parked_or_released_evaluation_is_pending_for_its_run(ledger: Ledger, eval_id: str) -> None:
    await ledger.release(await accept_and_lease(ledger, eval_id, run="2026-q3"))
    await ledger.retry_later(await lease_one(ledger, eval_id), wait=60, attempts=1, failure=Failure("service_failed"))
    counters = await ledger.runs.get_counters("2026-q3")
    assert (counters.total, counters.pending) == (1, 1)


async def test_runs_are_listed_newest_first(ledger: Ledger, redis: Redis) -> None:
    for age, name in enumerate(["newest", "older", "oldest"]):
        await accept(ledger, str(uuid4()), run=name)
        await redis.zincrby(PREFIX + "runs", -60_000 * age, name)
    assert await ledger.runs.list_newest() == ["newest", "older", "oldest"]
    assert await ledger.runs.list_newest(newest=2) == ["newest", "older"]


async def test_the_age_of_a_run_counts_from_its_first_evaluation(ledger: Ledger, redis: Redis) -> None:
    await accept(ledger, str(uuid4()), run="2026-q3")
    await redis.zincrby(PREFIX + "runs", -90_000, "2026-q3")
    await accept(ledger, str(uuid4()), run="2026-q3")
    age = await ledger.runs.get_age("2026-q3")
    assert age is not None
    assert 90 <= age < HOUR


# -- stats


async def test_the_stats_of_an_empty_ledger_are_zero(ledger: Ledger) -> None:
    census = await ledger.get_stats()
    assert (sum(census.queued.values()), census.leased, census.parked, census.dead_letters) == (0, 0, 0, 0)
    assert census.oldest == {Queue.LIVE: 0.0, Queue.BACKFILL: 0.0}
    assert census.next_due is None


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

    census = await ledger.get_stats()

    assert census.queued == {Queue.LIVE: 1, Queue.BACKFILL: 2}
    assert (census.leased, census.parked, census.dead_letters) == (3, 4, 5)
    assert census.held == {Queue.LIVE: 0, Queue.BACKFILL: 6}


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

    census = await ledger.get_stats()

    assert 100 <= census.oldest[Queue.LIVE] < 200
    assert 3000 <= census.oldest[Queue.BACKFILL] < 3100
    assert census.next_due is not None
    assert 400 < census.next_due <= 500


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


async def test_the_ledger_works_after_redis_has_forgotten_its_script(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await redis.script_flush()
    assert await accept(ledger, eval_id) == [eval_id]


async def test_all_keys_have_one_prefix(ledger: Ledger, redis: Redis) -> None:
    dead, queued, leased, parked, held = some_ids(5)
    await ledger.dead_letter(
        await accept_and_lease(ledger, dead, run="2026-q3"), attempts=6, failure=Failure("service_failed")
    )
    await accept(ledger, queued)
    await accept_and_lease(ledger, leased)
    await accept(ledger, parked, delay=60)
    await ledger.await_hold(await accept_and_lease(ledger, held), cause="account_held")
    keys: Collection[str] = await redis.keys()
    assert len(keys) == 11
    assert all(key.startswith(PREFIX) for key in keys)


async def test_a_delayed_refresh_ordered_during_an_attempt_waits_after_it(ledger: Ledger, eval_id: str) -> None:
    entry = await accept_and_lease(ledger, eval_id)
    await accept(ledger, eval_id, refresh=True, delay=60)
    await ledger.complete(entry, Outcome.ARCHIVED)

    assert await claim(ledger) == {}
    assert 0 < (await ledger.get_stats()).next_due <= 60


async def test_a_repeated_event_is_recognized_for_a_week(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    order = EnqueueOptions(Queue.LIVE, "default", Trigger("webhook"))
    assert await ledger.accept_event("e1", eval_id, order) == [eval_id]
    assert await ledger.accept_event("e1", eval_id, order) is None
    assert await ledger.accept_event("e2", eval_id, order) == []
    for event in ("e1", "e2"):
        assert await redis.ttl(f"docv:ledger:event:{event}") == pytest.approx(7 * 86_400, abs=60)


@pytest.mark.real_redis_only("fakeredis ignores maxmemory")
async def test_an_event_that_was_not_accepted_is_not_a_repeated_one(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    order = EnqueueOptions(Queue.LIVE, "default", Trigger("webhook"))
    await redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(OutOfMemoryError):
            await ledger.accept_event("e1", eval_id, order)
    finally:
        await redis.config_set("maxmemory", 0)
    assert await ledger.accept_event("e1", eval_id, order) == [eval_id]


async def test_a_run_is_fed_from_its_list_in_order_and_once(ledger: Ledger) -> None:
    ids, order = some_ids(5), EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run="q3"))
    assert await ledger.runs.begin("q3", total=5, fingerprint="f") is BeginResult.CREATED

    assert await ledger.runs.feed("q3", ids[:3], order, position=0, backlog=100) == ids[:3]
    assert await ledger.runs.feed("q3", ids[:3], order, position=0, backlog=100) is None  # another worker is slower
    assert (await ledger.runs.get_position("q3"), (await ledger.runs.get_counters("q3")).unfed) == (3, 2)
    assert await ledger.runs.begin("q3", total=5, fingerprint="f") is BeginResult.RESUMED
    assert await ledger.runs.feed("q3", ids[3:], order, position=3, backlog=100) == ids[3:]

    assert await ledger.runs.list_feeding() == []
    counters = await ledger.runs.get_counters("q3")
    assert (counters.total, counters.unfed, counters.states["queued"]) == (5, 0, 5)
    assert counters.pending == 5


async def test_a_run_is_not_fed_while_the_ledger_has_reached_its_backlog(ledger: Ledger) -> None:
    ids, order = some_ids(4), EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run="q3"))
    await ledger.runs.begin("q3", total=4, fingerprint="f")
    await accept(ledger, *some_ids(2))
    assert await ledger.runs.feed("q3", ids[:2], order, position=0, backlog=2) is None
    assert await ledger.runs.feed("q3", ids[:2], order, position=0, backlog=3) == ids[:2]


async def test_a_run_has_one_list(ledger: Ledger, eval_id: str) -> None:
    await ledger.runs.begin("q3", total=1, fingerprint="f")
    assert await ledger.runs.begin("q3", total=2, fingerprint="g") is BeginResult.CONFLICT
    await accept(ledger, eval_id, run="by-hand")
    assert await ledger.runs.begin("by-hand", total=1, fingerprint="f") is BeginResult.CONFLICT


async def test_a_run_resumes_feeding_at_its_position(ledger: Ledger) -> None:
    ids, order = some_ids(4), EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run="q3"))
    await ledger.runs.begin("q3", total=4, fingerprint="f")
    await ledger.runs.feed("q3", ids[:1], order, position=0, backlog=9)
    await ledger.runs.stop_feeding("q3")
    assert await ledger.runs.list_feeding() == []
    await ledger.runs.begin("q3", total=4, fingerprint="f")
    assert await ledger.runs.list_feeding() == ["q3"]
    assert await ledger.runs.get_position("q3") == 1


async def test_the_counters_of_a_run_have_the_states_of_its_evaluations(ledger: Ledger) -> None:
    ids = some_ids(5)
    await accept(ledger, *ids, run="q3")
    _, parked, held, dead, done = entries = await ledger.lease(ids, token="one")
    await ledger.retry_later(parked, wait=60, attempts=1, failure=Failure("service_failed"))
    await ledger.await_hold(held, cause="account_held")
    await ledger.dead_letter(dead, attempts=6, failure=Failure("service_failed"))
    await ledger.complete(done, Outcome.ARCHIVED)

    counters = await ledger.runs.get_counters("q3")
    assert counters.states == {"queued": 0, "leased": 1, "parked": 1, "held": 1}
    assert (counters.outcomes[Outcome.FAILED], counters.outcomes[Outcome.ARCHIVED]) == (1, 1)
    assert counters.total == len(entries)


async def test_the_age_of_an_ended_run_counts_to_its_last_evaluation(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await accept(ledger, eval_id, run="q3")
    await redis.zadd(PREFIX + "runs", {"q3": await redis.zscore(PREFIX + "runs", "q3") - 60_000})
    assert await ledger.runs.get_age("q3") == pytest.approx(60, abs=30)
    await ledger.complete(await lease_one(ledger, eval_id), Outcome.ARCHIVED)
    await redis.hset(PREFIX + "run:q3", "changed", await redis.zscore(PREFIX + "runs", "q3") + 5_000)
    assert await ledger.runs.get_age("q3") == 5
    assert await ledger.runs.get_age("nobody-knows-it") is None


# -- failover


@pytest.mark.real_redis_only("fakeredis has no WAIT")
async def test_an_evaluation_without_replicas_does_not_count_as_accepted(
    redis: Redis, eval_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.ledger.script._REPLICATED_WITHIN", 10)
    ledger = Ledger(redis, replicas=1)
    order = EnqueueOptions(Queue.LIVE, "default", Trigger("webhook"))
    for promise in (
        lambda: ledger.accept([eval_id], order),
        lambda: ledger.accept_event("e1", eval_id, order),
        lambda: ledger.accept_event("e1", eval_id, order),
        lambda: ledger.runs.begin("q3", total=1, fingerprint="f"),
        lambda: ledger.runs.begin("q3", total=1, fingerprint="f"),
    ):
        with pytest.raises(NotReplicated, match="0 of 1 replicas"):
            await promise()
    assert await lease_one(ledger, eval_id), "it is there all the same, and comes to its end"


@pytest.mark.real_redis_only("fakeredis has no INFO")
async def test_replicas_are_awaited_for_repeated_orders_too(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    order = EnqueueOptions(Queue.LIVE, "default", Trigger("webhook"))
    for promise in (
        lambda: ledger.accept_event("e1", eval_id, order),
        lambda: ledger.runs.begin("q3", total=1, fingerprint="f"),
    ):
        await promise()
        before = await aof_size(redis)
        await promise()
        assert await aof_size(redis) > before


async def aof_size(redis: Redis) -> int:
    """Return the size of Redis's append-only file; only what is written there is also sent to replicas."""
    return int((await redis.info("persistence"))["aof_current_size"])


# -- cost


@pytest.mark.real_redis_only("fakeredis has no INFO")
async def test_evaluations_that_end_together_are_completed_in_one_round_trip(redis: Redis, ledger: Ledger) -> None:
    eval_ids = some_ids(100)
    await accept(ledger, *eval_ids, run="q3")
    entries = await ledger.lease(eval_ids, token="ours")
    before = await count_round_trips(redis)
    await asyncio.gather(*(ledger.complete(entry, Outcome.ARCHIVED) for entry in entries))
    assert await count_round_trips(redis) - before - 1 == 1  # and the one of this count
    assert (await ledger.runs.get_counters("q3")).outcomes[Outcome.ARCHIVED] == 100


async def test_a_lost_lease_in_a_batch_fails_only_its_own_caller(ledger: Ledger) -> None:
    lost, kept = await accept_and_lease(ledger, *some_ids(1)), await accept_and_lease(ledger, *some_ids(1))
    await ledger.release(lost)
    ends = await asyncio.gather(
        *(ledger.complete(entry, Outcome.ARCHIVED) for entry in (lost, kept)), return_exceptions=True
    )
    assert [type(end) for end in ends] == [LeaseLost, float]


async def count_round_trips(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_reads_processed"])


@pytest.mark.real_redis_only("fakeredis has no INFO")
async def test_a_hundred_evaluations_of_an_order_take_redis_as_many_commands_as_two(
    ledger: Ledger, redis: Redis
) -> None:
    costs = []
    for count in (2, 100):
        eval_ids = some_ids(count)
        before = await count_commands(redis)
        await accept(ledger, *eval_ids, run=f"run-of-{count}")
        entries = await ledger.lease(eval_ids, token="ours")
        await ledger.complete_all([(entry, Outcome.ARCHIVED) for entry in entries])
        costs.append(await count_commands(redis) - before)
    assert costs[0] == costs[1]


async def test_equally_damaged_entries_do_not_stop_the_completion_of_another(ledger: Ledger, redis: Redis) -> None:
    eval_ids = some_ids(4)
    await accept(ledger, *eval_ids, run="q3")
    entries = await ledger.lease(eval_ids, token="ours")
    for eval_id, text in zip(eval_ids[::2], ("no entry", "no entry"), strict=True):
        await redis.hset(PREFIX + "entries", eval_id, text)
    assert [age > 0 for age in await ledger.complete_all([(entry, Outcome.ARCHIVED) for entry in entries])] == [
        *(False, True) * 2
    ]
    assert await ledger.complete_all([(entry, Outcome.ARCHIVED) for entry in entries]) == [0] * 4
    assert (await ledger.runs.get_counters("q3")).outcomes[Outcome.ARCHIVED] == 2
    assert (await ledger.get_stats()).damaged == 2


async def test_an_evaluation_completed_twice_in_one_step_counts_once(ledger: Ledger, eval_id: str) -> None:
    entry = await accept_and_lease(ledger, eval_id, run="q3")
    first, second = await ledger.complete_all([(entry, Outcome.ARCHIVED)] * 2)
    assert first > 0 == second
    assert (await ledger.runs.get_counters("q3")).outcomes[Outcome.ARCHIVED] == 1


async def count_commands(redis: Redis) -> int:
    """Return how many commands Redis has run, including those of scripts but not the scripts themselves."""
    stats = await redis.info("commandstats")
    return sum(facts["calls"] for name, facts in stats.items() if not name.startswith(("cmdstat_eval", "cmdstat_info")))


# -- several accounts


async def accept_and_hold(ledger: Ledger, account: str, count: int, queue: Queue = Queue.BACKFILL) -> list[str]:
    """Accept evaluations of an account, and hold them."""
    eval_ids = [str(uuid4()) for _ in range(count)]
    await ledger.accept(eval_ids, EnqueueOptions(queue, account, Trigger("enqueue", run="q3")))
    for entry in await ledger.lease(eval_ids, token="ours"):
        await ledger.await_hold(entry, cause="account_held")
    return eval_ids


def limits_of(**most: int) -> dict[str, dict[Queue, int]]:
    return {account: dict.fromkeys(Queue, count) for account, count in most.items()}


async def test_a_hold_on_one_account_affects_no_evaluations_of_another(ledger: Ledger) -> None:
    ours, theirs = await accept_and_hold(ledger, "default", 3), await accept_and_hold(ledger, "kyb", 3)
    (probe,) = (await ledger.claim(patience=PATIENCE, of_held=limits_of(default=0, kyb=1)))[Queue.BACKFILL]
    assert probe in theirs
    found = await ledger.claim(patience=PATIENCE, of_held=limits_of(default=1000, kyb=0))
    assert set(found[Queue.BACKFILL]) == set(ours)
    census = await ledger.get_stats()
    assert (census.held_by_account, sum(census.held.values())) == ({"kyb": 2}, 2)


async def test_held_evaluations_of_an_account_that_is_not_named_stay_held(ledger: Ledger) -> None:
    (eval_id,) = await accept_and_hold(ledger, "kyb", 1)
    assert await ledger.claim(patience=PATIENCE, of_held=limits_of(default=1000)) == {}
    assert (await ledger.locate([eval_id])) == [("held", "account_held")]
    assert await ledger.claim(patience=PATIENCE, of_held=limits_of(kyb=1000)) == {Queue.BACKFILL: [eval_id]}


async def test_an_account_with_very_many_held_evaluations_leaves_some_of_the_limit(ledger: Ledger) -> None:
    await accept_and_hold(ledger, "default", 30)
    theirs = await accept_and_hold(ledger, "kyb", 3)
    found = await ledger.claim(patience=PATIENCE, of_held=limits_of(default=1000, kyb=1000), limit=10)
    assert set(theirs) <= set(found[Queue.BACKFILL])
    assert len(found[Queue.BACKFILL]) == 8


async def test_an_account_without_held_evaluations_is_forgotten(ledger: Ledger, redis: Redis) -> None:
    await accept_and_hold(ledger, "kyb", 1)
    assert await redis.smembers(PREFIX + "accounts") == {"kyb"}
    for _ in range(2):
        await ledger.claim(patience=PATIENCE, of_held=limits_of(default=1000, kyb=1000))
    assert await redis.smembers(PREFIX + "accounts") == set()


async def test_an_evaluation_in_the_ledger_keeps_the_account_of_its_first_order(ledger: Ledger) -> None:
    (eval_id,) = await accept_and_hold(ledger, "kyb", 1)
    await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "aml", Trigger("webhook"), refresh=True))
    assert await ledger.claim(patience=PATIENCE, of_held=limits_of(kyb=1)) == {Queue.LIVE: [eval_id]}
    entry = await lease_one(ledger, eval_id)
    await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "aml", Trigger("webhook"), refresh=True))
    await ledger.complete(entry, Outcome.ARCHIVED)
    again = await lease_one(ledger, eval_id)
    assert (entry.account, again.account) == ("kyb", "kyb")


async def test_a_dead_letter_that_is_ordered_again_takes_the_account_of_the_order(
    ledger: Ledger,
) -> None:
    eval_id = str(uuid4())
    await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "kyb", Trigger("enqueue")))
    await ledger.dead_letter(await lease_one(ledger, eval_id), attempts=6, failure=Failure("service_failed"))
    await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "aml", Trigger("enqueue")))
    assert (await lease_one(ledger, eval_id)).account == "aml"


@pytest.mark.parametrize("way", ["erase", "upgrade", "forgive"])
async def test_every_way_in_and_out_of_a_hold_uses_the_set_of_its_account(
    ledger: Ledger, redis: Redis, way: str
) -> None:
    (eval_id,) = await accept_and_hold(ledger, "kyb", 1)
    if way == "erase":
        assert await ledger.erase(eval_id)
        assert (await ledger.runs.get_counters("q3")).pending == 0
    elif way == "upgrade":
        await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "kyb", Trigger("webhook")))
        assert await redis.zcard(PREFIX + "held:live:kyb") == 1
    else:
        await ledger.claim(patience=PATIENCE, of_held=limits_of(kyb=1))
        await ledger.retry_later(
            await lease_one(ledger, eval_id), wait=9, attempts=1, failure=Failure("service_failed")
        )
        await ledger.refund_attempts([eval_id])
        assert await redis.zcard(PREFIX + "held:backfill:kyb") == 1
    held = sum((await ledger.get_stats()).held_by_account.values())
    assert held == (0 if way == "erase" else 1) == (await ledger.runs.get_counters("q3")).states["held"]


async def test_a_run_has_the_account_of_its_first_evaluation(ledger: Ledger) -> None:
    await accept_and_hold(ledger, "kyb", 1)
    await ledger.runs.begin("listed", total=3, fingerprint="its IDs", account="aml")
    assert {
        name: run.account for name, run in (await ledger.runs.get_many_counters(["q3", "listed", "no-run"])).items()
    } == {
        "q3": "kyb",
        "listed": "aml",
        "no-run": "default",
    }


@pytest.mark.parametrize(("cause", "suspect_is_first"), [("account_busy", True), ("account_held", False)])
async def test_a_suspect_of_a_busy_account_is_not_placed_behind_the_others(
    ledger: Ledger, cause: str, *, suspect_is_first: bool
) -> None:
    suspect, other = some_ids(2)
    await ledger.accept([suspect, other], EnqueueOptions(Queue.LIVE, "kyb", Trigger("enqueue")))
    await ledger.retry_later(await lease_one(ledger, suspect), wait=0, attempts=1, failure=Failure("service_failed"))
    await ledger.await_hold(await lease_one(ledger, suspect), cause=cause)
    await asyncio.sleep(0.005)  # the order is by milliseconds
    await ledger.await_hold(await lease_one(ledger, other), cause=cause)
    found = await ledger.claim(patience=PATIENCE, of_held=limits_of(kyb=1))
    assert found == {Queue.LIVE: [suspect if suspect_is_first else other]}
