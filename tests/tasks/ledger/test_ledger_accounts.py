import asyncio
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.model.outcome import Outcome
from tests.tasks.ledger.ledger_steps import PATIENCE, PREFIX, lease_one, some_ids

pytestmark = pytest.mark.both_redises


async def accept_and_hold(ledger: Ledger, account: str, count: int, queue: Queue = Queue.BACKFILL) -> list[str]:
    """Accept evaluations of an account, and hold them."""
    eval_ids = [str(uuid4()) for _ in range(count)]
    await ledger.accept(eval_ids, EnqueueOptions(queue, account, Trigger("enqueue", run="q3")))
    for entry in await ledger.lease(eval_ids, token="ours"):
        await ledger.await_hold(entry, cause="account_held")
    return eval_ids


def limits_of(**counts: int) -> dict[str, dict[Queue, int]]:
    return {account: dict.fromkeys(Queue, count) for account, count in counts.items()}


async def test_a_hold_on_one_account_affects_no_evaluations_of_another(ledger: Ledger) -> None:
    ours, theirs = await accept_and_hold(ledger, "default", 3), await accept_and_hold(ledger, "kyb", 3)
    (probe,) = (await ledger.claim(patience=PATIENCE, of_held=limits_of(default=0, kyb=1)))[Queue.BACKFILL]
    assert probe in theirs
    found = await ledger.claim(patience=PATIENCE, of_held=limits_of(default=1000, kyb=0))
    assert set(found[Queue.BACKFILL]) == set(ours)
    stats = await ledger.get_stats()
    assert (stats.held_by_account, sum(stats.held.values())) == ({"kyb": 2}, 2)


async def test_held_evaluations_of_an_account_that_is_not_named_stay_held(ledger: Ledger) -> None:
    (eval_id,) = await accept_and_hold(ledger, "kyb", 1)
    assert await ledger.claim(patience=PATIENCE, of_held=limits_of(default=1000)) == {}
    assert (await ledger.locate([eval_id])) == [("held", "account_held")]
    assert await ledger.claim(patience=PATIENCE, of_held=limits_of(kyb=1000)) == {Queue.BACKFILL: [eval_id]}


async def test_an_account_with_many_held_evaluations_leaves_part_of_the_limit_to_others(ledger: Ledger) -> None:
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
