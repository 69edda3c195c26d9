import pytest
from redis.asyncio import Redis

from scripts.overview.run_watcher import Speed, watch_run
from tasks.ledger.ledger import Ledger
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.model.outcome import Outcome

pytestmark = pytest.mark.both_redises


def test_speed_is_what_was_done_lately() -> None:
    speed = Speed(lately=10)
    assert speed.observe(100, 0.0) == 0
    assert speed.observe(120, 10.0) == pytest.approx(2)
    assert speed.observe(160, 15.0) == pytest.approx(8)  # the first is forgotten
    assert speed.observe(160, 60.0) == 0


async def test_a_look_shows_a_run_and_who_works_on_it(redis: Redis, eval_id: str) -> None:
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
    assert second.per_second > 0
    await found.aclose()


async def test_a_worker_that_is_just_starting_is_waited_for(redis: Redis) -> None:
    found = watch_run(redis, "q3", patience=1000)
    assert (await anext(found)).served
    await found.aclose()
    await WorkerRegistry(redis).heartbeat("one", list(Queue))
    found = watch_run(redis, "q3", patience=1000)
    assert (await anext(found)).served
    await found.aclose()
