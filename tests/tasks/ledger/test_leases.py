import asyncio
import contextlib
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from tasks.errors import LeaseLost
from tasks.ledger.leases import LeaseKeeper
from tasks.ledger.ledger import Ledger
from tasks.model.job import Job
from tasks.model.outcome import Outcome
from tests.tasks.ledger.ledger_steps import accept_and_lease
from worker.logs import with_about

pytestmark = pytest.mark.both_redises

LEASED = "docv:ledger:leased"
RUN_OUT = 1


@pytest.fixture
def leases(ledger: Ledger) -> LeaseKeeper:
    return LeaseKeeper(ledger)


async def expire(redis: Redis, *entries: Job) -> None:
    await redis.zadd(LEASED, {entry.eval_id: RUN_OUT for entry in entries}, xx=True)


async def is_leased(redis: Redis, entry: Job) -> bool:
    score = await redis.zscore(LEASED, entry.eval_id)
    return score is not None and score > RUN_OUT


def test_several_heartbeats_may_fail_before_a_lease_runs_out(ledger: Ledger) -> None:
    assert ledger.lease_seconds / LeaseKeeper(ledger).interval >= 3


async def test_a_heartbeat_extends_the_leases_of_evaluations_in_progress(
    leases: LeaseKeeper, ledger: Ledger, redis: Redis
) -> None:
    entries = [await accept_and_lease(ledger, str(uuid4())) for _ in range(3)]
    await expire(redis, *entries)

    with leases.keep(entries[:2]), leases.keep(entries[2:]):
        await leases.renew()

    assert [await is_leased(redis, entry) for entry in entries] == [True, True, True]


async def test_a_heartbeat_without_leases_succeeds(leases: LeaseKeeper, redis: Redis) -> None:
    await leases.renew()
    assert await redis.keys() == []


async def test_a_lease_is_not_extended_after_its_block(leases: LeaseKeeper, ledger: Ledger, redis: Redis) -> None:
    entry = await accept_and_lease(ledger, str(uuid4()))
    with leases.keep([entry]):
        pass
    await expire(redis, entry)

    await leases.renew()

    assert not await is_leased(redis, entry)


async def test_a_lease_is_not_extended_after_its_block_failed(
    leases: LeaseKeeper, ledger: Ledger, redis: Redis
) -> None:
    entry = await accept_and_lease(ledger, str(uuid4()))
    with pytest.raises(RuntimeError), leases.keep([entry]):
        raise RuntimeError
    await expire(redis, entry)

    await leases.renew()

    assert not await is_leased(redis, entry)


async def test_a_forgotten_lease_is_not_extended_while_the_rest_of_its_message_is(
    leases: LeaseKeeper, ledger: Ledger, redis: Redis
) -> None:
    done, busy = [await accept_and_lease(ledger, str(uuid4())) for _ in range(2)]
    await expire(redis, done, busy)

    with leases.keep([done, busy]):
        leases.forget(done)
        leases.forget(done)
        await leases.renew()

    assert [await is_leased(redis, entry) for entry in (done, busy)] == [False, True]


async def test_a_lease_lost_to_another_worker_is_logged_once_and_forgotten(
    leases: LeaseKeeper, ledger: Ledger, redis: Redis
) -> None:
    lost, kept = [await accept_and_lease(ledger, str(uuid4())) for _ in range(2)]
    await expire(redis, lost)
    await ledger.lease([lost.eval_id], token="another")
    await expire(redis, lost, kept)

    with leases.keep([lost, kept]), capture_logs([merge_contextvars, with_about]) as lines:
        await leases.renew()
        await leases.renew()

    assert [(line["event"], line["eval_id"]) for line in lines] == [("evaluation.lease_lost", lost.eval_id)]
    assert [await is_leased(redis, entry) for entry in (lost, kept)] == [False, True]


@pytest.mark.real_redis_only("fakeredis may answer before the loop runs another task")
async def test_an_evaluation_completed_during_a_heartbeat_is_not_a_lost_lease(
    leases: LeaseKeeper, ledger: Ledger
) -> None:
    entry = await accept_and_lease(ledger, str(uuid4()))
    with leases.keep([entry]), capture_logs([merge_contextvars, with_about]) as lines:
        await ledger.complete(entry, Outcome.ARCHIVED)
        beat = asyncio.create_task(leases.renew())
        await asyncio.sleep(0)
        leases.forget(entry)
        await beat
    assert lines == []


async def test_forgetting_an_old_lease_keeps_the_new_one_of_the_same_evaluation(
    leases: LeaseKeeper, ledger: Ledger, redis: Redis
) -> None:
    old = await accept_and_lease(ledger, str(uuid4()))
    with leases.keep([old]):
        await expire(redis, old)
        (new,) = await ledger.lease([old.eval_id], token="our next message")
        with leases.keep([new]):
            leases.forget(old)
            await expire(redis, new)
            await leases.renew()
            assert await is_leased(redis, new)


async def test_an_evaluation_leased_again_during_a_heartbeat_keeps_its_new_lease(
    leases: LeaseKeeper, ledger: Ledger, redis: Redis
) -> None:
    old = await accept_and_lease(ledger, str(uuid4()))
    await expire(redis, old)
    (new,) = await ledger.lease([old.eval_id], token="our next message")

    with leases.keep([old]):
        beat = asyncio.create_task(leases.renew())
        await asyncio.sleep(0)  # the heartbeat has sent the old lease, and Redis has not answered yet
        with leases.keep([new]):
            await beat
            await expire(redis, new)
            await leases.renew()

            assert await is_leased(redis, new)


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_recently_extended_lease_is_confirmed_without_a_request_to_redis(ledger: Ledger, redis: Redis) -> None:
    clock = Clock()
    leases = LeaseKeeper(ledger, clock)
    entry = await accept_and_lease(ledger, str(uuid4()))
    with leases.keep([entry]):
        clock.now += ledger.lease_seconds / 2
        await leases.renew()
        clock.now += ledger.lease_seconds / 2
        await expire(redis, entry)
        await leases.confirm(entry)
        assert not await is_leased(redis, entry)


