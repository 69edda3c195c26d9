"""The same evaluations are requested again and again, at the same time, and by workers whose clocks disagree."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from pydantic import SecretStr

from scripts.simulator.scenarios import LAYOUTS, Scenario, eval_id_for
from tasks.ledger.counters import RunCounters
from tasks.model.job import Queue
from tasks.model.outcome import Outcome
from tasks.queueing.message import MAX_BATCH
from tasks.resilience.holds import Holds
from tests.clocks import MovableClock
from tests.faults.check import FolderArchive, counters_match, examine
from tests.faults.cluster import Cluster, Worker, running_cluster
from tests.faults.in_process_s3 import in_process_s3
from tests.faults.scale import Scale
from worker.app import make_publishing_app
from worker.broker.envelope import ARCHIVE_TASK
from worker.config.settings import Settings

_KINDS = (*LAYOUTS, Scenario.NO_DOCUMENTS, Scenario.NOT_FOUND)
_APART_SECONDS = 300
# A lease that ends because the machine is busy would count as a second request.
_LONG_LEASE = {"DOCV_LEASE_SECONDS": "60"}


def evaluations(numbers: range) -> list[str]:
    return [eval_id_for(_KINDS[number % len(_KINDS)], number) for number in numbers]


def send_with_celery_only(cluster: Cluster, eval_ids: Sequence[str], run: str) -> None:
    """Send messages like a producer that has only Celery."""
    app = make_publishing_app(Settings(redis_url=SecretStr(cluster.redis.url)))
    with contextlib.closing(app):
        for start in range(0, len(eval_ids), MAX_BATCH):
            some = list(eval_ids[start : start + MAX_BATCH])
            app.send_task(ARCHIVE_TASK, kwargs={"eval_ids": some, "run": run}, queue="backfill")


async def test_an_evaluation_is_archived_once_when_it_is_requested_three_times_at_once(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    eval_ids = evaluations(range(500 if scale.long else 100))
    async with in_process_s3() as s3, running_cluster(tmp_path / "stage", **s3.settings, **_LONG_LEASE) as cluster:
        await cluster.start_workers(2)
        await asyncio.gather(
            cluster.enqueue(eval_ids, run="live"),
            cluster.enqueue(eval_ids, run="backfill", queue=Queue.BACKFILL),
            asyncio.to_thread(send_with_celery_only, cluster, eval_ids, "bare"),
        )
        runs = [await cluster.wait_until_all_ended(run, len(eval_ids)) for run in ("live", "backfill", "bare")]
        result, requests = examine(s3, eval_ids), cluster.riskos.stats().by_evaluation
    written = Counter(
        request.path for request in s3.server.requests if request.method == "PUT" and "/probe/" not in request.path
    )
    twice = [path for path, count in written.items() if count > 1]
    most, unchanged = max(requests.values()), sum(run.outcomes[Outcome.UNCHANGED] for run in runs)
    figures(
        f"{len(eval_ids)} IDs three times at once: {result.sentence()}, requests for each {most}, "
        f"objects written twice {len(twice)}, unnamed {len(result.unexpected)}, unchanged {unchanged}"
    )
    assert result.is_sound, result
    assert requests == dict.fromkeys(eval_ids, 1)
    assert twice == []
    assert all(counters_match(eval_ids, run) for run in runs), runs


async def start_with_wrong_clock(cluster: Cluster, seconds: float) -> Worker:
    """Start a worker on a machine whose clock is wrong by this much."""
    wrong_clock = MovableClock(cluster.folder / "clock")
    wrong_clock.move(seconds)
    return await cluster.start_worker_with_clock(wrong_clock)


@pytest.mark.needs("faketime")
@pytest.mark.parametrize("apart", [_APART_SECONDS, -_APART_SECONDS])
async def test_two_runs_of_the_same_evaluations_count_correctly_when_clocks_disagree(
    apart: float, scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    if apart < 0 and not scale.long:
        pytest.skip("the clock ahead is the harder case; the long form has both")
    size = 500 if scale.long else 100
    runs = {"one": evaluations(range(size)), "two": evaluations(range(size // 2, size + size // 2))}
    eval_ids = sorted({eval_id for some in runs.values() for eval_id in some})
    async with running_cluster(tmp_path / "stage", DOCV_RATE="100", **_LONG_LEASE) as cluster:
        cluster.riskos.change(rate=50)
        here, elsewhere = await cluster.start_worker(), await start_with_wrong_clock(cluster, apart)
        await cluster.wait_until_ready(here)
        began = time.monotonic()
        await asyncio.gather(
            *(
                cluster.enqueue(some, run=run, queue=queue)
                for (run, some), queue in zip(runs.items(), Queue, strict=True)
            )
        )
        counters: dict[str, RunCounters] = {
            run: await cluster.wait_until_all_ended(run, len(some)) for run, some in runs.items()
        }
        seconds = time.monotonic() - began
        result = await asyncio.to_thread(examine, FolderArchive(cluster.archive), eval_ids)
        clocks = (here.clock(), elsewhere.clock())
        stats = cluster.riskos.stats()
        requests, granted = stats.by_evaluation, stats.granted - stats.records
    figures(
        f"two runs over {len(eval_ids)} IDs, clocks {clocks[1] - clocks[0]:+.0f} s apart: {result.sentence()}, "
        f"{seconds:.1f} s, {granted} requests granted ({'; '.join(run.sentence() for run in counters.values())})"
    )
    assert result.is_sound, result
    assert all(counters_match(some, counters[run]) for run, some in runs.items()), counters
    assert requests.keys() == set(eval_ids)
    assert granted == len(eval_ids)
    assert clocks == pytest.approx((0, apart), abs=5)
    assert scale.allows(seconds, most=60)


@pytest.mark.needs("faketime")
async def test_a_short_wait_stays_short_when_a_clock_is_slow(tmp_path: Path) -> None:
    async with running_cluster(tmp_path / "stage") as cluster:
        await start_with_wrong_clock(cluster, -_APART_SECONDS)
        await cluster.enqueue([eval_id_for(Scenario.RATE_LIMITED_DATE, 1)], run="late")
        await cluster.wait_until(lambda: cluster.riskos.stats().requests > 0)
        await asyncio.sleep(0.5)
        hold = await Holds(cluster.client).get("default")
        assert hold is None or hold.remaining < _APART_SECONDS / 2, hold
