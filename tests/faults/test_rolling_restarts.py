"""Every worker is stopped and replaced, again and again, while evaluations run."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from scripts.simulator.scenarios import LAYOUTS, eval_id_for
from tests.faults.check import FolderArchive, counters_match, examine
from tests.faults.cluster import running_cluster
from tests.faults.scale import Scale

_DRAIN_SECONDS = 3
_EVALUATIONS_PER_WORKER = 60


async def test_a_rolling_restart_loses_nothing_and_does_not_wait_for_leases(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    began, total = time.monotonic(), 2 * _EVALUATIONS_PER_WORKER * (scale.restarts + 1)
    eval_ids = [eval_id_for(LAYOUTS[number % len(LAYOUTS)], number) for number in range(total)]
    exits: list[float] = []
    # The test would fail if it had to wait for a lease to expire.
    async with running_cluster(
        tmp_path / "stage", DOCV_LEASE_SECONDS="600", DOCV_DRAIN_SECONDS=str(_DRAIN_SECONDS)
    ) as cluster:
        cluster.riskos.change(latency_ms=300, jitter_ms=200)
        workers = await cluster.start_workers(2)
        await cluster.enqueue(eval_ids, run="rolling")
        for _ in range(scale.restarts):
            for index, old in enumerate(workers):
                before = cluster.riskos.stats().requests
                await cluster.wait_until(lambda before=before: cluster.riskos.stats().requests > before)
                exits.append(await cluster.terminate(old))
                assert old.process.returncode == 0, old.log.read_text()
                workers[index] = await cluster.start_worker()
                await cluster.wait_until_ready(workers[index])
        remaining = total - await cluster.count_ended("rolling")
        last = time.monotonic()
        counters = await cluster.wait_until_all_ended("rolling", total, seconds=60)
        rest = time.monotonic() - last
        result = await asyncio.to_thread(examine, FolderArchive(cluster.archive), eval_ids)
        requests = cluster.riskos.stats().requests
        seconds = time.monotonic() - began
    figures(
        f"SIGTERM: {len(exits)} restarts, {result.sentence()}, slowest exit {max(exits):.1f} s, "
        f"{requests - total} requests twice, the last {remaining} took {rest:.1f} s, {seconds:.0f} s"
    )
    assert result.is_sound, result
    assert counters_match(eval_ids, counters), counters
    assert scale.allows(max(exits), most=_DRAIN_SECONDS + 10), exits
    assert scale.allows(rest, most=45), "a lost message is sent again after a minute"
