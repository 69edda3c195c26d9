"""Cancelled evaluations are not processed in any state, and the counters of their runs still add up."""

from collections.abc import Sequence
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from tasks.errors import LeaseLost
from tasks.ledger.cancellation import CancelCounts, Cancellation
from tasks.ledger.ledger import Ledger
from tasks.ledger.refused_runs import list_refused_runs
from tasks.ledger.runs import BeginResult
from tasks.ledger.script import LedgerScript
from tasks.model.job import EnqueueOptions, Failure, Job, Queue, Trigger
from tasks.model.outcome import Outcome
from tests.tasks.ledger.ledger_steps import PATIENCE, some_ids

pytestmark = pytest.mark.both_redises

RUN = "q3"
ALL = {"default": dict.fromkeys(Queue, 1000)}


@pytest.fixture
def cancellation(redis: Redis) -> Cancellation:
    return Cancellation(redis)


def order(run: str | None = RUN, queue: Queue = Queue.BACKFILL, **options: Any) -> EnqueueOptions:
    return EnqueueOptions(queue, "default", Trigger("backfill", run=run), **options)


async def begin(ledger: Ledger, eval_ids: Sequence[str], *, fed: int) -> None:
    """Begin a run with a list, and feed its first IDs."""
    await ledger.runs.begin(RUN, total=len(eval_ids), fingerprint="its IDs")
    await ledger.runs.feed(RUN, eval_ids[:fed], order(), position=0, backlog=1_000_000)


async def lease(ledger: Ledger, *eval_ids: str) -> list[Job]:
    return await ledger.lease(eval_ids, token="ours")


async def read_counters(ledger: Ledger, run: str = RUN) -> dict[str, int]:
    """Return the counters of a run that are not 0, and check that they add up."""
    counters = await ledger.runs.get_counters(run)
    assert counters.total == counters.unfed + sum(counters.states.values()) + sum(counters.outcomes.values())
    counts = {"unfed": counters.unfed, **counters.states, **counters.outcomes}
    return {str(name): count for name, count in counts.items() if count}


async def test_cancel_run_cancels_its_evaluations_in_every_state(ledger: Ledger, cancellation: Cancellation) -> None:
    eval_ids = some_ids(10)
    await begin(ledger, eval_ids, fed=7)
    archived, parked, held, dead, in_flight = await lease(ledger, *eval_ids[:5])
    await ledger.complete(archived, Outcome.ARCHIVED)
    await ledger.retry_later(parked, wait=60, attempts=1, failure=Failure("service_failed"))
    await ledger.await_hold(held, cause="account_held")
    await ledger.dead_letter(dead, attempts=6, failure=Failure("service_failed"))

    assert await cancellation.cancel_run(RUN) == CancelCounts(cancelled=7, in_flight=1)

    assert await read_counters(ledger) == {"leased": 1, "archived": 1, "failed": 1, "cancelled": 7}
    assert await lease(ledger, *eval_ids) == []
    assert await ledger.claim(patience=dict.fromkeys(Queue, 0.0), of_held=ALL) == {}
    await ledger.complete(in_flight, Outcome.ARCHIVED)
    assert await read_counters(ledger) == {"archived": 2, "failed": 1, "cancelled": 7}
    assert await cancellation.cancel_run(RUN) == CancelCounts(0, 0)


async def test_a_cancelled_list_is_not_fed(ledger: Ledger, cancellation: Cancellation) -> None:
    eval_ids = some_ids(10)
    await begin(ledger, eval_ids, fed=4)
    await cancellation.cancel_run(RUN)
    assert await ledger.runs.list_feeding() == []
    # Another feeder read the list before the cancellation.
    assert await ledger.runs.feed(RUN, eval_ids[4:], order(), position=4, backlog=1_000_000) is None
    assert await ledger.runs.begin(RUN, total=10, fingerprint="its IDs") is BeginResult.CANCELLED
    assert await read_counters(ledger) == {"cancelled": 10}
    assert await ledger.runs.get_position(RUN) == 4


async def test_a_cancelled_evaluation_is_remembered_until_it_is_accepted_again(
    ledger: Ledger, cancellation: Cancellation
) -> None:
    first, second, in_flight, archived, other = eval_ids = some_ids(5)
    await ledger.accept([first], order("without a list"))
    await ledger.accept([second, in_flight], order(None))
    await begin(ledger, [archived, other], fed=2)
    (job, done) = await lease(ledger, in_flight, archived)
    await cancellation.cancel_evaluations([second, in_flight])
    for run in ("without a list", RUN):
        await cancellation.cancel_run(run)
    await ledger.release(job)
    await ledger.complete(done, Outcome.ARCHIVED)
    assert await cancellation.find_cancelled(eval_ids) == {first, second, in_flight, other}
    await ledger.accept([first, other], order())
    assert await cancellation.find_cancelled(eval_ids) == {second, in_flight}
    assert await cancellation.find_cancelled([]) == set()


