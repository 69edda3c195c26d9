"""Redis is full: nothing more is accepted, and what was accepted goes on to its end."""

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
from tests.faults.watching import charged, half_done

_RUN = "full"


def evaluations(count: int) -> list[str]:
    return [eval_id_for(Scenario.PASSPORT, number) for number in range(count)]


async def fill(cluster: Cluster, eval_ids: list[str], room: int) -> Finished:
    """Leave Redis only so much room, which may be less than it uses, and enqueue more than there is room for."""
    used = (await cluster.client.info("memory"))["used_memory"]
    await cluster.client.config_set("maxmemory", used + room)
    return await enqueue(cluster, eval_ids)


async def enqueue(cluster: Cluster, eval_ids: list[str]) -> Finished:
    shell = Shell(cluster.folder, cluster.settings)
    return await shell.run("enqueue", "-", "--queue", "backfill", "--run", _RUN, given="\n".join(eval_ids))


async def test_a_full_redis_takes_no_more_and_what_it_took_comes_to_its_end(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    eval_ids, room = evaluations(20_000 if scale.long else 1_200), 8_000_000 if scale.long else 300_000
    async with running_cluster(tmp_path / "stage", DOCV_ATTEMPTS="3") as cluster:
        began = time.monotonic()
        refusal = await fill(cluster, eval_ids, room)
        accepted = (await cluster.ledger.get_run(_RUN)).total
        # Not even to remember which queues there are has Redis room; only work can make some.
        await cluster.start_workers(2)
        await cluster.wait_until_all_ended(_RUN, accepted, 150)
        burnt, alive = await charged(cluster), [worker.alive for worker in cluster.workers]
        await cluster.client.config_set("maxmemory", 0)
        again = await enqueue(cluster, eval_ids)
        counters = await cluster.wait_until_all_ended(_RUN, len(eval_ids), 150)
        seconds = time.monotonic() - began
        result = await asyncio.to_thread(examine, FolderArchive(cluster.archive), eval_ids)
    figures(
        f"Redis is full: {accepted:,} of {len(eval_ids):,} accepted, exit code {refusal.code}; workers bring these to "
        f"their end while it is full; with more room {result.sentence()}, attempts burnt {burnt}, {seconds:.0f} s"
    )
    assert (refusal.code, refusal.out) == (3, "")
    assert refusal.err.startswith("docv-archive: Redis is full: nothing more is accepted")
    assert refusal.err.count("\n") == 1
    assert 0 < accepted < len(eval_ids)
    assert (alive, burnt) == ([True, True], 0)
    assert again.code == 0, again.err
    assert result.sound, result
    assert counters.outcomes[Outcome.FAILED] == 0


async def test_a_worker_at_work_goes_on_while_redis_is_full(tmp_path: Path) -> None:
    async with running_cluster(tmp_path / "stage") as cluster:
        await cluster.start_workers(2)
        await cluster.enqueue(evaluations(300), run=_RUN)
        await half_done(cluster, _RUN, 100)
        await cluster.client.config_set("maxmemory", 1)
        await cluster.wait_until_all_ended(_RUN, 300)
        assert all(worker.alive for worker in cluster.workers)
