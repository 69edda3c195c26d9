"""Redis crashes, freezes, or cannot be reached while evaluations run."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from scripts.simulator.scenarios import LAYOUTS, Scenario, eval_id_for
from tests.aging import age_queued_evaluations
from tests.faults.check import FolderArchive, counters_match, examine
from tests.faults.cluster import Cluster, Worker, running_cluster
from tests.faults.proxy import proxy_to
from tests.faults.scale import Scale

_AGAIN_SECONDS = 10
_KINDS = (*LAYOUTS, Scenario.NO_DOCUMENTS, Scenario.ERROR_500_ONCE, Scenario.NOT_FOUND)
Figures = Callable[[str], None]


@asynccontextmanager
async def running_evaluations(
    cluster: Cluster, name: str, figures: Figures, scale: Scale, *, faults: int
) -> AsyncIterator[list[float]]:
    """Run two workers; after the block, all evaluations must have ended.

    The block appends the seconds that workers needed after each fault until they worked again.
    """
    began, total = time.monotonic(), (400 if scale.long else 100) * (faults + 1)
    eval_ids = [eval_id_for(_KINDS[number % len(_KINDS)], number) for number in range(total)]
    cluster.riskos.change(latency_ms=150, jitter_ms=100)
    cluster.settings["DOCV_LOG_LEVEL"] = "DEBUG"  # at this level, each received message is in the log
    await cluster.start_workers(2)
    await cluster.enqueue(eval_ids, run=name)
    pauses: list[float] = []
    yield pauses
    cluster.riskos.change(latency_ms=0, jitter_ms=0)
    if not scale.long:
        await age_queued_evaluations(cluster.client)
    counters = await cluster.wait_until_all_ended(name, total, seconds=150)
    result = await asyncio.to_thread(examine, FolderArchive(cluster.archive), eval_ids)
    seconds, longest = time.monotonic() - began, max(pauses)
    figures(f"Redis {name}, {faults}x: {result.sentence()}, at work again after {longest:.1f} s, {seconds:.0f} s")
    assert result.is_sound, result
    assert counters_match(eval_ids, counters), counters
    assert all(worker.is_alive for worker in cluster.workers)
    assert scale.allows(longest, most=_AGAIN_SECONDS)


async def wait_until_all_consume(cluster: Cluster, seconds: float = 75) -> float:
    """Wait until every worker has received another message; return how many seconds it took."""
    began = time.monotonic()
    stalled = {worker: worker.log.stat().st_size for worker in cluster.workers}
    while stalled:
        stalled = {worker: size for worker, size in stalled.items() if not has_received(worker, since=size)}
        assert time.monotonic() - began < seconds, (
            f"{len(stalled)} workers have stalled: {await cluster.ledger.get_stats()}"
        )
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def has_received(worker: Worker, *, since: int) -> bool:
    """Return whether a worker has received a message since its log had this length."""
    with worker.log.open("rb") as log:
        log.seek(since)
        return b" received" in log.read()


async def measure_recovery(cluster: Cluster, cause_fault: Callable[[], Awaitable[None]]) -> float:
    """Cause a fault while workers are busy; return the seconds from its end until all consume again."""
    await wait_until_all_consume(cluster)
    cluster.riskos.change(latency_ms=1_000)
    await asyncio.sleep(0.5)
    await cause_fault()
    cluster.riskos.change(latency_ms=150)
    return await wait_until_all_consume(cluster)


async def test_workers_consume_again_after_redis_crashed(scale: Scale, figures: Figures, tmp_path: Path) -> None:
    async with running_cluster(tmp_path / "stage") as cluster:

        async def crash() -> None:
            await cluster.redis.kill()
            await asyncio.sleep(scale.down)
            await cluster.redis.start()

        async with running_evaluations(cluster, "killed", figures, scale, faults=scale.crashes) as pauses:
            for _ in range(scale.crashes):
                pauses.append(await measure_recovery(cluster, crash))


async def test_workers_consume_again_after_redis_was_frozen(scale: Scale, figures: Figures, tmp_path: Path) -> None:
    async with running_cluster(tmp_path / "stage") as cluster:

        async def freeze() -> None:
            cluster.redis.freeze()
            await asyncio.sleep(scale.frozen)
            cluster.redis.thaw()

        async with running_evaluations(cluster, f"frozen-{scale.frozen}-s", figures, scale, faults=1) as pauses:
            pauses.append(await measure_recovery(cluster, freeze))


async def test_workers_consume_again_after_redis_could_not_be_reached(
    scale: Scale, figures: Figures, tmp_path: Path
) -> None:
    async with running_cluster(tmp_path / "stage") as cluster, proxy_to(cluster.redis.port) as proxy:
        cluster.settings["DOCV_REDIS_URL"] = f"redis://127.0.0.1:{proxy.port}/0"

        async def cut() -> None:
            proxy.cut()
            await asyncio.sleep(scale.cut)
            proxy.restore()

        async with running_evaluations(cluster, f"cut-{scale.cut}-s", figures, scale, faults=1) as pauses:
            pauses.append(await measure_recovery(cluster, cut))
