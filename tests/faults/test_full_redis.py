"""Redis is full: it accepts nothing more, and accepted evaluations still end."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from scripts.simulator.scenarios import Scenario, eval_id_for
from tasks.model.outcome import Outcome
from tests.commands import Finished, Shell
from tests.faults.check import FolderArchive, examine
from tests.faults.cluster import Cluster, running_cluster
from tests.faults.scale import Scale
from tests.faults.watching import count_lost_attempts, wait_until_half_ended

_RUN = "full"


def evaluations(count: int) -> list[str]:
    return [eval_id_for(Scenario.PASSPORT, number) for number in range(count)]


async def fill(cluster: Cluster, eval_ids: list[str], free_bytes: int) -> Finished:
    """Leave Redis only this much memory, possibly less than it uses, and enqueue more than fits."""
    used = (await cluster.client.info("memory"))["used_memory"]
    await cluster.client.config_set("maxmemory", used + free_bytes)
    return await enqueue(cluster, eval_ids)


async def enqueue(cluster: Cluster, eval_ids: list[str]) -> Finished:
    shell = Shell(cluster.folder, cluster.settings)
    return await shell.run("enqueue", "-", "--queue", "backfill", "--run", _RUN, given="\n".join(eval_ids))


async def test_a_full_redis_accepts_nothing_more_and_accepted_evaluations_end(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    # A thousand are accepted at a time. The script itself, and the client, take some 300 kB.
    eval_ids, free_bytes = evaluations(20_000 if scale.long else 1_300), 8_000_000 if scale.long else 500_000
    async with running_cluster(tmp_path / "stage", DOCV_ATTEMPTS="3") as cluster:
        began = time.monotonic()
        refusal = await fill(cluster, eval_ids, free_bytes)
        accepted = (await cluster.ledger.runs.get_counters(_RUN)).total
        # Redis has no memory even for the names of its queues; only finished work frees some.
        await cluster.start_workers(2)
        await cluster.wait_until_all_ended(_RUN, accepted, 600)
        lost, alive = await count_lost_attempts(cluster), [worker.is_alive for worker in cluster.workers]
        await cluster.client.config_set("maxmemory", 0)
        again = await enqueue(cluster, eval_ids)
        counters = await cluster.wait_until_all_ended(_RUN, len(eval_ids), 600)
        seconds = time.monotonic() - began
        result = await asyncio.to_thread(examine, FolderArchive(cluster.archive), eval_ids)
    figures(
        f"Redis is full: {accepted:,} of {len(eval_ids):,} accepted, exit code {refusal.code}; workers end "
        f"these while it is full; with more memory {result.sentence()}, attempts lost {lost}, {seconds:.0f} s"
    )
    assert (refusal.code, refusal.out) == (3, "")
    assert refusal.err.startswith("docv-archive: Redis is full: nothing more is accepted")
    assert refusal.err.count("\n") == 1
    assert 0 < accepted < len(eval_ids)
    assert (alive, lost) == ([True, True], 0)
    assert again.code == 0, again.err
    assert result.is_sound, result
    assert counters.outcomes[Outcome.FAILED] == 0


async def test_a_busy_worker_keeps_working_while_redis_is_full(tmp_path: Path) -> None:
    async with running_cluster(tmp_path / "stage") as cluster:
        await cluster.start_workers(2)
        await cluster.enqueue(evaluations(300), run=_RUN)
        await wait_until_half_ended(cluster, _RUN, 100)
        await cluster.client.config_set("maxmemory", 1)
        await cluster.wait_until_all_ended(_RUN, 300)
        assert all(worker.is_alive for worker in cluster.workers)
