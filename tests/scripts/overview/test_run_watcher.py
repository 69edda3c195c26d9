import re
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from scripts.overview.run_snapshot import RunSnapshot
from scripts.overview.run_watcher import RunLost, Speed, check_run, watch_run
from tasks.ledger.counters import RunCounters
from tasks.ledger.ledger import Ledger
from tasks.ledger.worker_registry import WorkerRegistry, make_worker_name
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.model.outcome import Outcome

pytestmark = pytest.mark.both_redises


def test_speed_is_what_was_done_lately() -> None:
    speed = Speed(lately=10)
    assert speed.observe(100, 0.0) == 0
    assert speed.observe(120, 10.0) == pytest.approx(2)
    assert speed.observe(160, 15.0) == pytest.approx(8)  # the first is forgotten
    assert speed.observe(160, 60.0) == 0


async def test_an_observation_has_the_run_and_its_workers(redis: Redis, eval_id: str) -> None:
    ledger = Ledger(redis)
    await ledger.accept([eval_id], EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run="q3")))
    found = watch_run(redis, "q3", patience=0)
    first = await anext(found)
    assert (first.counters.pending, first.served, first.per_second) == (1, False, 0)

    await WorkerRegistry(redis).heartbeat("one", list(Queue))
    (entry,) = await ledger.lease([eval_id], token="one")
    await ledger.complete(entry, Outcome.ARCHIVED)
    second = await anext(found)
    assert second.done == 1
    await found.aclose()


def test_the_time_before_the_first_end_and_fewer_than_ten_ends_make_no_speed() -> None:
    speed = Speed(lately=30)
    for second in range(10):
        assert speed.observe(0, second) == 0  # the worker starts
    assert speed.observe(9, 10.0) == 0
    assert speed.observe(20, 11.0) == pytest.approx(10)


async def test_a_look_shows_when_the_last_parked_evaluation_of_a_run_is_due(redis: Redis, eval_id: str) -> None:
    ledger = Ledger(redis)
    for run, each, wait in (("q3", eval_id, 90), ("q4", str(uuid4()), 9_000)):
        await ledger.accept([each], EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run=run)))
        (job,) = await ledger.lease([each], token="one")
        await ledger.retry_later(job, wait=wait, attempts=1, failure=Failure("service_failed", "503"))
    found = watch_run(redis, "q3", patience=0)
    seen = await anext(found)
    assert seen.counters.active == 0
    assert 60 < seen.counters.last_due <= 90
    assert re.search(r"1 min \d+ s left$", seen.sentence())
    await found.aclose()


async def test_a_worker_that_is_just_starting_is_waited_for(redis: Redis) -> None:
    found = watch_run(redis, "q3", patience=1000)
    assert (await anext(found)).served
    await found.aclose()
    await WorkerRegistry(redis).heartbeat("one", list(Queue))
    found = watch_run(redis, "q3", patience=1000)
    assert (await anext(found)).served
    await found.aclose()


class Worker:
    """The worker of a command, which never starts completely."""

    pid = 4711

    def check(self, seen: RunSnapshot) -> None:
        """Find nothing wrong."""


async def test_the_own_worker_of_a_command_is_starting_until_it_is_registered(redis: Redis, eval_id: str) -> None:
    await Ledger(redis).accept([eval_id], EnqueueOptions(Queue.BACKFILL, "default", Trigger("run", run="q3")))
    workers, own, name = WorkerRegistry(redis), Worker(), make_worker_name(Worker.pid)
    found = watch_run(redis, "q3", worker=own, patience=0)
    assert (await anext(found)).sentence() == "the worker is starting"
    await workers.heartbeat(make_worker_name(47), [Queue.LIVE])
    assert (await anext(found)).is_worker_starting
    await workers.heartbeat(name, list(Queue))
    assert (await anext(found)).sentence() == "waiting for the first answer"
    await workers.deregister(name)  # as if it had sent no heartbeat for a while
    assert "no worker serves the backfill" in (await anext(found)).sentence()
    own.pid = 4712  # it died, and was started again
    assert (await anext(found)).sentence() == "the worker is starting"
    await found.aclose()


async def test_the_own_worker_of_a_command_is_not_waited_for_while_another_one_serves(redis: Redis) -> None:
    await WorkerRegistry(redis).heartbeat(make_worker_name(47), list(Queue))
    found = watch_run(redis, "q3", worker=Worker())
    assert not (await anext(found)).is_worker_starting
    await found.aclose()


@pytest.mark.parametrize("total", [0, 59])
def test_a_run_with_fewer_evaluations_than_it_began_with_is_lost(total: int) -> None:
    with pytest.raises(RunLost):
        check_run(RunCounters(total=total, outcomes={Outcome.ARCHIVED: total}), 60)


def test_a_run_that_has_grown_is_not_lost() -> None:
    check_run(RunCounters(total=61, outcomes={}), 60)
