"""An evaluation is found in the ledger in any state and for any account, without a write."""

from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from tasks.ledger.entries import find_entry
from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Failure, Job, Queue, Trigger
from tasks.model.outcome import Outcome

pytestmark = pytest.mark.both_redises

STEPS: dict[str, Callable[[Ledger, Job], Awaitable[object]]] = {
    "leased": lambda ledger, job: ledger.extend([job]),
    "parked": lambda ledger, job: ledger.retry_later(job, wait=90, attempts=1, failure=Failure("service_failed")),
    "held": lambda ledger, job: ledger.await_hold(job, cause="account_held"),
    "dead": lambda ledger, job: ledger.dead_letter(job, attempts=6, failure=Failure("bundle_too_large")),
}
CAUSES = {"parked": "service_failed", "held": "account_held", "dead": "bundle_too_large"}


async def accept(ledger: Ledger, account: str, queue: Queue, delay: float = 0.0) -> str:
    eval_id = str(uuid4())
    await ledger.accept([eval_id], EnqueueOptions(queue, account, Trigger("intake"), delay=delay))
    return eval_id


@pytest.mark.parametrize("queue", Queue)
@pytest.mark.parametrize("account", ["default", "kyb"])
@pytest.mark.parametrize("state", STEPS)
async def test_an_evaluation_is_found_in_each_state(
    ledger: Ledger, redis: Redis, state: str, account: str, queue: Queue
) -> None:
    eval_id = await accept(ledger, account, queue)
    (job,) = await ledger.lease([eval_id], token="one")
    await STEPS[state](ledger, job)
    entry = await find_entry(redis, eval_id)
    assert entry
    assert (entry.state, entry.cause, entry.account, entry.queue) == (state, CAUSES.get(state), account, queue)
    assert (entry.due_at is not None) is (state == "parked")
    assert (await ledger.locate([eval_id])) == [(state, CAUSES.get(state))]


async def test_a_queued_evaluation_has_neither_cause_nor_time(ledger: Ledger, redis: Redis) -> None:
    entry = await find_entry(redis, await accept(ledger, "default", Queue.LIVE))
    assert entry
    assert (entry.state, entry.cause, entry.due_at) == ("queued", None, None)


async def test_a_delayed_evaluation_is_parked_until_it_is_due(ledger: Ledger, redis: Redis) -> None:
    entry = await find_entry(redis, await accept(ledger, "default", Queue.LIVE, delay=60))
    assert entry
    assert entry.due_at
    assert (entry.state, entry.cause) == ("parked", None)
    assert entry.due_at - entry.read_at == pytest.approx(60, abs=5)


async def test_find_entry_returns_none_for_an_ended_or_unknown_evaluation(ledger: Ledger, redis: Redis) -> None:
    ended = await accept(ledger, "default", Queue.LIVE)
    (job,) = await ledger.lease([ended], token="one")
    await ledger.complete(job, Outcome.ARCHIVED)
    assert [await find_entry(redis, eval_id) for eval_id in (ended, str(uuid4()))] == [None, None]


@pytest.mark.real_redis_only
async def test_find_entry_works_for_a_read_only_user_of_redis(ledger: Ledger, redis: Redis) -> None:
    eval_id = await accept(ledger, "kyb", Queue.LIVE)
    commands = ["+@read", "+@connection", "+@transaction", "+time"]
    await redis.acl_setuser("reader", enabled=True, passwords=["+word"], keys=["*"], commands=commands)
    try:
        async with redis.client() as reader:
            await reader.execute_command("AUTH", "reader", "word")
            entry = await find_entry(reader, eval_id)
            with pytest.raises(NoPermissionError):
                await reader.set("a", "b")
            assert reader.connection
            await reader.connection.disconnect()  # the connection's next user is not the read-only one
    finally:
        await redis.acl_deluser("reader")
    assert entry
    assert entry.state == "queued"
