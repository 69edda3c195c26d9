import asyncio
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from tasks.errors import LeaseLost
from tasks.ledger.leases import LeaseKeeper
from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Job, Queue, Trigger
from tasks.model.outcome import Outcome
from worker.logs import with_about

pytestmark = pytest.mark.both_redises

LEASED = "docv:ledger:leased"
RUN_OUT = 1


@pytest.fixture
def ledger(redis: Redis) -> Ledger:
    return Ledger(redis)


@pytest.fixture
def leases(ledger: Ledger) -> LeaseKeeper:
    return LeaseKeeper(ledger)


async def taken(ledger: Ledger, eval_id: str, token: str = "ours") -> Job:  # noqa: S107  # no password
    await ledger.accept([eval_id], EnqueueOptions(Queue.BACKFILL, "default", Trigger("enqueue")))
    (entry,) = await ledger.lease([eval_id], token=token)
    return entry


async def runs_out(redis: Redis, *entries: Job) -> None:
    await redis.zadd(LEASED, {entry.eval_id: RUN_OUT for entry in entries}, xx=True)


async def is_kept(redis: Redis, entry: Job) -> bool:
    score = await redis.zscore(LEASED, entry.eval_id)
    return score is not None and score > RUN_OUT


def test_several_heartbeats_may_fail_before_a_lease_runs_out(ledger: Ledger) -> None:
    assert ledger.lease_seconds / LeaseKeeper(ledger).interval >= 3


async def test_a_heartbeat_keeps_the_leases_of_what_is_under_way(
    leases: LeaseKeeper, ledger: Ledger, redis: Redis
) -> None:
    entries = [await taken(ledger, str(uuid4())) for _ in range(3)]
    await runs_out(redis, *entries)

    with leases.keep(entries[:2]), leases.keep(entries[2:]):
        await leases.renew()

    assert [await is_kept(redis, entry) for entry in entries] == [True, True, True]


async def test_a_heartbeat_of_an_idle_process_is_no_trouble(leases: LeaseKeeper, redis: Redis) -> None:
    await leases.renew()
    assert await redis.keys() == []


async def test_what_is_no_longer_under_way_is_let_go(leases: LeaseKeeper, ledger: Ledger, redis: Redis) -> None:
    entry = await taken(ledger, str(uuid4()))
    with leases.keep([entry]):
        pass
    await runs_out(redis, entry)

    await leases.renew()

    assert not await is_kept(redis, entry)


async def test_what_failed_is_let_go_as_well(leases: LeaseKeeper, ledger: Ledger, redis: Redis) -> None:
    entry = await taken(ledger, str(uuid4()))
    with pytest.raises(RuntimeError), leases.keep([entry]):
        raise RuntimeError
    await runs_out(redis, entry)

    await leases.renew()

    assert not await is_kept(redis, entry)


async def test_an_evaluation_that_is_done_is_let_go_before_the_rest_of_its_message(
    leases: LeaseKeeper, ledger: Ledger, redis: Redis
) -> None:
    done, busy = [await taken(ledger, str(uuid4())) for _ in range(2)]
    await runs_out(redis, done, busy)

    with leases.keep([done, busy]):
        leases.forget(done)
        leases.forget(done)
        await leases.renew()

    assert [await is_kept(redis, entry) for entry in (done, busy)] == [False, True]


async def test_a_lease_that_another_worker_has_is_told_once_and_let_go(
    leases: LeaseKeeper, ledger: Ledger, redis: Redis
) -> None:
    lost, kept = [await taken(ledger, str(uuid4())) for _ in range(2)]
    await runs_out(redis, lost)
    await ledger.lease([lost.eval_id], token="another")
    await runs_out(redis, lost, kept)

    with leases.keep([lost, kept]), capture_logs([merge_contextvars, with_about]) as lines:
        await leases.renew()
        await leases.renew()

    assert [(line["event"], line["eval_id"]) for line in lines] == [("evaluation.lease_lost", lost.eval_id)]
    assert [await is_kept(redis, entry) for entry in (lost, kept)] == [False, True]


