from uuid import uuid4

import pytest
from redis.asyncio import Redis

from tasks.ledger.cancellation import Cancellation
from tasks.ledger.ledger import Ledger
from tasks.ledger.runs import BeginResult
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.model.outcome import ManifestOutcome, Outcome
from tests.tasks.ledger.ledger_steps import HOUR, PREFIX, accept, accept_and_lease, lease_one, some_ids

pytestmark = pytest.mark.both_redises


async def test_runs_are_listed_in_pages_the_newest_first(ledger: Ledger, redis: Redis) -> None:
    for second, run in enumerate(("first", "second", "third")):
        await accept(ledger, *some_ids(second + 1), run=run)
        await redis.zadd(PREFIX + "runs", {run: second})
    assert await ledger.runs.list_newest() == ["third", "second", "first"]
    assert await ledger.runs.list_newest(1, skip=1) == ["second"]
    assert await ledger.runs.count() == 3
    counters = await ledger.runs.get_many_counters(["third", "unheard-of"])
    assert {run: found.total for run, found in counters.items()} == {"third": 3, "unheard-of": 0}


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


async def test_begin_returns_conflict_for_a_run_with_another_list_or_without_a_list(
    ledger: Ledger, eval_id: str
) -> None:
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
    assert await ledger.runs.get_age("unknown") is None
