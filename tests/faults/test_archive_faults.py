"""The bucket fails for all evaluations: none ends as archived without its objects, and none loses an attempt."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from scripts.simulator.scenarios import Scenario, eval_id_for
from tasks.model.job import Queue
from tasks.model.outcome import Outcome
from tasks.resilience.holds import ARCHIVE, Reason
from tests.faults.check import examine
from tests.faults.cluster import Cluster, running_cluster
from tests.faults.in_process_s3 import OwnS3, find_broken_manifests, in_process_s3
from tests.faults.scale import Scale
from tests.faults.watching import count_lost_attempts, wait_until_half_ended, wait_until_held, wait_until_released
from tests.riskos import S3State

_RUN = "fault"
_REASONS = (Reason.CANNOT_READ, Reason.CANNOT_WRITE)


def evaluations(count: int) -> list[str]:
    return [eval_id_for(Scenario.PASSPORT, number) for number in range(count)]


@asynccontextmanager
async def half_archived(eval_ids: list[str], folder: Path) -> AsyncIterator[tuple[Cluster, OwnS3]]:
    """Start two workers and an S3, and wait until half of the evaluations are archived."""
    async with (
        in_process_s3() as s3,
        running_cluster(folder / "stage", DOCV_RATE="150", DOCV_RETRY_SECONDS="5", **s3.settings) as cluster,
    ):
        await cluster.start_workers(2)
        await cluster.enqueue(eval_ids, run=_RUN, queue=Queue.BACKFILL)
        await wait_until_half_ended(cluster, _RUN, len(eval_ids))
        yield cluster, s3


async def test_no_evaluation_or_attempt_is_lost_when_a_bucket_is_down_and_then_slow(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    eval_ids = evaluations(1000 if scale.long else 300)
    async with half_archived(eval_ids, tmp_path) as (cluster, s3):
        began, s3.scripted_s3.state = time.monotonic(), S3State.DOWN
        await wait_until_held(cluster, *_REASONS, scope=ARCHIVE)
        noticed = time.monotonic() - began
        await asyncio.sleep(scale.outage / 2)
        broken_meanwhile = find_broken_manifests(s3)
        await asyncio.sleep(scale.outage / 2)
        lost = await count_lost_attempts(cluster)
        s3.scripted_s3.state = S3State.SLOW
        await asyncio.sleep(scale.outage / 2)
        lasted = time.monotonic() - began
        fixed_at, s3.scripted_s3.state = time.monotonic(), S3State.FINE
        await wait_until_released(cluster, ARCHIVE, seconds=2 * lasted + 10)
        probed = time.monotonic() - fixed_at
        counters = await cluster.wait_until_all_ended(_RUN, len(eval_ids), seconds=90)
        seconds, result = time.monotonic() - fixed_at, examine(s3, eval_ids)
        half = [*broken_meanwhile, *find_broken_manifests(s3)]
    figures(
        f"bucket down for {lasted:.0f} s: {result.sentence()}, manifests without their objects {len(half)}, attempts "
        f"lost {lost}, dead letters {counters.outcomes[Outcome.FAILED]}; on hold after {noticed:.1f} s, released "
        f"{probed:.1f} s after its end, all done after {seconds:.1f} s"
    )
    assert result.is_sound, result
    assert half == []
    assert counters.outcomes[Outcome.FAILED] == 0
    assert lost == 0


@pytest.mark.parametrize("state", [S3State.READ_ONLY, S3State.GONE, S3State.EXPIRED, S3State.SKEWED])
async def test_workers_wait_when_a_bucket_refuses_all_requests(
    state: S3State, scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    if state is not S3State.EXPIRED and not scale.long:
        pytest.skip("workers handle it like the others; only the long form tries it")
    eval_ids = evaluations(1000 if scale.long else 200)
    async with half_archived(eval_ids, tmp_path) as (cluster, s3):
        began, s3.scripted_s3.state = time.monotonic(), state
        await wait_until_held(cluster, *_REASONS, scope=ARCHIVE)
        noticed = time.monotonic() - began
        await asyncio.sleep(scale.outage)
        lasted, broken_meanwhile, lost = (
            time.monotonic() - began,
            find_broken_manifests(s3),
            await count_lost_attempts(cluster),
        )
        fixed_at, s3.scripted_s3.state = time.monotonic(), S3State.FINE
        counters = await cluster.wait_until_all_ended(_RUN, len(eval_ids), seconds=2 * lasted + 60)
        seconds, result = time.monotonic() - fixed_at, examine(s3, eval_ids)
    figures(
        f"bucket {state.name.lower()} for {lasted:.0f} s: {result.sentence()}, attempts lost {lost}, dead letters "
        f"{counters.outcomes[Outcome.FAILED]}; on hold after {noticed:.1f} s, all done {seconds:.1f} s after its end"
    )
    assert result.is_sound, result
    assert broken_meanwhile == []
    assert counters.outcomes[Outcome.FAILED] == 0
    assert lost == 0
