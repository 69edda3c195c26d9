"""Facts of all orders are kept, and a request is omitted only if all orders agree."""

import json
from typing import Any

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.evidence import EvaluationFacts
from tasks.model.job import EnqueueOptions, Failure, Job, Queue, Trigger
from tasks.model.outcome import Evidence, ManifestOutcome, Outcome
from tests.tasks.ledger.ledger_steps import PATIENCE, PREFIX, lease_one, some_ids

pytestmark = pytest.mark.both_redises


def facts_of(eval_id: str, *evidence: Evidence, event_at: float | None = None) -> dict[str, Any]:
    return {"facts": {eval_id: EvaluationFacts(evidence, event_at)}}


async def accept(ledger: Ledger, eval_id: str, *, run: str | None = None, **options: Any) -> None:
    await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "default", Trigger("enqueue", run=run), **options))


async def accept_and_lease(ledger: Ledger, eval_id: str, **options: Any) -> Job:
    await accept(ledger, eval_id, **options)
    return await lease_one(ledger, eval_id)


async def claim(ledger: Ledger) -> dict[Queue, list[str]]:
    return await ledger.claim(patience=PATIENCE, of_held={})


async def test_facts_of_a_webhook_are_kept_whichever_order_came_first(ledger: Ledger, eval_id: str) -> None:
    await accept(ledger, eval_id, run="first")
    for fact in (Evidence.MILITARY_ID, Evidence.UNDER_AGE, Evidence.UNDER_AGE):
        await accept(ledger, eval_id, **facts_of(eval_id, fact))
    entry = await lease_one(ledger, eval_id)
    assert entry.evidence == (Evidence.MILITARY_ID, Evidence.UNDER_AGE)
    assert entry.trigger.run == "first"


async def test_a_dead_letter_keeps_the_facts_of_webhooks(ledger: Ledger, eval_id: str) -> None:
    await accept(ledger, eval_id, without_request=True, **facts_of(eval_id, Evidence.UNDER_AGE, event_at=5.5))
    await ledger.dead_letter(await lease_one(ledger, eval_id), attempts=1, failure=Failure("service_failed"))
    await ledger.dead_letters.redrive([eval_id])
    job = await lease_one(ledger, eval_id)
    assert (job.evidence, job.event_at, job.without_request) == ((Evidence.UNDER_AGE,), 5.5, True)
    await ledger.dead_letter(job, attempts=1, failure=Failure("service_failed"))
    await accept(ledger, eval_id, **facts_of(eval_id, Evidence.MILITARY_ID))
    job = await lease_one(ledger, eval_id)
    assert (set(job.evidence), job.event_at) == ({Evidence.MILITARY_ID, Evidence.UNDER_AGE}, 5.5)
    assert not job.without_request


async def test_each_evaluation_of_an_order_has_its_own_facts(ledger: Ledger) -> None:
    military, dated, plain, not_ordered = some_ids(4)
    facts = facts_of(military, Evidence.MILITARY_ID)["facts"] | facts_of(dated, event_at=1_769_860_800.512)["facts"]
    order = EnqueueOptions(
        Queue.LIVE, "default", Trigger("intake"), facts=facts | facts_of(not_ordered, Evidence.UNDER_AGE)["facts"]
    )
    await ledger.accept([military, dated, plain, military], order)
    jobs = await ledger.lease([military, dated, plain], token="t")
    assert [(job.evidence, job.event_at) for job in jobs] == [
        ((Evidence.MILITARY_ID,), None),
        ((), 1_769_860_800.512),
        ((), None),
    ]


async def test_the_latest_event_time_of_an_evaluation_counts(ledger: Ledger, eval_id: str) -> None:
    for event_at in (20.0, 30.0, 10.0, None):
        await accept(ledger, eval_id, **facts_of(eval_id, event_at=event_at))
    assert (await lease_one(ledger, eval_id)).event_at == 30.0


async def test_new_evidence_during_an_attempt_makes_the_evaluation_due_again(ledger: Ledger, eval_id: str) -> None:
    job = await accept_and_lease(ledger, eval_id, run="first", **facts_of(eval_id, Evidence.MILITARY_ID))
    await accept(ledger, eval_id, run="second", **facts_of(eval_id, Evidence.UNDER_AGE))
    await ledger.complete(job, Outcome.NO_DOCUMENTS)
    await claim(ledger)
    again = await lease_one(ledger, eval_id)
    assert (again.evidence, again.refresh) == ((Evidence.MILITARY_ID, Evidence.UNDER_AGE), False)
    await ledger.complete(again, Outcome.UNCHANGED, ManifestOutcome.NO_DOCUMENTS)
    assert (await ledger.runs.get_counters("first")).outcomes[Outcome.NO_DOCUMENTS] == 1
    assert (await ledger.runs.get_counters("second")).outcomes[Outcome.UNCHANGED] == 1


