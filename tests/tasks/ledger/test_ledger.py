"""Time passes in these tests by rewriting a score in Redis: nobody waits, and no machine is too slow."""

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
from tasks.ledger.ledger import BeginResult, Ledger
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
    "settle": lambda ledger, entry: ledger.complete(entry, Outcome.ARCHIVED),
    "park": lambda ledger, entry: ledger.retry_later(entry, wait=60, attempts=1, failure=Failure("service_failed")),
    "await_hold": lambda ledger, entry: ledger.await_hold(entry, cause="account_held"),
    "hand_back": lambda ledger, entry: ledger.release(entry),
    "bury": lambda ledger, entry: ledger.dead_letter(entry, attempts=6, failure=Failure("service_failed")),
}
LETTING_GO = ("park", "hand_back", "await_hold")


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


async def take(ledger: Ledger, eval_id: str, token: str = "ours") -> Job:  # noqa: S107  # no password
    (entry,) = await ledger.lease([eval_id], token=token)
    return entry


async def taken(ledger: Ledger, eval_id: str, *, run: str | None = None) -> Job:
    await accept(ledger, eval_id, run=run)
    return await take(ledger, eval_id)


async def claim(
    ledger: Ledger, *, of_held: int = 0, limit: int = 1000, patience: dict[Queue, float] = PATIENCE
) -> dict[Queue, list[str]]:
    each = {"default": dict.fromkeys(Queue, of_held)}
    return await ledger.claim(patience=patience, of_held=each, limit=limit)


async def long_ago(redis: Redis, state: str, *eval_ids: str) -> None:
    """Move what a state remembers of these evaluations far into the past."""
    assert await redis.zadd(PREFIX + state, dict.fromkeys(eval_ids, 1), xx=True, ch=True) == len(eval_ids)


async def milliseconds(redis: Redis) -> float:
    seconds, micro = await redis.time()
    return seconds * 1000 + micro / 1000


async def state_of(redis: Redis, eval_id: str) -> str:
    """The one state an evaluation is in; none for one that is not in the ledger."""
    states = [state for state in STATES if await redis.zscore(PREFIX + state, eval_id) is not None]
    assert len(states) == int(await redis.hexists(PREFIX + "entries", eval_id))
    return states[0] if states else "none"


async def everything(redis: Redis) -> dict[str, object]:
    """All that Redis holds, to see that nothing changed."""
    found: dict[str, object] = {}
    async for key in redis.scan_iter():
        is_hash = await redis.type(key) == "hash"
        found[key] = await redis.hgetall(key) if is_hash else await redis.zrange(key, 0, -1, withscores=True)
    return found


# -- accept


