import asyncio
from collections.abc import Collection

import pytest
from redis.asyncio import Redis

from tasks.errors import LeaseLost
from tasks.ledger.ledger import Ledger
from tasks.model.job import Failure
from tasks.model.outcome import Outcome
from tests.tasks.ledger.ledger_steps import PREFIX, accept, accept_and_lease, some_ids

pytestmark = pytest.mark.both_redises


async def test_the_ledger_works_after_redis_has_forgotten_its_script(
    ledger: Ledger, redis: Redis, eval_id: str
) -> None:
    await redis.script_flush()
    assert await accept(ledger, eval_id) == [eval_id]


async def test_all_keys_have_one_prefix(ledger: Ledger, redis: Redis) -> None:
    dead, queued, leased, parked, held = some_ids(5)
    await ledger.dead_letter(
        await accept_and_lease(ledger, dead, run="2026-q3"), attempts=6, failure=Failure("service_failed")
    )
    await accept(ledger, queued)
    await accept_and_lease(ledger, leased)
    await accept(ledger, parked, delay=60)
    await ledger.await_hold(await accept_and_lease(ledger, held), cause="account_held")
    keys: Collection[str] = await redis.keys()
    assert len(keys) == 11
    assert all(key.startswith(PREFIX) for key in keys)


@pytest.mark.real_redis_only("fakeredis has no INFO")
async def test_evaluations_that_end_together_are_completed_in_one_round_trip(redis: Redis, ledger: Ledger) -> None:
    eval_ids = some_ids(100)
    await accept(ledger, *eval_ids, run="q3")
    entries = await ledger.lease(eval_ids, token="ours")
    before = await count_round_trips(redis)
    await asyncio.gather(*(ledger.complete(entry, Outcome.ARCHIVED) for entry in entries))
    assert await count_round_trips(redis) - before - 1 == 1  # without the round trip of the count itself
    assert (await ledger.runs.get_counters("q3")).outcomes[Outcome.ARCHIVED] == 100


async def test_a_lost_lease_in_a_batch_fails_only_its_own_caller(ledger: Ledger) -> None:
    lost, kept = await accept_and_lease(ledger, *some_ids(1)), await accept_and_lease(ledger, *some_ids(1))
    await ledger.release(lost)
    ends = await asyncio.gather(
        *(ledger.complete(entry, Outcome.ARCHIVED) for entry in (lost, kept)), return_exceptions=True
    )
    assert [type(end) for end in ends] == [LeaseLost, float]


async def count_round_trips(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_reads_processed"])


@pytest.mark.real_redis_only("fakeredis has no INFO")
async def test_redis_runs_as_many_commands_for_a_hundred_evaluations_of_an_order_as_for_two(
    ledger: Ledger, redis: Redis
) -> None:
    costs = []
    for count in (2, 100):
        eval_ids = some_ids(count)
        before = await count_commands(redis)
        await accept(ledger, *eval_ids, run=f"run-of-{count}")
        entries = await ledger.lease(eval_ids, token="ours")
        await ledger.complete_all([(entry, Outcome.ARCHIVED) for entry in entries])
        costs.append(await count_commands(redis) - before)
    assert costs[0] == costs[1]


async def test_equally_damaged_entries_do_not_stop_the_completion_of_another(ledger: Ledger, redis: Redis) -> None:
    eval_ids = some_ids(4)
    await accept(ledger, *eval_ids, run="q3")
    entries = await ledger.lease(eval_ids, token="ours")
    for eval_id, text in zip(eval_ids[::2], ("no entry", "no entry"), strict=True):
        await redis.hset(PREFIX + "entries", eval_id, text)
    assert [age > 0 for age in await ledger.complete_all([(entry, Outcome.ARCHIVED) for entry in entries])] == [
        *(False, True) * 2
    ]
    assert await ledger.complete_all([(entry, Outcome.ARCHIVED) for entry in entries]) == [0] * 4
    assert (await ledger.runs.get_counters("q3")).outcomes[Outcome.ARCHIVED] == 2
    assert (await ledger.get_stats()).damaged == 2


async def test_an_evaluation_completed_twice_in_one_step_counts_once(ledger: Ledger, eval_id: str) -> None:
    entry = await accept_and_lease(ledger, eval_id, run="q3")
    first, second = await ledger.complete_all([(entry, Outcome.ARCHIVED)] * 2)
    assert first > 0 == second
    assert (await ledger.runs.get_counters("q3")).outcomes[Outcome.ARCHIVED] == 1


async def count_commands(redis: Redis) -> int:
    """Return how many commands Redis has run, including those of scripts but not the scripts themselves."""
    stats = await redis.info("commandstats")
    return sum(facts["calls"] for name, facts in stats.items() if not name.startswith(("cmdstat_eval", "cmdstat_info")))
