import pytest
from redis.asyncio import Redis

from tasks.errors import LeaseLost
from tasks.ledger.ledger import Ledger
from tasks.model.job import Failure, Queue
from tasks.model.outcome import Outcome
from tests.tasks.ledger.ledger_steps import (
    ENDINGS,
    PREFIX,
    RELEASES,
    Ending,
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


async def test_a_failed_evaluation_is_suspect_and_a_held_one_is_not(ledger: Ledger) -> None:
    parked, waited, failed_in_an_outage, redriven, ordered_again = some_ids(5)
    await ledger.retry_later(
        await accept_and_lease(ledger, parked), wait=0, attempts=1, failure=Failure("service_failed")
    )
    await ledger.await_hold(await accept_and_lease(ledger, waited), cause="account_held")
    await ledger.await_hold(await accept_and_lease(ledger, failed_in_an_outage), cause="service_failed", suspect=True)
    for eval_id in (redriven, ordered_again):
        await ledger.dead_letter(await accept_and_lease(ledger, eval_id), attempts=6, failure=Failure("service_failed"))
    await ledger.dead_letters.redrive([redriven])
    await accept(ledger, ordered_again)

    await claim(ledger, of_held=2)

    eval_ids = [parked, waited, failed_in_an_outage, redriven, ordered_again]
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
