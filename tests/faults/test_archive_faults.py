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
from tests.faults.own_s3 import OwnS3, find_broken_manifests, own_s3
from tests.faults.scale import Scale
from tests.faults.watching import count_lost_attempts, wait_until_half_ended, wait_until_held, wait_until_released
from tests.riskos import Mood

_RUN = "fault"
_REASONS = (Reason.CANNOT_READ, Reason.CANNOT_WRITE)


def evaluations(count: int) -> list[str]:
    return [eval_id_for(Scenario.PASSPORT, number) for number in range(count)]


@asynccontextmanager
async def half_archived(eval_ids: list[str], folder: Path) -> AsyncIterator[tuple[Cluster, OwnS3]]:
    """Start two workers and an S3, and wait until half of the evaluations are archived."""
    async with (
        own_s3() as s3,
        running_cluster(folder / "stage", DOCV_RATE="150", DOCV_RETRY_SECONDS="5", **s3.settings) as cluster,
    ):
        await cluster.start_workers(2)
        await cluster.enqueue(eval_ids, run=_RUN, queue=Queue.BACKFILL)
        await wait_until_half_ended(cluster, _RUN, len(eval_ids))
        yield cluster, s3


async def test_nothing_is_lost_or_charged_when_a_bucket_is_down_and_then_slow(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    eval_ids = evaluations(1000 if scale.long else 300)
    async with half_archived(eval_ids, tmp_path) as (cluster, s3):
        began, s3.wilful.mood = time.monotonic(), Mood.DOWN
        await wait_until_held(cluster, *_REASONS, scope=ARCHIVE)
        noticed = time.monotonic() - began
        await asyncio.sleep(scale.outage / 2)
        half_in_between = find_broken_manifests(s3)
        await asyncio.sleep(scale.outage / 2)
        burnt = await count_lost_attempts(cluster)
        s3.wilful.mood = Mood.SLOW
        await asyncio.sleep(scale.outage / 2)
        lasted = time.monotonic() - began
        mended, s3.wilful.mood = time.monotonic(), Mood.FINE
        await wait_until_released(cluster, ARCHIVE, seconds=2 * lasted + 10)
        probed = time.monotonic() - mended
        counters = await cluster.wait_until_all_ended(_RUN, len(eval_ids), seconds=90)
        seconds, result = time.monotonic() - mended, examine(s3, eval_ids)
        half = [*half_in_between, *find_broken_manifests(s3)]
    figures(
        f"bucket away for {lasted:.0f} s: {result.sentence()}, manifests without their objects {len(half)}, attempts "
        f"burnt {burnt}, dead letters {counters.outcomes[Outcome.FAILED]}; on hold after {noticed:.1f} s, let go "
        f"{probed:.1f} s after its end, all done after {seconds:.1f} s"
    )
    assert result.is_sound, result
    assert half == []
    assert counters.outcomes[Outcome.FAILED] == 0
    assert burnt == 0


@pytest.mark.parametrize("mood", [Mood.READ_ONLY, Mood.GONE, Mood.EXPIRED, Mood.SKEWED])
async def test_workers_wait_when_a_bucket_refuses_all_requests(
    mood: Mood, scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    if mood is not Mood.EXPIRED and not scale.long:
        pytest.skip("to a worker it is the same as the others; the long form has it")
    eval_ids = evaluations(1000 if scale.long else 200)
    async with half_archived(eval_ids, tmp_path) as (cluster, s3):
        began, s3.wilful.mood = time.monotonic(), mood
        await wait_until_held(cluster, *_REASONS, scope=ARCHIVE)
        noticed = time.monotonic() - began
        await asyncio.sleep(scale.outage)
        lasted, half_in_between, burnt = (
            time.monotonic() - began,
            find_broken_manifests(s3),
            await count_lost_attempts(cluster),
        )
        mended, s3.wilful.mood = time.monotonic(), Mood.FINE
        counters = await cluster.wait_until_all_ended(_RUN, len(eval_ids), seconds=2 * lasted + 60)
        seconds, result = time.monotonic() - mended, examine(s3, eval_ids)
    figures(
        f"bucket {mood.name.lower()} for {lasted:.0f} s: {result.sentence()}, attempts burnt {burnt}, dead letters "
        f"{counters.outcomes[Outcome.FAILED]}; on hold after {noticed:.1f} s, all done {seconds:.1f} s after its end"
    )
    assert result.is_sound, result
    assert half_in_between == []
    assert counters.outcomes[Outcome.FAILED] == 0
    assert burnt == 0