@pytest.mark.parametrize("late", [Evidence.MILITARY_ID, Evidence.DOCV_STEP])
async def test_known_or_irrelevant_facts_during_an_attempt_make_nothing_due_again(
    ledger: Ledger, eval_id: str, late: Evidence
) -> None:
    job = await accept_and_lease(ledger, eval_id, **facts_of(eval_id, Evidence.MILITARY_ID))
    await accept(ledger, eval_id, **facts_of(eval_id, late, event_at=9.0))
    await ledger.complete(job, Outcome.NO_DOCUMENTS)
    assert await claim(ledger) == {}


async def test_evidence_during_an_attempt_is_used_after_it_failed(ledger: Ledger, eval_id: str) -> None:
    job = await accept_and_lease(ledger, eval_id)
    await accept(ledger, eval_id, **facts_of(eval_id, Evidence.MILITARY_ID))
    await ledger.retry_later(job, wait=0, attempts=1, failure=Failure("service_failed"))
    assert (await lease_one(ledger, eval_id)).evidence == (Evidence.MILITARY_ID,)


async def test_late_evidence_recorded_by_an_older_version_is_used(ledger: Ledger, redis: Redis, eval_id: str) -> None:
    job = await accept_and_lease(ledger, eval_id)
    await accept(ledger, eval_id, refresh=True)
    entry = json.loads(await redis.hget(PREFIX + "entries", eval_id) or "")
    entry["again"]["evidence"] = [Evidence.UNDER_AGE]
    await redis.hset(PREFIX + "entries", eval_id, json.dumps(entry))
    await ledger.complete(job, Outcome.NO_DOCUMENTS)
    await claim(ledger)
    assert (await lease_one(ledger, eval_id)).evidence == (Evidence.UNDER_AGE,)


async def test_a_job_is_without_a_request_only_if_all_its_orders_are(ledger: Ledger, eval_id: str) -> None:
    await accept(ledger, eval_id, without_request=True)
    await accept(ledger, eval_id, without_request=True)
    job = await lease_one(ledger, eval_id)
    assert job.without_request
    await ledger.release(job)
    await accept(ledger, eval_id)
    await accept(ledger, eval_id, without_request=True)
    assert not (await lease_one(ledger, eval_id)).without_request


@pytest.mark.parametrize("orders", [(False,), (True, False), (False, True)])
async def test_an_order_with_a_request_survives_an_attempt_without_one(
    ledger: Ledger, eval_id: str, orders: tuple[bool, ...]
) -> None:
    job = await accept_and_lease(ledger, eval_id, without_request=True)
    for without_request in orders:
        await accept(ledger, eval_id, without_request=without_request)
    await ledger.complete(job, Outcome.NO_DOCUMENTS)
    await claim(ledger)
    again = await lease_one(ledger, eval_id)
    assert (again.without_request, again.refresh) == (False, False)


async def test_an_event_without_a_docv_step_makes_a_leased_evaluation_due_again_without_a_request(
    ledger: Ledger, eval_id: str
) -> None:
    job = await accept_and_lease(ledger, eval_id)
    await accept(ledger, eval_id, without_request=True, **facts_of(eval_id, Evidence.NO_DOCV_STEP))
    await ledger.complete(job, Outcome.ARCHIVED)
    await claim(ledger)
    assert (await lease_one(ledger, eval_id)).without_request


async def test_an_event_with_a_docv_step_makes_a_leased_evaluation_due_again_with_a_request(
    ledger: Ledger, eval_id: str
) -> None:
    job = await accept_and_lease(ledger, eval_id, without_request=True, **facts_of(eval_id, Evidence.NO_DOCV_STEP))
    await accept(ledger, eval_id, **facts_of(eval_id, Evidence.DOCV_STEP))
    await ledger.complete(job, Outcome.NO_DOCUMENTS)
    await claim(ledger)
    again = await lease_one(ledger, eval_id)
    assert (set(again.evidence), again.without_request) == ({Evidence.NO_DOCV_STEP, Evidence.DOCV_STEP}, False)
