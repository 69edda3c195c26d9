"""The clocks of Redis and of the workers are set by up to two hours while evaluations run."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from scripts.simulator.scenarios import LAYOUTS, Scenario, eval_id_for
from tests.aging import age_queued_evaluations
from tests.clocks import MovableClock
from tests.faults.check import FolderArchive, counters_match, examine
from tests.faults.cluster import Cluster, running_cluster
from tests.faults.scale import Scale

_KINDS = (*LAYOUTS, Scenario.NO_DOCUMENTS, Scenario.ERROR_500_ONCE, Scenario.NOT_FOUND)
_HOUR = 3600.0
_RATE = 100
_AGAIN_SECONDS = 10.0
_EVALUATIONS_PER_MOVE = 30
# The clocks that are set, and how many seconds they are then ahead of the right time.
_SHORT = [("redis", 2 * _HOUR), ("workers", -2 * _HOUR), ("redis", -2 * _HOUR), ("workers", 2 * _HOUR)]
_LONG = [
    (owner, hours * _HOUR)
    for hours in (-2, -1, -0.01, 0.01, 1, 2, -2, 2, 0)
    for owner in ("redis", "workers", "redis", "workers")
]


@pytest.mark.needs("faketime")
async def test_evaluations_continue_when_clocks_are_set(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    clocks = {owner: MovableClock(tmp_path / owner) for owner in ("redis", "workers")}
    moves = _LONG if scale.long else _SHORT
    total = len(moves) * _EVALUATIONS_PER_MOVE
    eval_ids = [eval_id_for(_KINDS[number % len(_KINDS)], number) for number in range(total)]
    async with running_cluster(tmp_path / "stage", redis_clock=clocks["redis"], DOCV_RATE=str(_RATE)) as cluster:
        # At this level, a worker writes a line with the time for each request.
        cluster.settings = {**cluster.settings, "DOCV_LOG_LEVEL": "DEBUG"}
        workers = [await cluster.start_worker_with_clock(clocks["workers"]) for _ in range(2)]
        pauses = []
        spare = itertools.count(total)
        for number, (owner, seconds) in enumerate(moves):
            some = eval_ids[number * _EVALUATIONS_PER_MOVE :][:_EVALUATIONS_PER_MOVE]
            await cluster.enqueue(some[: len(some) // 2], run="clocks")
            clocks[owner].move(seconds)
            pauses.append(await wait_until_requests_continue(cluster, owner, seconds, some[len(some) // 2 :], spare))
            if number % 4 == 2:
                # No worker extends these leases any more: they must expire although the clock was set.
                await cluster.kill(workers.pop(0))
                workers.append(await cluster.start_worker_with_clock(clocks["workers"]))
        if not scale.long:
            await age_queued_evaluations(cluster.client)
        counters = await cluster.wait_until_all_ended("clocks", total, seconds=150)
        spares = [eval_id_for(Scenario.FLAT, number) for number in range(total, next(spare))]
        await cluster.wait_until_all_ended("spare", len(spares))
        result = await asyncio.to_thread(examine, FolderArchive(cluster.archive), eval_ids + spares)
    figures(f"clocks set {len(moves)} times: {result.sentence()}, at work again after {max(pauses):.1f} s at most")
    assert result.is_sound, result
    assert counters_match(eval_ids, counters), counters
    assert scale.allows(max(pauses), most=_AGAIN_SECONDS), pauses


async def wait_until_requests_continue(
    cluster: Cluster, owner: str, ahead: float, eval_ids: Sequence[str], spare: Iterator[int]
) -> float:
    """Wait until a clock is this far ahead, enqueue evaluations, and wait until a worker requests one of them.

    Meanwhile, spare evaluations keep the workers busy: an idle worker writes no time into its log.

    Returns:
        how many seconds it took.
    """
    began = time.monotonic()
    while abs(await measure_clock(owner, cluster) - ahead) > 60:
        assert time.monotonic() - began < 60, f"the clock of {owner} was not moved"
        await cluster.enqueue([eval_id_for(Scenario.FLAT, next(spare))], run="spare")
        await asyncio.sleep(0.2)
    await cluster.enqueue(eval_ids, run="clocks")
    await cluster.wait_until(lambda: not cluster.riskos.stats().by_evaluation.keys().isdisjoint(eval_ids))
    return time.monotonic() - began


async def measure_clock(owner: str, cluster: Cluster) -> float:
    """Return how many seconds a clock is ahead of the real one; of workers, that of the latest log line."""
    if owner == "redis":
        seconds, _ = await cluster.client.time()
        return float(seconds) - time.time()
    ready = [worker for worker in cluster.workers if worker.is_ready]
    return max(ready, key=lambda worker: worker.log.stat().st_mtime).clock()
