"""Workers are killed at random moments: with a ledger, no evaluation is lost; without one, some are."""

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.simulator.scenarios import LAYOUTS, Scenario, eval_id_for
from tasks.queueing.publisher import count_backlog
from tests.aging import age_queued_evaluations
from tests.faults import without_ledger
from tests.faults.check import FolderArchive, counters_match, examine
from tests.faults.cluster import Cluster, running_cluster
from tests.faults.killing import kill_repeatedly
from tests.faults.scale import Scale

# Most of them are quick, so that kills hit many beginnings and ends instead of a few long transfers.
_MIX = (Scenario.PASSPORT, Scenario.NO_DOCUMENTS, Scenario.NO_DOCUMENTS_NESTED, Scenario.NOT_FOUND)


def evaluations(count: int) -> list[str]:
    others = (Scenario.ERROR_500_ONCE, Scenario.DAMAGED_ALWAYS, Scenario.REJECTED, *LAYOUTS)
    kinds = [others[number // 10 % len(others)] if number % 10 == 0 else _MIX[number % 4] for number in range(count)]
    return [eval_id_for(kind, number) for number, kind in enumerate(kinds)]


async def test_no_evaluation_is_lost_incomplete_or_wrong_when_workers_are_killed(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    began, eval_ids = time.monotonic(), evaluations(scale.evaluations)
    async with running_cluster(tmp_path / "stage", DOCV_LEASE_SECONDS="2") as cluster:
        workers = await cluster.start_workers(2)
        await cluster.enqueue(eval_ids, run="killed")
        await kill_repeatedly(
            cluster,
            workers,
            kills=scale.kills,
            total=len(eval_ids),
            ended=lambda: cluster.count_ended("killed"),
            dice=random.Random(7),  # noqa: S311  # not a secret
        )
        if not scale.long:
            await age_queued_evaluations(cluster.client)
        counters = await cluster.wait_until_all_ended("killed", len(eval_ids), seconds=90)
        result = await asyncio.to_thread(examine, FolderArchive(cluster.archive), eval_ids)
        seconds = time.monotonic() - began
    figures(f"SIGKILL: {scale.kills} kills, {result.sentence()}, {seconds:.0f} s ({counters.sentence()})")
    assert result.is_sound, result
    assert counters_match(eval_ids, counters), counters


async def test_the_same_kills_lose_evaluations_without_a_ledger(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    if not scale.long:
        pytest.skip("the losses are random: only the long form measures them")
    began, eval_ids = time.monotonic(), evaluations(scale.evaluations)
    async with running_cluster(tmp_path / "stage") as cluster:
        downloaded = cluster.folder / "downloaded"
        workers = await cluster.start_workers(2, *without_ledger.COMMAND)
        await asyncio.to_thread(publish, cluster, eval_ids)
        await kill_repeatedly(
            cluster,
            workers,
            *without_ledger.COMMAND,
            kills=scale.kills,
            total=len(eval_ids),
            ended=lambda: count(downloaded),
            dice=random.Random(7),  # noqa: S311  # not a secret
        )
        await wait_until_queue_is_empty(cluster)
        lost = len(eval_ids) - await count(downloaded)
        seconds = time.monotonic() - began
    figures(
        f"SIGKILL without a ledger: {scale.kills} kills, {len(eval_ids):,} evaluations, lost {lost}, {seconds:.0f} s"
    )


def publish(cluster: Cluster, eval_ids: list[str]) -> None:
    """Send each evaluation in its own message."""
    app = without_ledger.application(cluster.redis.url)
    with app.connection_for_write() as connection, connection.Producer(auto_declare=False) as producer:
        for eval_id in eval_ids:
            app.send_task(without_ledger.DOWNLOAD_TASK, args=[eval_id], producer=producer)
    app.close()


async def count(folder: Path) -> int:
    """Return how many files are in a folder."""
    return await asyncio.to_thread(lambda: len(list(folder.iterdir())) if folder.is_dir() else 0)


async def wait_until_queue_is_empty(cluster: Cluster) -> None:
    """Wait until no message has been queued or unacknowledged for longer than a redelivery takes."""
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < 2 * without_ledger.VISIBILITY_SECONDS:
        messages = await count_backlog(cluster.client)
        if messages.unacknowledged or sum(messages.waiting.values()):
            quiet_since = time.monotonic()
        await asyncio.sleep(0.2)
