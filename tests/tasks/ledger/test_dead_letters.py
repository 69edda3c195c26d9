import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.job import Failure, Queue, Trigger
from tasks.model.outcome import ManifestOutcome, Outcome
from tests.tasks.ledger.ledger_steps import (
    PREFIX,
    accept,
    accept_and_lease,
    claim,
    lease_one,
    now_in_milliseconds,
    some_ids,
    state_of,
)

pytestmark = pytest.mark.both_redises


async def test_a_redriven_dead_letter_keeps_its_refresh_outcomes(ledger: Ledger, eval_id: str) -> None:
    await accept(ledger, eval_id, refresh_outcomes=(ManifestOutcome.REJECTED,))
    await ledger.dead_letter(await lease_one(ledger, eval_id), attempts=6, failure=Failure("service_failed"))
    await ledger.dead_letters.redrive([eval_id])
    await claim(ledger)
    assert (await lease_one(ledger, eval_id)).refresh_outcomes == (ManifestOutcome.REJECTED,)


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
    failed, large, dropped, erased, accepted_again = some_ids(5)
    for eval_id in (failed, large, dropped, erased, accepted_again):
        cause = "bundle_too_large" if eval_id == large else "service_failed"
        await ledger.dead_letter(await accept_and_lease(ledger, eval_id), attempts=6, failure=Failure(cause))
    assert await ledger.dead_letters.count_causes() == {"service_failed": 4, "bundle_too_large": 1}
    assert await ledger.dead_letters.count_causes(1) == {"service_failed": 4}
    assert [await ledger.dead_letters.count(cause) for cause in ("bundle_too_large", "unheard_of")] == [1, 0]

    await ledger.dead_letters.drop([dropped, dropped])
    await ledger.erase(erased)
    await accept(ledger, accepted_again)
    await ledger.dead_letters.redrive([large])

    assert await ledger.dead_letters.count_causes() == {"service_failed": 1}
    assert await ledger.dead_letters.list_by_cause("service_failed", 10) == [failed]
    assert await ledger.dead_letters.list_by_cause("bundle_too_large", 10) == []
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
    assert await ledger.dead_letters.list_by_cause("service_failed", 2) == newest_first[:2]
    assert await ledger.dead_letters.list_by_cause("service_failed", 2, skip=4) == newest_first[4:]
