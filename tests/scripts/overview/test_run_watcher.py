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


def test_speed_counts_only_recent_outcomes() -> None:
    speed = Speed(lately=10)
    assert speed.observe(100, 0.0) == 0
    assert speed.observe(120, 10.0) == pytest.approx(2)
    assert speed.observe(160, 15.0) == pytest.approx(8)  # the first observation is too old
    assert speed.observe(160, 60.0) == 0


async def test_a_snapshot_has_the_counters_of_the_run_and_whether_workers_serve_it(redis: Redis, eval_id: str) -> None:
    ledger = Ledger(redis)
    await ledger.accept([eval_id], EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run="q3")))
    snapshots = watch_run(redis, "q3", patience=0)
    first = await anext(snapshots)
    assert (first.counters.pending, first.served, first.per_second) == (1, False, 0)

    await WorkerRegistry(redis).heartbeat("one", list(Queue))
    (entry,) = await ledger.lease([eval_id], token="one")
    await ledger.complete(entry, Outcome.ARCHIVED)
    second = await anext(snapshots)
    assert second.done == 1
    await snapshots.aclose()


def test_speed_excludes_the_time_before_the_first_outcome_and_is_zero_below_ten_outcomes() -> None:
    speed = Speed(lately=30)
    for second in range(10):
        assert speed.observe(0, second) == 0  # the worker starts
    assert speed.observe(9, 10.0) == 0
    assert speed.observe(20, 11.0) == pytest.approx(10)


async def test_a_snapshot_shows_when_the_last_parked_evaluation_of_its_run_is_due(redis: Redis, eval_id: str) -> None:
    ledger = Ledger(redis)
    for run, each, wait in (("q3", eval_id, 90), ("q4", str(uuid4()), 9_000)):
        await ledger.accept([each], EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run=run)))
        (job,) = await ledger.lease([each], token="one")
        await ledger.retry_later(job, wait=wait, attempts=1, failure=Failure("service_failed", "503"))
    snapshots = watch_run(redis, "q3", patience=0)
    snapshot = await anext(snapshots)
    assert snapshot.counters.active == 0
    assert 60 < snapshot.counters.last_due <= 90
    assert re.search(r"1 min \d+ s left$", snapshot.sentence())
    await snapshots.aclose()


async def test_a_run_counts_as_served_while_its_worker_may_still_be_starting(redis: Redis) -> None:
    snapshots = watch_run(redis, "q3", patience=1000)
    assert (await anext(snapshots)).served
    await snapshots.aclose()
    await WorkerRegistry(redis).heartbeat("one", list(Queue))
    snapshots = watch_run(redis, "q3", patience=1000)
    assert (await anext(snapshots)).served
    await snapshots.aclose()


class Worker:
    """The worker of a command. It never finishes starting."""

    pid = 4711

    def check(self, seen: RunSnapshot) -> None:
        """Report no problem."""


async def test_the_worker_of_a_command_is_starting_until_it_is_registered(redis: Redis, eval_id: str) -> None:
    await Ledger(redis).accept([eval_id], EnqueueOptions(Queue.BACKFILL, "default", Trigger("run", run="q3")))
    workers, command_worker, name = WorkerRegistry(redis), Worker(), make_worker_name(Worker.pid)
    snapshots = watch_run(redis, "q3", worker=command_worker, patience=0)
    assert (await anext(snapshots)).sentence() == "the worker is starting"
    await workers.heartbeat(make_worker_name(47), [Queue.LIVE])
    assert (await anext(snapshots)).is_worker_starting
    await workers.heartbeat(name, list(Queue))
    assert (await anext(snapshots)).sentence() == "waiting for the first answer"
    await workers.deregister(name)  # as if its heartbeats had stopped
    assert "no worker serves the backfill" in (await anext(snapshots)).sentence()
    command_worker.pid = 4712  # it died and was restarted
    assert (await anext(snapshots)).sentence() == "the worker is starting"
    await snapshots.aclose()


async def test_the_worker_of_a_command_is_not_starting_while_another_worker_serves_the_run(redis: Redis) -> None:
    await WorkerRegistry(redis).heartbeat(make_worker_name(47), list(Queue))
    snapshots = watch_run(redis, "q3", worker=Worker())
    assert not (await anext(snapshots)).is_worker_starting
    await snapshots.aclose()


@pytest.mark.parametrize("total", [0, 59])
def test_a_run_with_fewer_evaluations_than_it_began_with_is_lost(total: int) -> None:
    with pytest.raises(RunLost):
        check_run(RunCounters(total=total, outcomes={Outcome.ARCHIVED: total}), 60)


def test_a_run_that_has_grown_is_not_lost() -> None:
    check_run(RunCounters(total=61, outcomes={}), 60)
