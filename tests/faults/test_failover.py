"""The primary of a watched Redis dies, and its replica takes over, while evaluations run."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.simulator.scenarios import LAYOUTS, Scenario, eval_id_for
from tasks.ledger.script import NotReplicated
from tests.aging import age_queued_evaluations
from tests.faults.check import FolderArchive, counters_match, examine
from tests.faults.cluster import running_cluster
from tests.faults.redis_server import SentinelRedis
from tests.faults.scale import Scale

_KINDS = (*LAYOUTS, Scenario.NO_DOCUMENTS, Scenario.NOT_FOUND)


async def test_accepted_evaluations_are_archived_when_the_primary_dies(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    total = 2_000 if scale.long else 200
    eval_ids = [eval_id_for(_KINDS[number % len(_KINDS)], number) for number in range(total)]
    alone = [eval_id_for(Scenario.DOCUMENTED, total)]
    async with running_cluster(tmp_path / "stage", watched=True, DOCV_REDIS_REPLICAS="1") as cluster:
        redis = cluster.redis
        assert isinstance(redis, SentinelRedis)
        cluster.riskos.change(latency_ms=150, jitter_ms=100)
        await cluster.start_workers(2)
        await cluster.enqueue(eval_ids, run="failover")
        while await cluster.count_ended("failover") < total // 10:
            await asyncio.sleep(0.02)

        began = time.monotonic()
        await redis.first.kill()
        before = await cluster.count_ended("failover")
        while await cluster.count_ended("failover") <= max(before, total // 10):
            assert time.monotonic() - began < 60, "no worker continues"
            await asyncio.sleep(0.05)
        pause = time.monotonic() - began
        with pytest.raises(NotReplicated, match="0 of 1 replicas"):
            await cluster.enqueue(alone, run="alone")

        await redis.bring_back_first()
        await cluster.enqueue(alone, run="alone")
        await age_queued_evaluations(cluster.client)
        counters = await cluster.wait_until_all_ended("failover", total, seconds=90)
        await cluster.wait_until_all_ended("alone", 1)
        result = await asyncio.to_thread(examine, FolderArchive(cluster.archive), eval_ids + alone)
    figures(f"Redis failed over: {result.sentence()}, at work again {pause:.1f} s after the crash")
    assert result.is_sound, result
    assert counters_match(eval_ids, counters), counters