@pytest.mark.real_redis_only("fakeredis ignores maxmemory")
async def test_a_full_redis_refuses_an_order_without_forgetting_cancelled_evaluations(
    ledger: Ledger, cancellation: Cancellation, redis: Redis
) -> None:
    first, second = some_ids(2)
    await ledger.accept([first], order(None))
    await cancellation.cancel_evaluations([first])
    await redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(OutOfMemoryError):
            await ledger.accept([first, second], order(None))
    finally:
        await redis.config_set("maxmemory", 0)
    assert await ledger.locate([first, second]) == [(None, None)] * 2
    assert await cancellation.find_cancelled([first, second]) == {first}


async def test_an_evaluation_cancelled_before_its_list_is_fed_is_remembered(
    ledger: Ledger, cancellation: Cancellation
) -> None:
    first, second = eval_ids = some_ids(2)
    await begin(ledger, eval_ids, fed=1)
    await cancellation.cancel_evaluations([second])
    assert await cancellation.find_cancelled(eval_ids) == {second}
    await ledger.runs.feed(RUN, [second], order(), position=1, backlog=1_000_000)
    assert await read_counters(ledger) == {"queued": 1, "cancelled": 1}
    assert await cancellation.find_cancelled(eval_ids) == {second}
    assert await ledger.locate([first]) == [("queued", None)]


@pytest.mark.parametrize("ending", ["retry_later", "await_hold", "release", "lease_ended"])
async def test_an_attempt_in_flight_is_the_last_one_after_a_cancellation(
    ledger: Ledger, cancellation: Cancellation, ending: str
) -> None:
    (eval_id,) = some_ids(1)
    await begin(ledger, [eval_id], fed=1)
    (job,) = await lease(ledger, eval_id)
    assert await cancellation.cancel_run(RUN) == CancelCounts(0, 1)
    match ending:
        case "retry_later":
            await ledger.retry_later(job, wait=0, attempts=1, failure=Failure("service_failed"))
        case "await_hold":
            await ledger.await_hold(job, cause="account_held")
        case "release":
            await ledger.release(job)
        case _:
            await ledger.end_leases()
            await ledger.claim(patience=PATIENCE, of_held=ALL)
    assert await lease(ledger, eval_id) == []
    assert await read_counters(ledger) == {"cancelled": 1}
    assert await ledger.locate([eval_id]) == [(None, None)]


async def test_an_evaluation_whose_worker_died_is_cancelled(ledger: Ledger, cancellation: Cancellation) -> None:
    (eval_id,) = some_ids(1)
    await begin(ledger, [eval_id], fed=1)
    (job,) = await lease(ledger, eval_id)
    await ledger.end_leases()
    assert await cancellation.cancel_run(RUN) == CancelCounts(1, 0)
    with pytest.raises(LeaseLost):
        await ledger.complete(job, Outcome.ARCHIVED)
    assert await read_counters(ledger) == {"cancelled": 1}


@pytest.mark.parametrize(
    "other",
    [order("other"), order(None), order(None, Queue.LIVE), order("other", Queue.LIVE)],
    ids=lambda each: each.queue,
)
@pytest.mark.parametrize("is_first", [True, False])
async def test_an_evaluation_of_two_orders_is_cancelled_for_one_run_only(
    ledger: Ledger, cancellation: Cancellation, other: EnqueueOptions, *, is_first: bool
) -> None:
    (eval_id,) = some_ids(1)
    if is_first:
        await ledger.accept([eval_id], other)
    await begin(ledger, [eval_id], fed=1)
    if not is_first:
        await ledger.accept([eval_id], other)

    assert await cancellation.cancel_run(RUN) == CancelCounts(1, 0)

    assert await read_counters(ledger) == {"cancelled": 1}
    (job,) = await lease(ledger, eval_id)
    await ledger.complete(job, Outcome.ARCHIVED)
    assert await read_counters(ledger) == {"cancelled": 1}
    assert (await ledger.runs.get_counters("other")).outcomes[Outcome.ARCHIVED] == (other.trigger.run == "other")


async def test_a_refresh_ordered_during_an_attempt_is_cancelled_with_its_run(
    ledger: Ledger, cancellation: Cancellation
) -> None:
    eval_ids = some_ids(2)
    await begin(ledger, eval_ids, fed=2)
    mine, shared = await lease(ledger, *eval_ids)
    await ledger.accept(eval_ids, order("again", refresh=True))
    await ledger.accept([shared.eval_id], order(None, refresh=True))
    assert await cancellation.cancel_run("again") == CancelCounts(2, 0)
    for job in (mine, shared):
        await ledger.complete(job, Outcome.ARCHIVED)
    assert await read_counters(ledger) == {"archived": 2}
    assert await read_counters(ledger, "again") == {"cancelled": 2}
    assert await lease(ledger, mine.eval_id) == []
    assert [job.refresh for job in await lease(ledger, shared.eval_id)] == [True]


