import json

import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from tasks.ledger.ledger import Ledger
from tasks.ledger.script import NotReplicated
from tasks.model.job import EnqueueOptions, Failure, Job, Queue, Trigger
from tasks.model.outcome import ManifestOutcome, Outcome
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

pytestmark = pytest.mark.both_redises


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


@pytest.mark.real_redis_only("the test is about how many arguments Redis accepts")
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


@pytest.mark.real_redis_only("fakeredis has no WAIT")
async def test_an_evaluation_without_replicas_does_not_count_as_accepted(
    redis: Redis, eval_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.ledger.script._REPLICATED_WITHIN", 10)
    ledger = Ledger(redis, replicas=1)
    order = EnqueueOptions(Queue.LIVE, "default", Trigger("webhook"))
    for write in (
        lambda: ledger.accept([eval_id], order),
        lambda: ledger.accept_event("e1", eval_id, order),
        lambda: ledger.accept_event("e1", eval_id, order),
        lambda: ledger.runs.begin("q3", total=1, fingerprint="f"),
        lambda: ledger.runs.begin("q3", total=1, fingerprint="f"),
    ):
        with pytest.raises(NotReplicated, match="0 of 1 replicas"):
            await write()
    assert await lease_one(ledger, eval_id), "it is in the ledger all the same, and is processed"


@pytest.mark.real_redis_only("fakeredis has no INFO")
async def test_replicas_are_awaited_even_for_repeated_orders(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    order = EnqueueOptions(Queue.LIVE, "default", Trigger("webhook"))
    for write in (
        lambda: ledger.accept_event("e1", eval_id, order),
        lambda: ledger.runs.begin("q3", total=1, fingerprint="f"),
    ):
        await write()
        before = await aof_size(redis)
        await write()
        assert await aof_size(redis) > before


async def aof_size(redis: Redis) -> int:
    """Return the size of Redis's append-only file. Redis sends replicas only the writes that it appends there."""
    return int((await redis.info("persistence"))["aof_current_size"])