@pytest.mark.real_redis_only("fakeredis may answer before the loop runs another task")
async def test_an_evaluation_that_was_settled_during_a_heartbeat_is_no_lost_lease(
    leases: LeaseKeeper, ledger: Ledger
) -> None:
    entry = await taken(ledger, str(uuid4()))
    with leases.keep([entry]), capture_logs([merge_contextvars, with_about]) as lines:
        await ledger.complete(entry, Outcome.ARCHIVED)
        beat = asyncio.create_task(leases.renew())
        await asyncio.sleep(0)
        leases.forget(entry)
        await beat
    assert lines == []


async def test_letting_an_old_lease_go_leaves_the_new_one_of_the_same_evaluation(
    leases: LeaseKeeper, ledger: Ledger, redis: Redis
) -> None:
    old = await taken(ledger, str(uuid4()))
    with leases.keep([old]):
        await runs_out(redis, old)
        (new,) = await ledger.lease([old.eval_id], token="our next message")
        with leases.keep([new]):
            leases.forget(old)
            await runs_out(redis, new)
            await leases.renew()
            assert await is_kept(redis, new)


async def test_an_evaluation_taken_anew_during_a_heartbeat_keeps_its_new_lease(
    leases: LeaseKeeper, ledger: Ledger, redis: Redis
) -> None:
    old = await taken(ledger, str(uuid4()))
    await runs_out(redis, old)
    (new,) = await ledger.lease([old.eval_id], token="our next message")

    with leases.keep([old]):
        beat = asyncio.create_task(leases.renew())
        await asyncio.sleep(0)  # the heartbeat has asked, with the old lease, and cannot have its answer yet
        with leases.keep([new]):
            await beat
            await runs_out(redis, new)
            await leases.renew()

            assert await is_kept(redis, new)


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_what_is_surely_ours_is_confirmed_without_asking(ledger: Ledger, redis: Redis) -> None:
    clock = Clock()
    leases = LeaseKeeper(ledger, clock)
    entry = await taken(ledger, str(uuid4()))
    with leases.keep([entry]):
        clock.now += ledger.lease_seconds / 2
        await leases.renew()
        clock.now += ledger.lease_seconds / 2
        await runs_out(redis, entry)
        await leases.confirm(entry)
        assert not await is_kept(redis, entry)


async def test_who_stood_still_asks_and_has_the_lease_anew(ledger: Ledger, redis: Redis) -> None:
    clock = Clock()
    leases = LeaseKeeper(ledger, clock)
    entry = await taken(ledger, str(uuid4()))
    with leases.keep([entry]):
        clock.now += ledger.lease_seconds
        await runs_out(redis, entry)
        await leases.confirm(entry)
        assert await is_kept(redis, entry)


async def test_what_was_erased_or_taken_by_another_while_we_stood_still_is_not_ours(
    ledger: Ledger, redis: Redis
) -> None:
    clock = Clock()
    leases = LeaseKeeper(ledger, clock)
    erased, lost, let_go = [await taken(ledger, str(uuid4())) for _ in range(3)]
    with leases.keep([erased, lost, let_go]):
        clock.now += ledger.lease_seconds
        await runs_out(redis, erased, lost, let_go)
        assert await ledger.erase(erased.eval_id)
        await ledger.lease([lost.eval_id, let_go.eval_id], token="another's")
        for entry in (erased, lost):
            with pytest.raises(LeaseLost):
                await leases.confirm(entry)
        await leases.renew()
        with pytest.raises(LeaseLost):
            await leases.confirm(let_go)


async def test_only_what_has_not_begun_is_taken_back(ledger: Ledger, leases: LeaseKeeper) -> None:
    begun, waiting = [await taken(ledger, str(uuid4())) for _ in range(2)]
    with leases.keep([begun, waiting]):
        assert leases.begin(begun)
        assert leases.list_waiting() == [waiting.eval_id]
        assert leases.take_back(begun.eval_id) is None
        assert leases.take_back(waiting.eval_id) is waiting
        assert not leases.begin(waiting)
        assert leases.list_waiting() == []
