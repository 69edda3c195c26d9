"""A run whose first 200 answers are all refusals is on hold until an operator accepts them."""

import asyncio
from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.ledger.refused_runs import count_live_refusals, list_refused_runs
from tasks.model.evidence import EvaluationFacts
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.model.outcome import Evidence, ManifestOutcome, Outcome
from tests.tasks.ledger.ledger_steps import PATIENCE, some_ids

pytestmark = pytest.mark.both_redises

RUN = "q3"
ALL = {"default": dict.fromkeys(Queue, 1000)}


async def accept(
    ledger: Ledger,
    eval_ids: Sequence[str],
    *,
    run: str | None = RUN,
    queue: Queue = Queue.BACKFILL,
    refresh: bool = False,
    evidence: tuple[Evidence, ...] = (),
) -> list[str]:
    facts = {eval_id: EvaluationFacts(evidence) for eval_id in eval_ids}
    options = EnqueueOptions(queue, "default", Trigger("backfill", run=run), refresh=refresh, facts=facts)
    return await ledger.accept(eval_ids, options)


async def complete(
    ledger: Ledger, eval_ids: Sequence[str], outcome: Outcome, unchanged: ManifestOutcome | None = None
) -> None:
    end = f"{outcome}:{unchanged}" if unchanged else outcome
    await ledger.complete_all([(job, end) for job in await ledger.lease(eval_ids, token="ours")])


async def refuse(ledger: Ledger, count: int, outcome: Outcome = Outcome.NO_DOCUMENTS, *, run: str = RUN) -> list[str]:
    """Complete this number of evaluations of the run as refused; return their IDs."""
    eval_ids = some_ids(count)
    await accept(ledger, eval_ids, run=run)
    await complete(ledger, eval_ids, outcome)
    return eval_ids


async def claim(ledger: Ledger) -> list[str]:
    claimed = await ledger.claim(patience=PATIENCE, of_held=ALL)
    return [eval_id for eval_ids in claimed.values() for eval_id in eval_ids]


async def lease_ids(ledger: Ledger, eval_ids: Sequence[str]) -> list[str]:
    return [job.eval_id for job in await ledger.lease(eval_ids, token="ours")]


async def held_runs(ledger: Ledger) -> list[str]:
    return [each.run for each in await list_refused_runs(ledger._redis)]


@pytest.mark.parametrize("outcome", [Outcome.NO_DOCUMENTS, Outcome.NOT_FOUND, Outcome.REJECTED])
async def test_a_run_goes_on_hold_after_200_refusals_with_three_examples(ledger: Ledger, outcome: Outcome) -> None:
    first = await refuse(ledger, 199, outcome)
    assert await held_runs(ledger) == []
    await refuse(ledger, 1, outcome)
    (found,) = await list_refused_runs(ledger._redis)
    assert (found.run, found.refusals, found.examples) == (RUN, 200, tuple(first[:3]))
    assert 0 <= found.age < 60


async def test_refusals_of_every_kind_count_together(ledger: Ledger) -> None:
    eval_ids = some_ids(300)
    await accept(ledger, eval_ids)
    jobs = await ledger.lease(eval_ids, token="ours")
    kinds = [Outcome.NO_DOCUMENTS, Outcome.NOT_FOUND, Outcome.REJECTED]
    await ledger.complete_all([(job, kinds[number % 3]) for number, job in enumerate(jobs)])
    (found,) = await list_refused_runs(ledger._redis)
    assert (found.refusals, found.examples) == (300, tuple(eval_ids[:3]))


@pytest.mark.parametrize("delivered", [Outcome.ARCHIVED, Outcome.UNREADABLE])
@pytest.mark.parametrize("after", [0, 150])
async def test_a_run_with_one_delivery_does_not_go_on_hold(ledger: Ledger, delivered: Outcome, after: int) -> None:
    await refuse(ledger, after)
    await refuse(ledger, 1, delivered)
    await refuse(ledger, 400)
    assert await held_runs(ledger) == []


async def test_unchanged_evaluations_without_a_request_are_not_answers_for_any_manifest_outcome(ledger: Ledger) -> None:
    await refuse(ledger, 150)
    eval_ids = some_ids(300)
    await accept(ledger, eval_ids)
    await complete(ledger, eval_ids[:100], Outcome.UNCHANGED, ManifestOutcome.NO_DOCUMENTS)
    await complete(ledger, eval_ids[100:200], Outcome.UNCHANGED, ManifestOutcome.ARCHIVED)
    await complete(ledger, eval_ids[200:], Outcome.UNCHANGED, ManifestOutcome.ERASED)
    assert await held_runs(ledger) == []
    await refuse(ledger, 50)
    assert await held_runs(ledger) == [RUN]


@pytest.mark.parametrize(("manifest", "held"), [(ManifestOutcome.NO_DOCUMENTS, [RUN]), (ManifestOutcome.ARCHIVED, [])])
async def test_a_refresh_that_changes_nothing_is_an_answer(
    ledger: Ledger, manifest: ManifestOutcome, held: list[str]
) -> None:
    eval_ids = some_ids(200)
    await accept(ledger, eval_ids, refresh=True)
    await complete(ledger, eval_ids, Outcome.UNCHANGED, manifest)
    assert await held_runs(ledger) == held