async def test_confirm_extends_the_lease_after_the_process_was_suspended(ledger: Ledger, redis: Redis) -> None:
    clock = Clock()
    leases = LeaseKeeper(ledger, clock)
    entry = await accept_and_lease(ledger, str(uuid4()))
    with leases.keep([entry]):
        clock.now += ledger.lease_seconds
        await expire(redis, entry)
        await leases.confirm(entry)
        assert await is_leased(redis, entry)


async def test_confirm_fails_if_the_evaluation_was_erased_or_leased_while_suspended(
    ledger: Ledger, redis: Redis
) -> None:
    clock = Clock()
    leases = LeaseKeeper(ledger, clock)
    erased, lost, forgotten = [await accept_and_lease(ledger, str(uuid4())) for _ in range(3)]
    with leases.keep([erased, lost, forgotten]):
        clock.now += ledger.lease_seconds
        await expire(redis, erased, lost, forgotten)
        assert await ledger.erase(erased.eval_id)
        await ledger.lease([lost.eval_id, forgotten.eval_id], token="another's")
        for entry in (erased, lost):
            with pytest.raises(LeaseLost):
                await leases.confirm(entry)
        await leases.renew()
        with pytest.raises(LeaseLost):
            await leases.confirm(forgotten)


async def test_an_evaluation_that_is_leased_again_has_not_begun(ledger: Ledger, leases: LeaseKeeper) -> None:
    job = await accept_and_lease(ledger, str(uuid4()))
    with leases.keep([job]):
        assert leases.begin(job)
    with leases.keep([job]):
        assert leases.list_waiting() == [job.eval_id]


async def test_take_back_returns_only_evaluations_that_have_not_begun(ledger: Ledger, leases: LeaseKeeper) -> None:
    begun, waiting = [await accept_and_lease(ledger, str(uuid4())) for _ in range(2)]
    with leases.keep([begun, waiting]):
        assert leases.begin(begun)
        assert leases.list_waiting() == [waiting.eval_id]
        assert leases.take_back(begun.eval_id) is None
        assert leases.take_back(waiting.eval_id) is waiting
        assert not leases.begin(waiting)
        assert leases.list_waiting() == []


async def attempt(leases: LeaseKeeper, job: Job) -> None:
    with leases.attempt(job):
        await asyncio.sleep(60)


async def begin_attempt(leases: LeaseKeeper, job: Job) -> asyncio.Task[None]:
    working = asyncio.create_task(attempt(leases, job))
    await asyncio.sleep(0)
    return working


async def test_an_attempt_is_cancelled_when_its_lease_is_lost(
    ledger: Ledger, leases: LeaseKeeper, redis: Redis
) -> None:
    lost, kept = [await accept_and_lease(ledger, str(uuid4())) for _ in range(2)]
    with leases.keep([lost, kept]):
        working, other = [await begin_attempt(leases, job) for job in (lost, kept)]
        await redis.hdel("docv:ledger:entries", lost.eval_id)
        await leases.renew()
        with pytest.raises(LeaseLost):
            await working
        assert not other.done()
        other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await other


async def test_an_attempt_is_cancelled_when_redis_has_not_answered_for_a_lease(ledger: Ledger) -> None:
    clock = Clock()
    leases = LeaseKeeper(ledger, clock)
    job = await accept_and_lease(ledger, str(uuid4()))
    with leases.keep([job]):
        working = await begin_attempt(leases, job)
        clock.now += ledger.lease_seconds - 1
        leases.cancel_stale()
        await asyncio.sleep(0)
        assert not working.done()
        assert leases.is_fresh(job)
        clock.now += 1
        assert not leases.is_fresh(job)
        leases.cancel_stale()
        leases.cancel_stale()
        with pytest.raises(LeaseLost):
            await working


async def test_a_cancelled_attempt_raises_cancelled_error_even_if_its_lease_is_stale(ledger: Ledger) -> None:
    clock = Clock()
    leases = LeaseKeeper(ledger, clock)
    job = await accept_and_lease(ledger, str(uuid4()))
    with leases.keep([job]):
        working = await begin_attempt(leases, job)
        clock.now += ledger.lease_seconds
        leases.cancel_stale()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working


async def test_an_attempt_that_ended_is_not_cancelled_later(ledger: Ledger, leases: LeaseKeeper) -> None:
    job = await accept_and_lease(ledger, str(uuid4()))
    with leases.keep([job]):
        with leases.attempt(job):
            pass
        await ledger.complete(job, Outcome.ARCHIVED)
        await leases.renew()
        await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task
    assert task.cancelling() == 0


async def test_a_task_is_no_longer_cancelling_after_its_attempt_survived_a_cancellation(ledger: Ledger) -> None:
    clock = Clock()
    leases = LeaseKeeper(ledger, clock)
    job = await accept_and_lease(ledger, str(uuid4()))

    async def outlive() -> int:
        with leases.attempt(job), contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        task = asyncio.current_task()
        assert task
        return task.cancelling()

    with leases.keep([job]):
        working = asyncio.create_task(outlive())
        await asyncio.sleep(0)
        clock.now += ledger.lease_seconds
        leases.cancel_stale()
        assert await working == 0