async def test_an_accepted_evaluation_is_queued_and_wants_to_be_published(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    assert await accept(ledger, eval_id, queue=Queue.LIVE) == [eval_id]
    assert await state_of(redis, eval_id) == "queued:live"


async def test_an_evaluation_that_is_under_way_is_not_published_again(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await accept(ledger, eval_id)
    assert await accept(ledger, eval_id) == []
    await take(ledger, eval_id)
    assert await accept(ledger, eval_id) == []
    assert await state_of(redis, eval_id) == "leased"


async def test_an_evaluation_named_twice_at_once_is_published_once(ledger: Ledger, eval_id: str) -> None:
    assert await accept(ledger, eval_id, eval_id) == [eval_id]


async def test_accepting_nothing_is_no_trouble(ledger: Ledger, redis: Redis) -> None:
    assert await accept(ledger) == []
    assert (await everything(redis)).keys() <= {PREFIX + "reached"}


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

    await long_ago(redis, "parked", eval_id)

    assert await claim(ledger) == {Queue.LIVE: [eval_id]}


async def test_the_delay_is_in_seconds(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    before = await milliseconds(redis)
    await accept(ledger, eval_id, delay=60)
    after = await milliseconds(redis)

    due = await redis.zscore(PREFIX + "parked", eval_id)

    assert before - 1 <= due - 60_000 <= after


async def test_what_is_wanted_live_does_not_wait_behind_the_backfill_that_named_it_first(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await accept(ledger, eval_id, queue=Queue.BACKFILL)

    assert await accept(ledger, eval_id, queue=Queue.LIVE) == [eval_id]

    assert await state_of(redis, eval_id) == "queued:live"
    assert (await take(ledger, eval_id)).queue is Queue.LIVE


async def test_a_backfill_does_not_slow_down_what_is_wanted_live(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await accept(ledger, eval_id, queue=Queue.LIVE)

    assert await accept(ledger, eval_id, queue=Queue.BACKFILL) == []

    assert await state_of(redis, eval_id) == "queued:live"
    assert (await take(ledger, eval_id)).queue is Queue.LIVE


async def test_a_parked_evaluation_that_is_wanted_live_keeps_its_pause_and_travels_live(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await ledger.retry_later(await taken(ledger, eval_id), wait=60, attempts=1, failure=Failure("service_failed"))

    assert await accept(ledger, eval_id, queue=Queue.LIVE) == []
    assert await state_of(redis, eval_id) == "parked"

    await long_ago(redis, "parked", eval_id)
    assert await claim(ledger) == {Queue.LIVE: [eval_id]}


async def test_a_leased_evaluation_that_is_wanted_live_is_handed_back_to_the_live_queue(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    entry = await taken(ledger, eval_id)
    assert await accept(ledger, eval_id, queue=Queue.LIVE) == []
    await ledger.release(entry)
    assert await state_of(redis, eval_id) == "queued:live"


async def test_a_refresh_of_a_queued_evaluation_is_merged(ledger: Ledger, eval_id: str) -> None:
    await accept(ledger, eval_id)
    assert await accept(ledger, eval_id, refresh=True) == []
    assert (await take(ledger, eval_id)).refresh
    assert await claim(ledger) == {}


async def test_who_asks_without_refresh_does_not_take_another_s_refresh_away(ledger: Ledger, eval_id: str) -> None:
    await accept(ledger, eval_id, refresh=True)
    await accept(ledger, eval_id, refresh=False)
    assert (await take(ledger, eval_id)).refresh


async def test_a_refresh_that_arrives_while_a_worker_is_at_it_makes_the_evaluation_due_again(
    ledger: Ledger, eval_id: str
) -> None:
    await accept(ledger, eval_id, run="first")
    entry = await take(ledger, eval_id)
    changed = Trigger("webhook", event_type="documents_updated", event_id="e2")

    assert await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "default", changed, refresh=True)) == []
    assert not entry.refresh
    await ledger.complete(entry, Outcome.ARCHIVED)

    assert await claim(ledger) == {Queue.LIVE: [eval_id]}
    second = await take(ledger, eval_id, "another")
    assert second == Job(eval_id, "another", Queue.LIVE, "default", True, 0, 0, changed)  # noqa: FBT003
    await ledger.complete(second, Outcome.UNCHANGED)
    assert await ledger.lease([eval_id], token="a third") == []
    assert (await ledger.get_run("first")).outcomes[Outcome.ARCHIVED] == 1
    assert (await ledger.get_run("first")).total == 1


async def test_a_refresh_in_the_middle_is_not_forgotten_when_the_attempt_fails_or_its_worker_dies(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    entry = await taken(ledger, eval_id)
    await accept(ledger, eval_id, refresh=True)
    await ledger.retry_later(entry, wait=0, attempts=1, failure=Failure("service_failed"))
    await take(ledger, eval_id, "dies")
    await long_ago(redis, "leased", eval_id)

    await ledger.complete(await take(ledger, eval_id, "third"), Outcome.ARCHIVED)

    assert await claim(ledger) == {Queue.BACKFILL: [eval_id]}
    assert (await take(ledger, eval_id)).refresh


async def test_outcomes_to_refresh_are_joined_and_do_not_take_a_refresh_away(ledger: Ledger, eval_id: str) -> None:
    await accept(ledger, eval_id, refresh_outcomes=(ManifestOutcome.REJECTED, ManifestOutcome.NOT_FOUND))
    await accept(ledger, eval_id, refresh_outcomes=(ManifestOutcome.NO_DOCUMENTS, ManifestOutcome.REJECTED))
    await accept(ledger, eval_id)
    entry = await take(ledger, eval_id)
    assert not entry.refresh
    assert entry.refresh_outcomes == (ManifestOutcome.REJECTED, ManifestOutcome.NOT_FOUND, ManifestOutcome.NO_DOCUMENTS)
    await ledger.release(entry)
    await accept(ledger, eval_id, refresh=True)
    await accept(ledger, eval_id, refresh_outcomes=(ManifestOutcome.NO_DOCUMENTS,))
    assert (await take(ledger, eval_id)).refresh


@pytest.mark.parametrize(
    ("others", "refresh"), [((), False), (({"refresh": True},), True), (({"even_if_erased": True},), True)]
)
async def test_outcomes_to_refresh_that_arrive_while_a_worker_is_at_it_refresh_only_those_later(
    ledger: Ledger, eval_id: str, others: tuple[dict[str, bool], ...], *, refresh: bool
) -> None:
    entry = await taken(ledger, eval_id, run="first")
    await accept(ledger, eval_id, run="second", refresh_outcomes=(ManifestOutcome.NO_DOCUMENTS,))
    for other in others:
        await accept(ledger, eval_id, **other)
    await ledger.complete(entry, Outcome.ARCHIVED)
    await claim(ledger)
    again = await take(ledger, eval_id)
    assert (again.refresh, again.refresh_outcomes) == (refresh, (ManifestOutcome.NO_DOCUMENTS,))
    await ledger.complete(again, Outcome.UNCHANGED, ManifestOutcome.ARCHIVED)
    assert (await ledger.get_run("first")).outcomes[Outcome.ARCHIVED] == 1
    assert (await ledger.get_run("second")).unchanged_outcomes[ManifestOutcome.ARCHIVED] == 1


async def test_what_an_older_version_wrote_down_to_be_asked_for_again_is_a_refresh(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    entry = await taken(ledger, eval_id)
    await accept(ledger, eval_id, refresh=True)
    job = json.loads(await redis.hget(PREFIX + "entries", eval_id) or "")
    del job["again"]["refresh"]
    await redis.hset(PREFIX + "entries", eval_id, json.dumps(job))
    await accept(ledger, eval_id, refresh_outcomes=(ManifestOutcome.NO_DOCUMENTS,))
    await ledger.complete(entry, Outcome.ARCHIVED)
    await claim(ledger)
    assert (await take(ledger, eval_id)).refresh


async def test_a_dead_letter_that_is_redriven_keeps_the_outcomes_to_refresh(ledger: Ledger, eval_id: str) -> None:
    await accept(ledger, eval_id, refresh_outcomes=(ManifestOutcome.REJECTED,))
    await ledger.dead_letter(await take(ledger, eval_id), attempts=6, failure=Failure("service_failed"))
    await ledger.redrive_dead_letters([eval_id])
    await claim(ledger)
    assert (await take(ledger, eval_id)).refresh_outcomes == (ManifestOutcome.REJECTED,)


async def test_of_two_refreshes_in_the_middle_the_urgent_one_decides_the_queue(ledger: Ledger, eval_id: str) -> None:
    entry = await taken(ledger, eval_id)
    await accept(ledger, eval_id, queue=Queue.BACKFILL, refresh=True)
    await accept(ledger, eval_id, queue=Queue.LIVE, refresh=True)
    await ledger.complete(entry, Outcome.ARCHIVED)
    assert await claim(ledger) == {Queue.LIVE: [eval_id]}


async def test_a_dead_letter_that_is_accepted_again_is_none_any_more(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await ledger.dead_letter(await taken(ledger, eval_id), attempts=6, failure=Failure("service_failed"))

    assert await accept(ledger, eval_id) == [eval_id]

    assert not await redis.hexists(PREFIX + "dead", eval_id)
    assert (await take(ledger, eval_id)).attempts == 0


async def test_an_evaluation_that_ended_can_be_accepted_again(ledger: Ledger, eval_id: str) -> None:
    await ledger.complete(await taken(ledger, eval_id), Outcome.ARCHIVED)
    assert await accept(ledger, eval_id) == [eval_id]


# -- take


@pytest.mark.parametrize(
    "trigger",
    [
        Trigger("webhook", run=None, event_type="evaluation_completed", event_id="Ereignis „42“"),
        Trigger("backfill", run="2026-q3"),
        Trigger("message"),
    ],
)
async def test_a_worker_takes_what_was_accepted(ledger: Ledger, eval_id: str, trigger: Trigger) -> None:
    await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "berlin", trigger, refresh=True))

    entry = await take(ledger, eval_id, "worker-1")

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


async def test_a_message_that_comes_twice_is_worked_on_once(ledger: Ledger, eval_id: str) -> None:
    await taken(ledger, eval_id)
    assert await ledger.lease([eval_id, eval_id], token="another") == []


async def test_an_evaluation_that_stands_twice_in_a_message_is_taken_once(ledger: Ledger, eval_id: str) -> None:
    await accept(ledger, eval_id)
    assert len(await ledger.lease([eval_id, eval_id], token="ours")) == 1


async def test_a_message_about_what_has_ended_or_was_never_accepted_is_dropped(ledger: Ledger, redis: Redis) -> None:
    ended, unheard_of = some_ids(2)
    await ledger.complete(await taken(ledger, ended), Outcome.ARCHIVED)
    assert await ledger.lease([ended, unheard_of], token="ours") == []
    assert (await everything(redis)).keys() <= {PREFIX + "reached"}


async def test_the_others_of_a_message_are_taken_although_one_is_under_way(ledger: Ledger) -> None:
    first, second, third = some_ids(3)
    await accept(ledger, first, second, third)
    await take(ledger, second)
    assert [entry.eval_id for entry in await ledger.lease([first, second, third], token="b")] == [first, third]


async def test_a_parked_evaluation_is_not_taken_before_it_is_due(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await ledger.retry_later(await taken(ledger, eval_id), wait=60, attempts=2, failure=Failure("service_failed"))
    assert await ledger.lease([eval_id], token="too early") == []

    await long_ago(redis, "parked", eval_id)

    entry = await take(ledger, eval_id)
    assert (entry.attempts, entry.lost) == (2, 0)


async def test_a_lease_that_ran_out_goes_to_the_next_worker_and_counts_as_lost(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await taken(ledger, eval_id)
    await long_ago(redis, "leased", eval_id)

    entry = await take(ledger, eval_id, "another")

    assert (entry.token, entry.lost, entry.attempts) == ("another", 1, 0)
    assert await ledger.lease([eval_id], token="a third") == []


async def test_a_lease_lasts_as_long_as_the_ledger_is_told(redis: Redis, eval_id: str) -> None:
    ledger = Ledger(redis, lease_seconds=45)
    before = await milliseconds(redis)
    await taken(ledger, eval_id)
    after = await milliseconds(redis)

    assert before - 1 <= await redis.zscore(PREFIX + "leased", eval_id) - 45_000 <= after


async def test_of_many_takers_each_evaluation_has_one(ledger: Ledger, redis_url: str) -> None:
    eval_ids = some_ids(50)
    await accept(ledger, *eval_ids)
    async with open_redis(redis_url) as other:
        takers = [Ledger(other) if number % 2 else ledger for number in range(20)]
        hauls = await asyncio.gather(*(each.lease(eval_ids, token=f"t{n}") for n, each in enumerate(takers)))
    assert sorted(entry.eval_id for haul in hauls for entry in haul) == sorted(eval_ids)


# -- extend


async def test_a_worker_that_lives_keeps_its_lease(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    entry = await taken(ledger, eval_id)
    almost_over = await milliseconds(redis) + 30_000
    await redis.zadd(PREFIX + "leased", {eval_id: almost_over})

    assert await ledger.extend([entry]) == []

    assert await redis.zscore(PREFIX + "leased", eval_id) >= almost_over + 80_000


async def test_a_lease_that_ran_out_unnoticed_is_still_ours(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    entry = await taken(ledger, eval_id)
    await long_ago(redis, "leased", eval_id)

    assert await ledger.extend([entry]) == []

    assert await ledger.lease([eval_id], token="another") == []
    await ledger.complete(entry, Outcome.ARCHIVED)


async def test_who_extends_learns_which_leases_are_lost_and_keeps_the_others(ledger: Ledger, redis: Redis) -> None:
    eval_ids = some_ids(4)
    await accept(ledger, *eval_ids)
    entries = await ledger.lease(eval_ids, token="ours")
    kept, settled, claimed, taken_over = eval_ids
    await ledger.complete(entries[1], Outcome.ARCHIVED)
    await long_ago(redis, "leased", claimed, taken_over)
    await claim(ledger)
    await take(ledger, taken_over, "another")
    held_by_the_other = await redis.zscore(PREFIX + "leased", taken_over)

    assert await ledger.extend(entries) == [settled, claimed, taken_over]

    assert await redis.zscore(PREFIX + "leased", taken_over) == held_by_the_other
    assert [await state_of(redis, each) for each in eval_ids] == ["leased", "none", "queued:backfill", "leased"]
    assert await ledger.extend([entries[0]]) == []
    assert await state_of(redis, kept) == "leased"


async def test_extending_nothing_is_no_trouble(ledger: Ledger) -> None:
    assert await ledger.extend([]) == []


@pytest.mark.real_redis_only("thousands of steps take fakeredis seconds")
async def test_a_process_with_64_full_messages_keeps_all_its_leases(ledger: Ledger, redis: Redis) -> None:
    eval_ids = some_ids(6400)
    entries: list[Job] = []
    for start in range(0, len(eval_ids), 100):
        await accept(ledger, *eval_ids[start : start + 100])
        entries += await ledger.lease(eval_ids[start : start + 100], token="ours")
    await long_ago(redis, "leased", *eval_ids)

    assert await ledger.extend(entries) == []

    assert await claim(ledger) == {}


# -- settle, park, await the account, hand back, bury


async def test_a_settled_evaluation_leaves_nothing_behind(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await ledger.complete(await taken(ledger, eval_id), Outcome.NOT_FOUND)
    assert (await everything(redis)).keys() <= {PREFIX + "reached"}


async def test_a_parked_evaluation_comes_back_with_its_attempts_when_it_is_due(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    entry = await taken(ledger, eval_id)
    before = await milliseconds(redis)
    await ledger.retry_later(entry, wait=90, attempts=3, failure=Failure("service_failed"))
    after = await milliseconds(redis)

    assert before - 1 <= await redis.zscore(PREFIX + "parked", eval_id) - 90_000 <= after
    await long_ago(redis, "parked", eval_id)
    assert await claim(ledger) == {Queue.BACKFILL: [eval_id]}
    assert (await take(ledger, eval_id)).attempts == 3


@pytest.mark.parametrize("wait", [0, -1])
async def test_an_evaluation_parked_for_no_time_is_due_at_once(ledger: Ledger, eval_id: str, wait: float) -> None:
    await ledger.retry_later(await taken(ledger, eval_id), wait=wait, attempts=1, failure=Failure("manifest_changed"))
    assert await claim(ledger) == {Queue.BACKFILL: [eval_id]}


async def test_an_evaluation_that_waits_for_its_account_loses_nothing(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await ledger.retry_later(await taken(ledger, eval_id), wait=0, attempts=2, failure=Failure("service_failed"))
    await ledger.await_hold(await take(ledger, eval_id), cause="account_held")
    assert await state_of(redis, eval_id) == "held:backfill"

    assert await claim(ledger, of_held=1) == {Queue.BACKFILL: [eval_id]}

    entry = await take(ledger, eval_id, "another")
    assert (entry.attempts, entry.lost) == (2, 0)


async def test_a_stray_message_does_not_move_an_evaluation_that_waits_for_its_account(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await ledger.await_hold(await taken(ledger, eval_id), cause="account_held")
    await long_ago(redis, "held:backfill", eval_id)
    assert await ledger.lease([eval_id], token="stray") == []
    assert await state_of(redis, eval_id) == "held:backfill"


async def test_an_evaluation_that_waits_for_its_account_can_be_wanted_live_and_anew(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await ledger.await_hold(await taken(ledger, eval_id), cause="account_held")

    assert await accept(ledger, eval_id, queue=Queue.LIVE, refresh=True, run="2026-q3") == []

    assert await state_of(redis, eval_id) == "held:live"
    assert await claim(ledger, of_held=1) == {Queue.LIVE: [eval_id]}
    assert (await take(ledger, eval_id)).refresh
    assert (await ledger.get_run("2026-q3")).pending == 1


async def test_of_those_that_wait_for_their_account_as_many_go_as_may_the_longest_waiting_first(
    ledger: Ledger, redis: Redis
) -> None:
    eval_ids = some_ids(5)
    for age, eval_id in enumerate(eval_ids):
        await ledger.await_hold(await taken(ledger, eval_id), cause="account_held")
        await redis.zincrby(PREFIX + "held:backfill", -60_000 * age, eval_id)

    assert await claim(ledger, of_held=0) == {}
    assert await claim(ledger, of_held=1) == {Queue.BACKFILL: eval_ids[4:]}
    assert set((await claim(ledger, of_held=2))[Queue.BACKFILL]) == set(eval_ids[2:4])
    assert set((await claim(ledger, of_held=1000))[Queue.BACKFILL]) == set(eval_ids[:2])


async def test_who_failed_itself_carries_a_probe_only_where_nobody_else_is_left(ledger: Ledger) -> None:
    suspect, parked, fresh = some_ids(3)
    await ledger.await_hold(await taken(ledger, suspect), cause="service_failed", suspect=True)
    await ledger.retry_later(await taken(ledger, parked), wait=60, attempts=1, failure=Failure("service_failed"))
    await ledger.refund_attempts([parked])
    await ledger.await_hold(await taken(ledger, fresh), cause="account_held")
    assert [await claim(ledger, of_held=1) for _ in range(3)] == [
        {Queue.BACKFILL: [fresh]},
        {Queue.BACKFILL: [suspect]},
        {Queue.BACKFILL: [parked]},
    ]


async def test_a_hold_of_the_account_does_not_keep_back_what_is_due_for_another_reason(
    ledger: Ledger, redis: Redis
) -> None:
    held, dead = some_ids(2)
    await ledger.await_hold(await taken(ledger, held), cause="account_held")
    await taken(ledger, dead)
    await long_ago(redis, "leased", dead)
    assert await claim(ledger, of_held=0) == {Queue.BACKFILL: [dead]}


async def test_what_is_handed_back_is_queued_as_if_nothing_had_been(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await ledger.release(await taken(ledger, eval_id))

    assert await state_of(redis, eval_id) == "queued:backfill"
    entry = await take(ledger, eval_id, "another")
    assert (entry.attempts, entry.lost) == (0, 0)


async def test_a_dead_letter_says_what_a_person_needs_to_know(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    before = await milliseconds(redis)
    entry = await taken(ledger, eval_id, run="2026-q3")

    failure = Failure("service_failed", "RiskOS answered with status 503", 503, "0b54a4d4-6e5b")
    await ledger.retry_later(entry, wait=0, attempts=1, failure=Failure("connection_failed"))
    await ledger.dead_letter(await take(ledger, eval_id), attempts=2, failure=failure)

    assert await state_of(redis, eval_id) == "none"
    (letter,) = [each async for each in ledger.iterate_dead_letters()]
    assert (letter.eval_id, letter.failure, letter.attempts) == (eval_id, failure, 2)
    assert (letter.account, letter.queue, letter.runs) == ("default", Queue.BACKFILL, ("2026-q3",))
    moments = [before / 1000 - 0.001, letter.accepted, letter.first, letter.last, await milliseconds(redis) / 1000]
    assert moments == sorted(moments)


@pytest.mark.real_redis_only("thousands of steps take fakeredis seconds")
async def test_there_may_be_more_dead_letters_than_come_at_once(ledger: Ledger) -> None:
    eval_ids = some_ids(2500)
    await accept(ledger, *eval_ids)
    for entry in await ledger.lease(eval_ids, token="ours"):
        await ledger.dead_letter(entry, attempts=6, failure=Failure("service_failed"))
    assert {each.eval_id async for each in ledger.iterate_dead_letters()} == set(eval_ids)
    assert len(await ledger.redrive_dead_letters(eval_ids)) == 2500
    assert [each async for each in ledger.iterate_dead_letters()] == []


async def test_a_dead_letter_that_is_redriven_starts_anew_and_its_run_waits_for_it_again(
    ledger: Ledger, eval_id: str
) -> None:
    await accept(ledger, eval_id, run="2026-q3", refresh=True)
    await ledger.dead_letter(await take(ledger, eval_id), attempts=6, failure=Failure("service_failed"))
    assert (await ledger.get_run("2026-q3")).outcomes[Outcome.FAILED] == 1

    assert await ledger.redrive_dead_letters([eval_id, *some_ids(1)]) == [eval_id]

    counters = await ledger.get_run("2026-q3")
    assert (counters.total, counters.pending, counters.outcomes[Outcome.FAILED]) == (1, 1, 0)
    assert await claim(ledger) == {Queue.BACKFILL: [eval_id]}
    entry = await take(ledger, eval_id)
    assert (entry.attempts, entry.refresh, entry.trigger) == (0, True, Trigger("enqueue", run="2026-q3"))
    await ledger.complete(entry, Outcome.ARCHIVED)
    assert (await ledger.get_run("2026-q3")).outcomes[Outcome.ARCHIVED] == 1
    assert await ledger.redrive_dead_letters([eval_id]) == []


async def test_a_dead_letter_that_is_dropped_stays_counted_as_failed(ledger: Ledger, eval_id: str) -> None:
    await ledger.dead_letter(await taken(ledger, eval_id, run="2026-q3"), attempts=6, failure=Failure("service_failed"))
    assert await ledger.drop_dead_letters([eval_id]) == [eval_id]
    assert await ledger.drop_dead_letters([eval_id]) == []
    assert (await ledger.get_stats()).dead_letters == 0
    assert (await ledger.get_run("2026-q3")).outcomes[Outcome.FAILED] == 1


async def test_dead_letters_are_counted_and_listed_by_their_cause(ledger: Ledger) -> None:
    failed, large, dropped, erased, anew = some_ids(5)
    for eval_id in (failed, large, dropped, erased, anew):
        cause = "bundle_too_large" if eval_id == large else "service_failed"
        await ledger.dead_letter(await taken(ledger, eval_id), attempts=6, failure=Failure(cause))
    assert await ledger.count_causes() == {"service_failed": 4, "bundle_too_large": 1}
    assert await ledger.count_causes(1) == {"service_failed": 4}
    assert [await ledger.count_dead_letters(cause) for cause in ("bundle_too_large", "unheard_of")] == [1, 0]

    await ledger.drop_dead_letters([dropped, dropped])
    await ledger.erase(erased)
    await accept(ledger, anew)
    await ledger.redrive_dead_letters([large])

    assert await ledger.count_causes() == {"service_failed": 1}
    assert await ledger.list_dead_letters("service_failed", 10) == [failed]
    assert await ledger.list_dead_letters("bundle_too_large", 10) == []
    assert [letter.eval_id for letter in await ledger.get_dead_letters([large, failed])] == [failed]
    assert await ledger.get_dead_letters([]) == []


async def test_dead_letters_of_a_cause_come_in_pages_those_that_failed_last_first(ledger: Ledger, redis: Redis) -> None:
    eval_ids = some_ids(5)
    for eval_id in eval_ids:
        await ledger.dead_letter(await taken(ledger, eval_id), attempts=6, failure=Failure("service_failed"))
    for second, eval_id in enumerate(eval_ids):
        await redis.zadd(PREFIX + "dead:service_failed", {eval_id: second})
    newest_first = eval_ids[::-1]
    assert await ledger.list_dead_letters("service_failed", 2) == newest_first[:2]
    assert await ledger.list_dead_letters("service_failed", 2, skip=4) == newest_first[4:]


async def test_runs_come_in_pages_the_newest_first(ledger: Ledger, redis: Redis) -> None:
    for second, run in enumerate(("first", "second", "third")):
        await accept(ledger, *some_ids(second + 1), run=run)
        await redis.zadd(PREFIX + "runs", {run: second})
    assert await ledger.list_runs() == ["third", "second", "first"]
    assert await ledger.list_runs(1, skip=1) == ["second"]
    assert await ledger.count_runs() == 3
    counters = await ledger.get_counters(["third", "unheard-of"])
    assert {run: found.total for run, found in counters.items()} == {"third": 3, "unheard-of": 0}


async def test_what_failed_before_is_suspect_and_what_only_waited_is_not(ledger: Ledger) -> None:
    parked, waited, failed_in_an_outage, redriven, asked_again = some_ids(5)
    await ledger.retry_later(await taken(ledger, parked), wait=0, attempts=1, failure=Failure("service_failed"))
    await ledger.await_hold(await taken(ledger, waited), cause="account_held")
    await ledger.await_hold(await taken(ledger, failed_in_an_outage), cause="service_failed", suspect=True)
    for eval_id in (redriven, asked_again):
        await ledger.dead_letter(await taken(ledger, eval_id), attempts=6, failure=Failure("service_failed"))
    await ledger.redrive_dead_letters([redriven])
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


async def test_an_evaluation_buried_while_a_refresh_waits_is_under_way_and_no_dead_letter(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    entry = await taken(ledger, eval_id)
    await accept(ledger, eval_id, refresh=True)

    await ledger.dead_letter(entry, attempts=6, failure=Failure("service_failed"))
    assert await claim(ledger) == {Queue.BACKFILL: [eval_id]}
    await ledger.complete(await take(ledger, eval_id), Outcome.ARCHIVED)

    assert not await redis.hexists(PREFIX + "dead", eval_id)


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize("how", ["claimed", "taken over", "settled", "settled and accepted anew", "buried"])
async def test_who_lost_a_lease_changes_nothing(
    ledger: Ledger, redis: Redis, eval_id: str, how: str, ending: Ending
) -> None:
    entry = await taken(ledger, eval_id, run="2026-q3")
    match how:
        case "claimed":
            await long_ago(redis, "leased", eval_id)
            await claim(ledger)
        case "taken over":
            await long_ago(redis, "leased", eval_id)
            await take(ledger, eval_id, "another")
        case "settled":
            await ledger.complete(entry, Outcome.UNCHANGED)
        case "settled and accepted anew":
            await ledger.complete(entry, Outcome.UNCHANGED)
            await accept(ledger, eval_id)
            await take(ledger, eval_id, "another")
        case "buried":
            await ledger.dead_letter(entry, attempts=6, failure=Failure("service_failed"))
    before = await everything(redis)

    with pytest.raises(LeaseLost):
        await ending(ledger, entry)

    assert await everything(redis) == before


@pytest.mark.parametrize("ending", [ENDINGS[name] for name in LETTING_GO], ids=LETTING_GO)
async def test_who_let_an_evaluation_go_has_no_say_in_it_any_more(
    ledger: Ledger, redis: Redis, eval_id: str, ending: Ending
) -> None:
    entry = await taken(ledger, eval_id)
    await ending(ledger, entry)
    before = await everything(redis)

    for each in ENDINGS.values():
        with pytest.raises(LeaseLost):
            await each(ledger, entry)

    assert await ledger.extend([entry]) == [eval_id]
    assert await everything(redis) == before


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
async def test_a_worker_that_is_late_but_missed_by_nobody_may_still_speak_for_its_evaluation(
    ledger: Ledger, redis: Redis, eval_id: str, ending: Ending
) -> None:
    entry = await taken(ledger, eval_id)
    await long_ago(redis, "leased", eval_id)
    await ending(ledger, entry)
    assert await state_of(redis, eval_id) != "leased"


# -- claim


async def test_what_is_not_due_is_left_alone(ledger: Ledger, redis: Redis) -> None:
    queued, leased, parked, held = some_ids(4)
    await accept(ledger, queued)
    await taken(ledger, leased)
    await ledger.await_hold(await taken(ledger, held), cause="account_held")
    await accept(ledger, parked, delay=60)
    before = await everything(redis)

    assert await claim(ledger) == {}

    assert await everything(redis) == before


async def test_what_a_dead_worker_held_is_published_again(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await taken(ledger, eval_id)
    await long_ago(redis, "leased", eval_id)

    assert await claim(ledger) == {Queue.BACKFILL: [eval_id]}

    assert await claim(ledger) == {}
    assert (await take(ledger, eval_id, "another")).lost == 1


async def test_each_worker_that_dies_over_an_evaluation_is_counted(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await accept(ledger, eval_id)
    for deaths in range(4):
        assert (await take(ledger, eval_id, f"worker-{deaths}")).lost == deaths
        await long_ago(redis, "leased", eval_id)
        if deaths % 2:
            await claim(ledger)
    assert (await take(ledger, eval_id)).lost == 4


@pytest.mark.parametrize("lost", Queue)
async def test_a_message_that_got_lost_is_published_again_when_patience_with_its_queue_ends(
    ledger: Ledger, redis: Redis, lost: Queue
) -> None:
    old = {Queue.LIVE: str(uuid4()), Queue.BACKFILL: str(uuid4())}
    for queue, eval_id in old.items():
        await accept(ledger, eval_id, queue=queue)
        await redis.zadd(f"{PREFIX}queued:{queue}", {eval_id: await milliseconds(redis) - 600_000})
        await accept(ledger, str(uuid4()), queue=queue)
    patience = {queue: 300 if queue is lost else HOUR for queue in Queue}

    assert await claim(ledger, patience=patience) == {lost: [old[lost]]}

    assert await claim(ledger, patience=patience) == {}, "it was published a moment ago"


@pytest.mark.parametrize("queue", Queue)
async def test_what_was_overtaken_in_its_queue_is_published_again_however_long_the_queue_is(
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

    await take(ledger, young)

    assert await claim(ledger) == {queue: [lost]}


async def test_who_takes_what_is_old_does_not_forget_how_far_the_queue_has_been_worked_off(
    ledger: Ledger, redis: Redis
) -> None:
    lost, old, young = some_ids(3)
    await accept(ledger, lost, old, young)
    await redis.zincrby(PREFIX + "queued:backfill", -90_000, lost)
    await redis.zincrby(PREFIX + "queued:backfill", -80_000, old)
    await take(ledger, young)
    await take(ledger, old)
    assert await claim(ledger) == {Queue.BACKFILL: [lost]}


async def test_who_failed_before_an_outage_was_noticed_gets_the_attempt_back_and_waits(
    ledger: Ledger, redis: Redis
) -> None:
    parked, twice, leased, gone = some_ids(4)
    await ledger.retry_later(await taken(ledger, parked), wait=60, attempts=1, failure=Failure("service_failed"))
    await ledger.retry_later(await taken(ledger, twice), wait=60, attempts=2, failure=Failure("service_failed"))
    await taken(ledger, leased)

    await ledger.refund_attempts([parked, twice, leased, gone])
    await ledger.refund_attempts([])

    assert [await state_of(redis, each) for each in (parked, twice, leased)] == ["held:backfill"] * 2 + ["leased"]
    await claim(ledger, of_held=2)
    assert [entry.attempts for entry in await ledger.lease([parked, twice], token="ours")] == [0, 1]


async def test_no_more_is_claimed_than_asked_for_and_the_rest_next_time(ledger: Ledger, redis: Redis) -> None:
    eval_ids = {state: some_ids(3) for state in STATES}
    for state in ("queued:live", "held:live"):
        await accept(ledger, *eval_ids[state], queue=Queue.LIVE)
    for state in ("queued:backfill", "leased", "parked", "held:backfill"):
        await accept(ledger, *eval_ids[state], delay=60 if state == "parked" else 0)
    await ledger.lease(eval_ids["leased"], token="dead")
    for entry in await ledger.lease([*eval_ids["held:live"], *eval_ids["held:backfill"]], token="held"):
        await ledger.await_hold(entry, cause="account_held")
    for state in STATES:
        await long_ago(redis, state, *eval_ids[state])

    rounds = [await claim(ledger, limit=6, of_held=1000) for _ in range(4)]

    claimed = [[each for some in found.values() for each in some] for found in rounds]
    assert [len(found) for found in claimed] == [6, 6, 6, 0]
    assert sorted(sum(claimed, [])) == sorted(sum(eval_ids.values(), []))  # noqa: RUF017  # a dozen
    assert set(claimed[2][3:]) == set(eval_ids["queued:backfill"]), "what is live is not behind a backfill"


async def test_each_due_evaluation_is_claimed_by_one_of_many_workers(ledger: Ledger, redis_url: str) -> None:
    eval_ids = some_ids(50)
    entries = [await taken(ledger, eval_id) for eval_id in eval_ids]
    for entry in entries:
        await ledger.retry_later(entry, wait=0, attempts=1, failure=Failure("service_failed"))
    async with open_redis(redis_url) as other:
        workers = [Ledger(other) if number % 2 else ledger for number in range(10)]
        rounds = await asyncio.gather(*(claim(each, limit=20) for each in workers))
    assert sorted(each for found in rounds for some in found.values() for each in some) == sorted(eval_ids)


async def test_who_knows_that_no_worker_is_alive_ends_their_leases(ledger: Ledger) -> None:
    eval_ids = some_ids(3)
    entries = [await taken(ledger, eval_id) for eval_id in eval_ids]
    await ledger.complete(entries.pop(), Outcome.ARCHIVED)

    assert await ledger.end_leases() == 2

    assert {key: set(found) for key, found in (await claim(ledger)).items()} == {Queue.BACKFILL: set(eval_ids[:2])}
    assert await ledger.end_leases() == 0


# -- runs


async def test_a_run_nobody_has_heard_of_has_no_age_and_counts_nothing(ledger: Ledger) -> None:
    counters = await ledger.get_run("unheard-of")
    assert (counters.total, counters.pending, set(counters.outcomes.values())) == (0, 0, {0})
    assert await ledger.get_run_age("unheard-of") is None
    assert await ledger.list_runs() == []


async def test_the_counters_of_a_run_add_up_at_any_time(ledger: Ledger, redis: Redis) -> None:
    eval_ids = some_ids(len(Outcome) + 1)
    await accept(ledger, *eval_ids, run="2026-q3")
    assert ((await ledger.get_run("2026-q3")).total, (await ledger.get_run("2026-q3")).pending) == (9, 9)

    for done, (eval_id, outcome) in enumerate(zip(eval_ids, Outcome, strict=False), start=1):
        entry = await take(ledger, eval_id)
        if outcome is Outcome.FAILED:
            await ledger.dead_letter(entry, attempts=6, failure=Failure("service_failed"))
        elif outcome is Outcome.CANCELLED:
            await ledger.release(entry)
            await Cancellation(redis).cancel_evaluations([eval_id])
        else:
            await ledger.complete(entry, outcome)
        assert (await ledger.get_run("2026-q3")).pending == 9 - done

    counters = await ledger.get_run("2026-q3")
    assert counters.outcomes == dict.fromkeys(Outcome, 1)
    assert counters.total == 9


async def test_an_evaluation_counts_once_for_a_run_however_often_the_run_names_it(ledger: Ledger, eval_id: str) -> None:
    await accept(ledger, eval_id, eval_id, run="2026-q3")
    await accept(ledger, eval_id, run="2026-q3")
    entry = await take(ledger, eval_id)
    await accept(ledger, eval_id, run="2026-q3")
    assert (await ledger.get_run("2026-q3")).total == 1

    await ledger.complete(entry, Outcome.ARCHIVED)

    assert (await ledger.get_run("2026-q3")).pending == 0


async def test_an_evaluation_counts_once_for_a_run_that_names_it_again_with_a_refresh(
    ledger: Ledger, eval_id: str
) -> None:
    await taken(ledger, eval_id, run="2026-q3")
    await accept(ledger, eval_id, run="2026-q3", refresh=True)
    assert (await ledger.get_run("2026-q3")).total == 1


async def test_an_evaluation_counts_once_for_a_run_whose_refresh_is_waiting_already(
    ledger: Ledger, eval_id: str
) -> None:
    await taken(ledger, eval_id)
    await accept(ledger, eval_id, run="2026-q3", refresh=True)
    await accept(ledger, eval_id, run="2026-q3")
    assert (await ledger.get_run("2026-q3")).total == 1


async def test_an_evaluation_counts_for_every_run_that_named_it(ledger: Ledger, eval_id: str) -> None:
    await accept(ledger, eval_id, run="first")
    await accept(ledger, eval_id, run="second")

    await ledger.complete(await take(ledger, eval_id), Outcome.NOT_FOUND)

    for name in ("first", "second"):
        counters = await ledger.get_run(name)
        assert (counters.total, counters.pending, counters.outcomes[Outcome.NOT_FOUND]) == (1, 0, 1)


async def test_unchanged_evaluations_of_a_run_are_counted_by_what_their_manifests_say(ledger: Ledger) -> None:
    first, second, _ = [await taken(ledger, eval_id, run="2026-q3") for eval_id in some_ids(3)]
    await ledger.complete(first, Outcome.UNCHANGED, ManifestOutcome.ARCHIVED)
    await ledger.complete(second, Outcome.UNCHANGED, ManifestOutcome.REJECTED)

    counters = await ledger.get_run("2026-q3")
    assert (counters.total, counters.pending, counters.outcomes[Outcome.UNCHANGED]) == (3, 1, 2)
    assert counters.unchanged_outcomes == dict.fromkeys(ManifestOutcome, 0) | {
        ManifestOutcome.ARCHIVED: 1,
        ManifestOutcome.REJECTED: 1,
    }
    assert counters.errors == 1


async def test_counters_of_a_version_that_did_not_split_unchanged_are_still_read(ledger: Ledger, redis: Redis) -> None:
    await redis.hset(PREFIX + "run:2026-q3", mapping={"total": 3, "unchanged": 3, "unchanged:archived": 1})
    counters = await ledger.get_run("2026-q3")
    assert (counters.pending, counters.errors, counters.outcomes[Outcome.UNCHANGED]) == (0, 0, 3)
    assert counters.sentence() == "3 unchanged (archived 1, unknown 2)"
    await redis.hdel(PREFIX + "run:2026-q3", "unchanged:archived")
    assert (await ledger.get_run("2026-q3")).sentence() == "3 unchanged"


async def test_a_run_that_asks_for_a_refresh_in_the_middle_waits_for_its_own_outcome(
    ledger: Ledger, eval_id: str
) -> None:
    entry = await taken(ledger, eval_id, run="first")
    await accept(ledger, eval_id, run="second", refresh=True)

    await ledger.complete(entry, Outcome.ARCHIVED)
    assert ((await ledger.get_run("first")).pending, (await ledger.get_run("second")).pending) == (0, 1)

    await ledger.complete(await take(ledger, eval_id), Outcome.UNCHANGED)
    assert (await ledger.get_run("second")).outcomes[Outcome.UNCHANGED] == 1
    assert (await ledger.get_run("first")).total == 1


async def test_an_evaluation_of_no_run_is_counted_nowhere(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    await ledger.complete(await taken(ledger, eval_id), Outcome.ARCHIVED)
    assert await redis.keys(PREFIX + "run*") == []


async def test_parking_and_handing_back_leave_a_run_pending(ledger: Ledger, eval_id: str) -> None:
    await ledger.release(await taken(ledger, eval_id, run="2026-q3"))
    await ledger.retry_later(await take(ledger, eval_id), wait=60, attempts=1, failure=Failure("service_failed"))
    counters = await ledger.get_run("2026-q3")
    assert (counters.total, counters.pending) == (1, 1)


async def test_runs_are_listed_newest_first(ledger: Ledger, redis: Redis) -> None:
    for age, name in enumerate(["newest", "older", "oldest"]):
        await accept(ledger, str(uuid4()), run=name)
        await redis.zincrby(PREFIX + "runs", -60_000 * age, name)
    assert await ledger.list_runs() == ["newest", "older", "oldest"]
    assert await ledger.list_runs(newest=2) == ["newest", "older"]


async def test_a_run_is_as_old_as_its_first_evaluation(ledger: Ledger, redis: Redis) -> None:
    await accept(ledger, str(uuid4()), run="2026-q3")
    await redis.zincrby(PREFIX + "runs", -90_000, "2026-q3")
    await accept(ledger, str(uuid4()), run="2026-q3")
    age = await ledger.get_run_age("2026-q3")
    assert age is not None
    assert 90 <= age < HOUR


# -- census


async def test_the_census_of_an_empty_ledger_counts_nothing(ledger: Ledger) -> None:
    census = await ledger.get_stats()
    assert (sum(census.queued.values()), census.leased, census.parked, census.dead_letters) == (0, 0, 0, 0)
    assert census.oldest == {Queue.LIVE: 0.0, Queue.BACKFILL: 0.0}
    assert census.next_due is None


async def test_the_census_counts_each_evaluation_in_its_state(ledger: Ledger) -> None:
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


async def test_the_census_says_how_long_the_oldest_has_been_waiting_and_when_the_next_is_due(
    ledger: Ledger, redis: Redis
) -> None:
    now = await milliseconds(redis)
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


async def test_the_census_says_of_what_is_overdue_that_it_is_due_now(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await accept(ledger, eval_id, delay=60)
    await long_ago(redis, "parked", eval_id)
    assert (await ledger.get_stats()).next_due == 0.0


async def test_the_ledger_goes_on_when_redis_has_forgotten_its_script(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await redis.script_flush()
    assert await accept(ledger, eval_id) == [eval_id]


async def test_all_keys_stand_under_one_prefix(ledger: Ledger, redis: Redis) -> None:
    dead, queued, leased, parked, held = some_ids(5)
    await ledger.dead_letter(await taken(ledger, dead, run="2026-q3"), attempts=6, failure=Failure("service_failed"))
    await accept(ledger, queued)
    await taken(ledger, leased)
    await accept(ledger, parked, delay=60)
    await ledger.await_hold(await taken(ledger, held), cause="account_held")
    keys: Collection[str] = await redis.keys()
    assert len(keys) == 11
    assert all(key.startswith(PREFIX) for key in keys)


async def test_a_refresh_in_the_middle_that_is_to_settle_does_so_after_the_attempt(
    ledger: Ledger, eval_id: str
) -> None:
    entry = await taken(ledger, eval_id)
    await accept(ledger, eval_id, refresh=True, delay=60)
    await ledger.complete(entry, Outcome.ARCHIVED)

    assert await claim(ledger) == {}
    assert 0 < (await ledger.get_stats()).next_due <= 60


async def test_a_repeated_event_is_told_from_a_new_one_for_a_week(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    order = EnqueueOptions(Queue.LIVE, "default", Trigger("webhook"))
    assert await ledger.accept_event("e1", eval_id, order) == [eval_id]
    assert await ledger.accept_event("e1", eval_id, order) is None
    assert await ledger.accept_event("e2", eval_id, order) == []
    for event in ("e1", "e2"):
        assert await redis.ttl(f"docv:ledger:event:{event}") == pytest.approx(7 * 86_400, abs=60)


@pytest.mark.real_redis_only("fakeredis ignores maxmemory")
async def test_an_event_that_the_ledger_could_not_take_is_no_repeated_one(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    order = EnqueueOptions(Queue.LIVE, "default", Trigger("webhook"))
    await redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(OutOfMemoryError):
            await ledger.accept_event("e1", eval_id, order)
    finally:
        await redis.config_set("maxmemory", 0)
    assert await ledger.accept_event("e1", eval_id, order) == [eval_id]


async def test_a_run_is_fed_from_its_list_in_order_and_each_of_it_once(ledger: Ledger) -> None:
    ids, order = some_ids(5), EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run="q3"))
    assert await ledger.begin_run("q3", total=5, fingerprint="f") is BeginResult.CREATED

    assert await ledger.feed("q3", ids[:3], order, position=0, backlog=100) == ids[:3]
    assert await ledger.feed("q3", ids[:3], order, position=0, backlog=100) is None  # another worker was slower
    assert (await ledger.get_position("q3"), (await ledger.get_run("q3")).unfed) == (3, 2)
    assert await ledger.begin_run("q3", total=5, fingerprint="f") is BeginResult.RESUMED
    assert await ledger.feed("q3", ids[3:], order, position=3, backlog=100) == ids[3:]

    assert await ledger.list_feeding() == []
    counters = await ledger.get_run("q3")
    assert (counters.total, counters.unfed, counters.states["queued"]) == (5, 0, 5)
    assert counters.pending == 5


async def test_no_run_is_fed_while_the_ledger_holds_as_much_as_it_may(ledger: Ledger) -> None:
    ids, order = some_ids(4), EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run="q3"))
    await ledger.begin_run("q3", total=4, fingerprint="f")
    await accept(ledger, *some_ids(2))
    assert await ledger.feed("q3", ids[:2], order, position=0, backlog=2) is None
    assert await ledger.feed("q3", ids[:2], order, position=0, backlog=3) == ids[:2]


async def test_a_runs_name_means_one_list(ledger: Ledger, eval_id: str) -> None:
    await ledger.begin_run("q3", total=1, fingerprint="f")
    assert await ledger.begin_run("q3", total=2, fingerprint="g") is BeginResult.CONFLICT
    await accept(ledger, eval_id, run="by-hand")
    assert await ledger.begin_run("by-hand", total=1, fingerprint="f") is BeginResult.CONFLICT


async def test_a_run_that_is_not_fed_for_a_while_goes_on_where_it_was(ledger: Ledger) -> None:
    ids, order = some_ids(4), EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run="q3"))
    await ledger.begin_run("q3", total=4, fingerprint="f")
    await ledger.feed("q3", ids[:1], order, position=0, backlog=9)
    await ledger.stop_feeding("q3")
    assert await ledger.list_feeding() == []
    await ledger.begin_run("q3", total=4, fingerprint="f")
    assert await ledger.list_feeding() == ["q3"]
    assert await ledger.get_position("q3") == 1


async def test_the_counters_of_a_run_tell_where_its_evaluations_stand(ledger: Ledger) -> None:
    ids = some_ids(5)
    await accept(ledger, *ids, run="q3")
    _, parked, held, dead, done = entries = await ledger.lease(ids, token="one")
    await ledger.retry_later(parked, wait=60, attempts=1, failure=Failure("service_failed"))
    await ledger.await_hold(held, cause="account_held")
    await ledger.dead_letter(dead, attempts=6, failure=Failure("service_failed"))
    await ledger.complete(done, Outcome.ARCHIVED)

    counters = await ledger.get_run("q3")
    assert counters.states == {"queued": 0, "leased": 1, "parked": 1, "held": 1}
    assert (counters.outcomes[Outcome.FAILED], counters.outcomes[Outcome.ARCHIVED]) == (1, 1)
    assert counters.total == len(entries)


async def test_a_run_that_is_over_has_lasted_until_its_last_evaluation_ended(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await accept(ledger, eval_id, run="q3")
    await redis.zadd(PREFIX + "runs", {"q3": await redis.zscore(PREFIX + "runs", "q3") - 60_000})
    assert await ledger.get_run_age("q3") == pytest.approx(60, abs=30)
    await ledger.complete(await take(ledger, eval_id), Outcome.ARCHIVED)
    await redis.hset(PREFIX + "run:q3", "changed", await redis.zscore(PREFIX + "runs", "q3") + 5_000)
    assert await ledger.get_run_age("q3") == 5
    assert await ledger.get_run_age("nobody-knows-it") is None


# -- what outlives a failover


@pytest.mark.real_redis_only("fakeredis has no WAIT")
async def test_what_no_replica_has_does_not_count_as_accepted(
    redis: Redis, eval_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.ledger.script._REPLICATED_WITHIN", 10)
    ledger = Ledger(redis, replicas=1)
    order = EnqueueOptions(Queue.LIVE, "default", Trigger("webhook"))
    for promise in (
        lambda: ledger.accept([eval_id], order),
        lambda: ledger.accept_event("e1", eval_id, order),
        lambda: ledger.accept_event("e1", eval_id, order),
        lambda: ledger.begin_run("q3", total=1, fingerprint="f"),
        lambda: ledger.begin_run("q3", total=1, fingerprint="f"),
    ):
        with pytest.raises(NotReplicated, match="0 of 1 replicas"):
            await promise()
    assert await take(ledger, eval_id), "it is there all the same, and comes to its end"


@pytest.mark.real_redis_only("fakeredis has no INFO")
async def test_replicas_are_asked_for_what_is_told_again_too(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    order = EnqueueOptions(Queue.LIVE, "default", Trigger("webhook"))
    for promise in (
        lambda: ledger.accept_event("e1", eval_id, order),
        lambda: ledger.begin_run("q3", total=1, fingerprint="f"),
    ):
        await promise()
        before = await written(redis)
        await promise()
        assert await written(redis) > before


async def written(redis: Redis) -> int:
    """Return how many bytes Redis has written down; what it does not write it does not tell its replicas either."""
    return int((await redis.info("persistence"))["aof_current_size"])


# -- what it costs


@pytest.mark.real_redis_only("fakeredis has no INFO")
async def test_what_ends_at_about_the_same_time_is_written_down_in_one_round_trip(redis: Redis, ledger: Ledger) -> None:
    eval_ids = some_ids(100)
    await accept(ledger, *eval_ids, run="q3")
    entries = await ledger.lease(eval_ids, token="ours")
    before = await round_trips(redis)
    await asyncio.gather(*(ledger.complete(entry, Outcome.ARCHIVED) for entry in entries))
    assert await round_trips(redis) - before - 1 == 1  # and the one that counts
    assert (await ledger.get_run("q3")).outcomes[Outcome.ARCHIVED] == 100


async def test_who_lost_his_lease_is_told_so_and_those_beside_him_are_not(ledger: Ledger) -> None:
    lost, kept = await taken(ledger, *some_ids(1)), await taken(ledger, *some_ids(1))
    await ledger.release(lost)
    ends = await asyncio.gather(
        *(ledger.complete(entry, Outcome.ARCHIVED) for entry in (lost, kept)), return_exceptions=True
    )
    assert [type(end) for end in ends] == [LeaseLost, float]


async def round_trips(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_reads_processed"])


@pytest.mark.real_redis_only("fakeredis has no INFO")
async def test_a_hundred_evaluations_of_an_order_take_redis_as_many_commands_as_two(
    ledger: Ledger, redis: Redis
) -> None:
    costs = []
    for count in (2, 100):
        eval_ids = some_ids(count)
        before = await commands(redis)
        await accept(ledger, *eval_ids, run=f"run-of-{count}")
        entries = await ledger.lease(eval_ids, token="ours")
        await ledger.complete_all([(entry, Outcome.ARCHIVED) for entry in entries])
        costs.append(await commands(redis) - before)
    assert costs[0] == costs[1]


async def test_those_that_are_damaged_alike_do_not_keep_the_one_between_them_from_its_end(
    ledger: Ledger, redis: Redis
) -> None:
    eval_ids = some_ids(4)
    await accept(ledger, *eval_ids, run="q3")
    entries = await ledger.lease(eval_ids, token="ours")
    for eval_id, text in zip(eval_ids[::2], ("no entry", "no entry"), strict=True):
        await redis.hset(PREFIX + "entries", eval_id, text)
    assert [age > 0 for age in await ledger.complete_all([(entry, Outcome.ARCHIVED) for entry in entries])] == [
        *(False, True) * 2
    ]
    assert await ledger.complete_all([(entry, Outcome.ARCHIVED) for entry in entries]) == [-1, 0] * 2
    assert (await ledger.get_run("q3")).outcomes[Outcome.ARCHIVED] == 2


async def test_who_settles_twice_in_one_step_is_counted_once(ledger: Ledger, eval_id: str) -> None:
    entry = await taken(ledger, eval_id, run="q3")
    first, second = await ledger.complete_all([(entry, Outcome.ARCHIVED)] * 2)
    assert first > 0 == second
    assert (await ledger.get_run("q3")).outcomes[Outcome.ARCHIVED] == 1


async def commands(redis: Redis) -> int:
    """Return how many commands Redis has carried out, those of scripts and not the scripts themselves."""
    stats = await redis.info("commandstats")
    return sum(facts["calls"] for name, facts in stats.items() if not name.startswith(("cmdstat_eval", "cmdstat_info")))


# -- several accounts


async def hold_some(ledger: Ledger, account: str, count: int, queue: Queue = Queue.BACKFILL) -> list[str]:
    """Accept evaluations of an account that wait for it."""
    eval_ids = [str(uuid4()) for _ in range(count)]
    await ledger.accept(eval_ids, EnqueueOptions(queue, account, Trigger("enqueue", run="q3")))
    for entry in await ledger.lease(eval_ids, token="ours"):
        await ledger.await_hold(entry, cause="account_held")
    return eval_ids


def of_each(**most: int) -> dict[str, dict[Queue, int]]:
    return {account: dict.fromkeys(Queue, count) for account, count in most.items()}


async def test_the_hold_of_one_account_neither_holds_nor_probes_what_waits_for_another(ledger: Ledger) -> None:
    ours, theirs = await hold_some(ledger, "default", 3), await hold_some(ledger, "kyb", 3)
    (probe,) = (await ledger.claim(patience=PATIENCE, of_held=of_each(default=0, kyb=1)))[Queue.BACKFILL]
    assert probe in theirs
    found = await ledger.claim(patience=PATIENCE, of_held=of_each(default=1000, kyb=0))
    assert set(found[Queue.BACKFILL]) == set(ours)
    census = await ledger.get_stats()
    assert (census.held_by_account, sum(census.held.values())) == ({"kyb": 2}, 2)


async def test_what_waits_for_an_account_that_nobody_names_stays_where_it_is(ledger: Ledger) -> None:
    (eval_id,) = await hold_some(ledger, "kyb", 1)
    assert await ledger.claim(patience=PATIENCE, of_held=of_each(default=1000)) == {}
    assert (await ledger.locate([eval_id])) == [("held", "account_held")]
    assert await ledger.claim(patience=PATIENCE, of_held=of_each(kyb=1000)) == {Queue.BACKFILL: [eval_id]}


async def test_an_account_of_which_very_many_wait_leaves_room_to_the_others(ledger: Ledger) -> None:
    await hold_some(ledger, "default", 30)
    theirs = await hold_some(ledger, "kyb", 3)
    found = await ledger.claim(patience=PATIENCE, of_held=of_each(default=1000, kyb=1000), limit=10)
    assert set(theirs) <= set(found[Queue.BACKFILL])
    assert len(found[Queue.BACKFILL]) == 8


async def test_an_account_of_which_nothing_waits_any_more_is_forgotten(ledger: Ledger, redis: Redis) -> None:
    await hold_some(ledger, "kyb", 1)
    assert await redis.smembers(PREFIX + "accounts") == {"kyb"}
    for _ in range(2):
        await ledger.claim(patience=PATIENCE, of_held=of_each(default=1000, kyb=1000))
    assert await redis.smembers(PREFIX + "accounts") == set()


async def test_what_is_under_way_stays_with_the_account_that_it_was_accepted_for(ledger: Ledger) -> None:
    (eval_id,) = await hold_some(ledger, "kyb", 1)
    await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "aml", Trigger("webhook"), refresh=True))
    assert await ledger.claim(patience=PATIENCE, of_held=of_each(kyb=1)) == {Queue.LIVE: [eval_id]}
    entry = await take(ledger, eval_id)
    await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "aml", Trigger("webhook"), refresh=True))
    await ledger.complete(entry, Outcome.ARCHIVED)
    again = await take(ledger, eval_id)
    assert (entry.account, again.account) == ("kyb", "kyb")


async def test_a_dead_letter_that_is_asked_for_again_is_asked_for_with_the_account_of_that_order(
    ledger: Ledger,
) -> None:
    eval_id = str(uuid4())
    await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "kyb", Trigger("enqueue")))
    await ledger.dead_letter(await take(ledger, eval_id), attempts=6, failure=Failure("service_failed"))
    await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "aml", Trigger("enqueue")))
    assert (await take(ledger, eval_id)).account == "aml"


@pytest.mark.parametrize("way", ["erase", "upgrade", "forgive"])
async def test_every_way_in_and_out_of_a_hold_knows_whose_it_is(ledger: Ledger, redis: Redis, way: str) -> None:
    (eval_id,) = await hold_some(ledger, "kyb", 1)
    if way == "erase":
        assert await ledger.erase(eval_id)
        assert (await ledger.get_run("q3")).pending == 0
    elif way == "upgrade":
        await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "kyb", Trigger("webhook")))
        assert await redis.zcard(PREFIX + "held:live:kyb") == 1
    else:
        await ledger.claim(patience=PATIENCE, of_held=of_each(kyb=1))
        await ledger.retry_later(await take(ledger, eval_id), wait=9, attempts=1, failure=Failure("service_failed"))
        await ledger.refund_attempts([eval_id])
        assert await redis.zcard(PREFIX + "held:backfill:kyb") == 1
    held = sum((await ledger.get_stats()).held_by_account.values())
    assert held == (0 if way == "erase" else 1) == (await ledger.get_run("q3")).states["held"]


async def test_a_run_knows_whom_it_is_asked_for_with(ledger: Ledger) -> None:
    await hold_some(ledger, "kyb", 1)
    await ledger.begin_run("listed", total=3, fingerprint="its IDs", account="aml")
    assert {name: run.account for name, run in (await ledger.get_counters(["q3", "listed", "no-run"])).items()} == {
        "q3": "kyb",
        "listed": "aml",
        "no-run": "default",
    }


@pytest.mark.parametrize(("cause", "suspect_is_first"), [("account_busy", True), ("account_held", False)])
async def test_who_only_wants_for_room_is_not_kept_back_for_having_failed_before(
    ledger: Ledger, cause: str, *, suspect_is_first: bool
) -> None:
    suspect, other = some_ids(2)
    await ledger.accept([suspect, other], EnqueueOptions(Queue.LIVE, "kyb", Trigger("enqueue")))
    await ledger.retry_later(await take(ledger, suspect), wait=0, attempts=1, failure=Failure("service_failed"))
    await ledger.await_hold(await take(ledger, suspect), cause=cause)
    await asyncio.sleep(0.005)  # the order is that of milliseconds
    await ledger.await_hold(await take(ledger, other), cause=cause)
    found = await ledger.claim(patience=PATIENCE, of_held=of_each(kyb=1))
    assert found == {Queue.LIVE: [suspect if suspect_is_first else other]}