async def complete_unchanged(ledger: Ledger, eval_ids: Sequence[str], answer: Outcome | None) -> None:
    """Complete evaluations that are archived already, with RiskOS's answer, or with None if no request was sent."""
    jobs = await ledger.lease(eval_ids, token="ours")
    await asyncio.gather(*[ledger.complete(job, Outcome.UNCHANGED, ManifestOutcome.ARCHIVED, answer) for job in jobs])


@pytest.mark.parametrize("refusal", [Outcome.NO_DOCUMENTS, Outcome.NOT_FOUND, Outcome.REJECTED])
async def test_a_refusal_for_an_archived_evaluation_counts_as_unchanged_and_as_a_refusal(
    ledger: Ledger, refusal: Outcome
) -> None:
    eval_ids = some_ids(200)
    await accept(ledger, eval_ids, refresh=True)
    await complete_unchanged(ledger, eval_ids, refusal)
    assert await held_runs(ledger) == [RUN]
    counters = await ledger.runs.get_counters(RUN)
    assert (counters.outcomes[Outcome.UNCHANGED], counters.unchanged_outcomes[ManifestOutcome.ARCHIVED]) == (200, 200)
    assert (counters.pending, counters.errors) == (0, 0)


async def test_a_delivery_for_an_archived_evaluation_keeps_the_run_from_a_hold(ledger: Ledger) -> None:
    eval_ids = some_ids(1)
    await accept(ledger, eval_ids, refresh=True)
    await complete_unchanged(ledger, eval_ids, Outcome.ARCHIVED)
    await refuse(ledger, 200)
    assert await held_runs(ledger) == []


async def test_an_unchanged_evaluation_without_a_request_is_not_an_answer(ledger: Ledger) -> None:
    eval_ids = some_ids(1)
    await accept(ledger, eval_ids)
    await complete_unchanged(ledger, eval_ids, None)
    await refuse(ledger, 200)
    assert await held_runs(ledger) == [RUN]


async def test_evaluations_of_a_run_on_hold_are_held_and_counted(ledger: Ledger) -> None:
    waiting = some_ids(30)
    await accept(ledger, waiting)
    await refuse(ledger, 200)
    assert await lease_ids(ledger, waiting) == []
    counters = await ledger.runs.get_counters(RUN)
    assert (counters.states["held"], counters.states["queued"], counters.pending) == (30, 0, 30)
    assert sum((await ledger.get_stats()).held.values()) == 30
    assert await ledger.locate(waiting[:1]) == [("held", "run_held")]
    assert await claim(ledger) == []


async def test_an_evaluation_with_an_expired_lease_is_held_for_its_run(ledger: Ledger, redis: Redis) -> None:
    (eval_id,) = some_ids(1)
    await accept(ledger, [eval_id])
    await ledger.lease([eval_id], token="dead")
    await refuse(ledger, 200)
    await redis.zadd("docv:ledger:leased", {eval_id: 0})
    assert await lease_ids(ledger, [eval_id]) == []
    assert await ledger.locate([eval_id]) == [("held", "run_held")]


async def test_accepting_the_refusals_resumes_the_run_permanently(ledger: Ledger) -> None:
    waiting = some_ids(30)
    await accept(ledger, waiting)
    await refuse(ledger, 200)
    await lease_ids(ledger, waiting)
    assert await ledger.runs.accept_refusals(RUN) is True
    assert sorted(await claim(ledger)) == sorted(waiting)
    await complete(ledger, waiting, Outcome.NO_DOCUMENTS)
    await refuse(ledger, 400)
    assert await held_runs(ledger) == []
    assert await ledger.runs.accept_refusals(RUN) is False
    assert (await ledger.runs.get_counters(RUN)).pending == 0


async def test_refusals_can_be_accepted_before_a_run_begins(ledger: Ledger) -> None:
    assert await ledger.runs.accept_refusals(RUN) is False
    await refuse(ledger, 500)
    assert await held_runs(ledger) == []


async def test_an_evaluation_that_another_run_also_ordered_is_not_held(ledger: Ledger) -> None:
    both, alone = some_ids(5), some_ids(5)
    await accept(ledger, [*both, *alone])
    await accept(ledger, both, run="another")
    await refuse(ledger, 200)
    assert await lease_ids(ledger, [*both, *alone]) == both


@pytest.mark.parametrize(
    ("run", "queue"), [("another", Queue.BACKFILL), (None, Queue.BACKFILL), (None, Queue.LIVE), (RUN, Queue.LIVE)]
)
async def test_a_held_evaluation_is_queued_at_once_by_an_order_that_the_hold_does_not_concern(
    ledger: Ledger, run: str | None, queue: Queue
) -> None:
    wanted, waiting = some_ids(5), some_ids(5)
    await accept(ledger, [*wanted, *waiting])
    await refuse(ledger, 200)
    await lease_ids(ledger, [*wanted, *waiting])
    assert await accept(ledger, wanted, run=run, queue=queue) == wanted
    assert await lease_ids(ledger, [*wanted, *waiting]) == wanted
    assert (await ledger.runs.get_counters(RUN)).states["held"] == 5