async def test_cancelling_by_id_cancels_an_evaluation_for_all_its_orders(
    ledger: Ledger, cancellation: Cancellation
) -> None:
    eval_ids = some_ids(3)
    await begin(ledger, eval_ids, fed=3)
    await ledger.accept(eval_ids, order("other"))
    await ledger.accept(eval_ids, order(None, Queue.LIVE))
    (in_flight,) = await lease(ledger, eval_ids[0])
    assert await cancellation.cancel_evaluations([*eval_ids[:2], *some_ids(1)]) == CancelCounts(1, 1)
    assert (
        await read_counters(ledger)
        == await read_counters(ledger, "other")
        == {"leased": 1, "queued": 1, "cancelled": 1}
    )
    await ledger.release(in_flight)
    assert await read_counters(ledger) == await read_counters(ledger, "other") == {"queued": 1, "cancelled": 2}
    assert [job.eval_id for job in await lease(ledger, *eval_ids)] == [eval_ids[2]]


async def test_cancelling_by_id_cancels_an_evaluation_that_is_not_fed_yet(
    ledger: Ledger, cancellation: Cancellation, redis: Redis
) -> None:
    eval_ids = some_ids(4)
    await begin(ledger, eval_ids, fed=1)
    assert await cancellation.cancel_evaluations(eval_ids[1:3]) == CancelCounts(0, 0)
    # An order after the cancellation is a new one.
    await ledger.accept([eval_ids[1]], order(None, Queue.LIVE))
    assert await ledger.runs.feed(RUN, eval_ids[1:], order(), position=1, backlog=1_000) == [eval_ids[3]]
    assert await read_counters(ledger) == {"queued": 2, "cancelled": 2}
    assert [job.eval_id for job in await lease(ledger, *eval_ids)] == [eval_ids[0], eval_ids[1], eval_ids[3]]
    assert await redis.exists("docv:ledger:lists", "docv:ledger:cancelled") == 0


@pytest.mark.parametrize("by_id", [True, False])
async def test_an_order_after_the_cancellation_is_a_new_order(
    ledger: Ledger, cancellation: Cancellation, *, by_id: bool
) -> None:
    waiting, in_flight = some_ids(2)
    await begin(ledger, [waiting, in_flight], fed=2)
    (job,) = await lease(ledger, in_flight)
    await (cancellation.cancel_evaluations([waiting, in_flight]) if by_id else cancellation.cancel_run(RUN))
    published = await ledger.accept_event("an event", waiting, order(None, Queue.LIVE))
    await ledger.accept([in_flight], order(None, Queue.LIVE))
    await ledger.retry_later(job, wait=0, attempts=1, failure=Failure("service_failed"))
    assert published == [waiting]
    assert {each.eval_id for each in await lease(ledger, waiting, in_flight)} == {waiting, in_flight}
    assert await read_counters(ledger) == {"cancelled": 2}


async def test_no_evaluation_of_a_run_is_leased_after_the_first_step_of_its_cancellation(
    ledger: Ledger, cancellation: Cancellation, redis: Redis
) -> None:
    eval_ids = some_ids(5)
    await begin(ledger, eval_ids, fed=4)
    await ledger.accept([eval_ids[0]], order("other"))
    # The command is killed after this step.
    await LedgerScript(redis).call("cancel_list", RUN)
    assert [job.eval_id for job in await lease(ledger, *eval_ids[:2])] == [eval_ids[0]]
    assert await read_counters(ledger) == {"queued": 2, "cancelled": 3}
    assert await cancellation.cancel_run(RUN) == CancelCounts(2, 0)
    assert await read_counters(ledger) == {"cancelled": 5}


async def test_an_evaluation_that_a_lease_names_twice_is_cancelled_once(
    ledger: Ledger, cancellation: Cancellation, redis: Redis, eval_id: str
) -> None:
    """Only the next attempt is left to lease, and its run is also being cancelled."""
    await ledger.accept([eval_id], order("first"))
    await lease(ledger, eval_id)
    await cancellation.cancel_run("first")
    for run in (None, "second"):
        await ledger.accept([eval_id], order(run, refresh=True))
    await ledger.end_leases()
    await LedgerScript(redis).call("cancel_list", "second")
    (job,) = await lease(ledger, eval_id, eval_id)
    assert await read_counters(ledger, "second") == {"leased": 1}
    assert await cancellation.cancel_run("second") == CancelCounts(cancelled=0, in_flight=1)
    await ledger.release(job)
    assert await read_counters(ledger, "second") == {"cancelled": 1}
    assert await read_counters(ledger, "first") == {"cancelled": 1}


async def test_a_run_on_hold_for_its_refusals_is_cancelled(
    ledger: Ledger, cancellation: Cancellation, redis: Redis
) -> None:
    eval_ids = some_ids(300)
    await begin(ledger, eval_ids, fed=250)
    await ledger.complete_all([(job, Outcome.NO_DOCUMENTS) for job in await lease(ledger, *eval_ids[:200])])
    assert await lease(ledger, *eval_ids[200:230]) == []
    assert await cancellation.cancel_run(RUN) == CancelCounts(100, 0)
    assert await list_refused_runs(redis) == []
    assert await read_counters(ledger) == {"no_documents": 200, "cancelled": 100}


async def test_a_cancelled_run_is_not_put_on_hold_by_its_attempts_in_flight(
    ledger: Ledger, cancellation: Cancellation, redis: Redis
) -> None:
    eval_ids = some_ids(200)
    await begin(ledger, eval_ids, fed=200)
    jobs = await lease(ledger, *eval_ids)
    await cancellation.cancel_run(RUN)
    await ledger.complete_all([(job, Outcome.NO_DOCUMENTS) for job in jobs])
    assert await list_refused_runs(redis) == []


async def test_a_cancelled_run_begins_again_from_its_first_id(ledger: Ledger, cancellation: Cancellation) -> None:
    eval_ids = some_ids(4)
    await begin(ledger, eval_ids, fed=3)
    archived, dead, in_flight = await lease(ledger, *eval_ids[:3])
    await ledger.complete(archived, Outcome.ARCHIVED)
    await ledger.dead_letter(dead, attempts=6, failure=Failure("service_failed"))
    await cancellation.cancel_evaluations(eval_ids[3:])
    await cancellation.cancel_run(RUN)

    assert await ledger.runs.begin(RUN, total=4, fingerprint="its IDs", again=True) is BeginResult.CREATED

    assert await read_counters(ledger) == {"unfed": 4, "leased": 1, "failed": 1}
    assert (await ledger.runs.list_feeding(), await ledger.runs.get_position(RUN)) == ([RUN], 0)
    await ledger.retry_later(in_flight, wait=0, attempts=1, failure=Failure("service_failed"))
    await ledger.runs.feed(RUN, eval_ids, order(), position=0, backlog=1_000)
    await ledger.complete_all([(job, Outcome.ARCHIVED) for job in await lease(ledger, *eval_ids)])
    assert await read_counters(ledger) == {"archived": 4}


async def test_cancel_run_returns_none_for_an_unknown_run(cancellation: Cancellation, redis: Redis) -> None:
    assert await cancellation.cancel_run("no-such-run") is None
    assert await redis.keys("docv:ledger:*") == []


async def test_many_evaluations_are_cancelled_in_bounded_steps(
    ledger: Ledger, cancellation: Cancellation, monkeypatch: pytest.MonkeyPatch
) -> None:
    eval_ids = some_ids(5_000)
    await ledger.accept(eval_ids, order())
    steps: list[int] = []
    call = LedgerScript.call

    async def observe(script: LedgerScript, verb: str, *args: object) -> Any:
        answer = await call(script, verb, *args)
        if verb == "cancel_some":
            steps.append(answer[1])
        return answer

    monkeypatch.setattr(LedgerScript, "call", observe)
    assert await cancellation.cancel_run(RUN) == CancelCounts(5_000, 0)
    assert max(steps) < 2_500
    assert await read_counters(ledger) == {"cancelled": 5_000}


async def test_find_unwanted_returns_cancelled_evaluations_in_flight_and_count_grows(
    ledger: Ledger, cancellation: Cancellation
) -> None:
    eval_ids = some_ids(4)
    unwanted, shared, by_id, other = eval_ids
    await begin(ledger, [unwanted, shared], fed=2)
    await ledger.accept([shared, by_id, other], order("other"))
    await lease(ledger, *eval_ids)
    before = await cancellation.count()
    assert await cancellation.find_cancelled_in_flight(eval_ids) == set()
    await cancellation.cancel_run(RUN)
    assert await cancellation.find_cancelled_in_flight(eval_ids) == {unwanted}
    by_run = await cancellation.count()
    await cancellation.cancel_evaluations([by_id])
    assert await cancellation.find_cancelled_in_flight(eval_ids) == {unwanted, by_id}
    await ledger.accept([by_id], order(None, Queue.LIVE))
    assert await cancellation.find_cancelled_in_flight(eval_ids) == {unwanted}
    assert before < by_run < await cancellation.count()