async def test_a_resumed_run_takes_its_evaluations_from_other_runs_on_hold(ledger: Ledger) -> None:
    both, alone = some_ids(5), some_ids(5)
    await accept(ledger, [*both, *alone])
    await accept(ledger, both, run="another")
    await refuse(ledger, 200)
    await refuse(ledger, 200, run="another")
    assert await lease_ids(ledger, [*both, *alone]) == []
    await ledger.runs.accept_refusals("another")
    assert sorted(await lease_ids(ledger, await claim(ledger))) == sorted(both)
    # An evaluation that was held in the millisecond in which the run resumed is claimed once more.
    await lease_ids(ledger, await claim(ledger))
    assert await claim(ledger) == []
    assert (await ledger.runs.get_counters(RUN)).states["held"] == 5


async def test_a_live_order_of_a_run_is_neither_held_nor_counted(ledger: Ledger) -> None:
    live = some_ids(300)
    await accept(ledger, live, queue=Queue.LIVE)
    await complete(ledger, live, Outcome.NO_DOCUMENTS)
    assert await held_runs(ledger) == []
    await refuse(ledger, 200)
    (eval_id,) = some_ids(1)
    await accept(ledger, [eval_id], queue=Queue.LIVE)
    assert await lease_ids(ledger, [eval_id]) == [eval_id]


async def test_a_run_on_hold_is_not_fed_until_it_resumes(ledger: Ledger) -> None:
    await ledger.runs.begin(RUN, total=1000, fingerprint="f")
    eval_ids, options = some_ids(200), EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run=RUN))
    await ledger.runs.feed(RUN, eval_ids, options, position=0, backlog=10_000)
    await complete(ledger, eval_ids, Outcome.NOT_FOUND)
    assert await ledger.runs.list_feeding() == []
    await ledger.runs.begin(RUN, total=1000, fingerprint="f")
    assert await ledger.runs.list_feeding() == []
    await ledger.runs.accept_refusals(RUN)
    assert await ledger.runs.list_feeding() == [RUN]


async def test_erasing_leaves_no_trace_of_an_evaluation_held_for_its_run(ledger: Ledger, redis: Redis) -> None:
    (eval_id,) = some_ids(1)
    await accept(ledger, [eval_id])
    await refuse(ledger, 200)
    await lease_ids(ledger, [eval_id])
    assert await ledger.erase(eval_id)
    assert await redis.zcard("docv:ledger:held:runs") == 0
    assert (await ledger.runs.get_counters(RUN)).pending == 0


async def test_live_refusals_in_a_row_are_counted_for_each_account(ledger: Ledger) -> None:
    async def complete_live(count: int, outcome: Outcome, evidence: tuple[Evidence, ...] = ()) -> None:
        eval_ids = some_ids(count)
        await accept(ledger, eval_ids, run=None, queue=Queue.LIVE, evidence=evidence)
        await complete(ledger, eval_ids, outcome)

    await complete_live(250, Outcome.NO_DOCUMENTS)
    assert await count_live_refusals(ledger._redis) == {"default": 250}
    assert await held_runs(ledger) == []
    await complete_live(10, Outcome.NO_DOCUMENTS, (Evidence.MILITARY_ID,))
    await complete_live(10, Outcome.NO_DOCUMENTS, (Evidence.DOCV_STEP, Evidence.UNDER_AGE))
    await complete_live(5, Outcome.NOT_FOUND, (Evidence.DOCV_STEP,))
    assert await count_live_refusals(ledger._redis) == {"default": 255}
    await complete_live(1, Outcome.ARCHIVED)
    await complete_live(2, Outcome.REJECTED)
    assert await count_live_refusals(ledger._redis) == {"default": 2}


async def test_refusals_explained_by_evidence_do_not_put_a_run_on_hold(ledger: Ledger) -> None:
    eval_ids = some_ids(250)
    await accept(ledger, eval_ids, evidence=(Evidence.MILITARY_ID,))
    await complete(ledger, eval_ids, Outcome.NO_DOCUMENTS)
    assert await held_runs(ledger) == []
    await refuse(ledger, 200)
    assert await held_runs(ledger) == [RUN]


async def test_live_answers_of_one_step_count_in_their_order(ledger: Ledger) -> None:
    eval_ids = some_ids(6)
    await accept(ledger, eval_ids, run=None, queue=Queue.LIVE)
    jobs = await ledger.lease(eval_ids, token="ours")
    ends = [Outcome.NOT_FOUND, Outcome.ARCHIVED, *[Outcome.NOT_FOUND] * 4]
    await ledger.complete_all(list(zip(jobs, ends, strict=True)))
    assert await count_live_refusals(ledger._redis) == {"default": 4}
