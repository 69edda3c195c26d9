"""A worker is killed after each call: the service has done its part, and the worker has not yet got the reply."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from scripts.simulator.scenarios import Scenario, eval_id_for
from tests.aging import let_a_minute_pass
from tests.conftest import S3
from tests.faults.check import Archive, BucketArchive, FolderArchive, counted_right, examine
from tests.faults.cluster import Cluster, Worker, kill_now, running_cluster
from tests.faults.proxy import Proxy, proxy_to
from tests.faults.scale import Scale

_SET = (
    Scenario.ATTACHMENTS,
    Scenario.NO_DOCUMENTS,
    Scenario.ERROR_500_ONCE,
    Scenario.DAMAGED_ALWAYS,
    Scenario.NOT_FOUND,
    Scenario.PASSPORT,
)


def evaluations(round_: int) -> list[str]:
    """Return evaluations for one round; the number in an ID tells the round."""
    return [eval_id_for(scenario, round_) for scenario in _SET]


@asynccontextmanager
async def wired_stage(folder: Path, service: str, s3: S3) -> AsyncIterator[tuple[Cluster, Proxy, Archive]]:
    """Run a cluster with a proxy between the workers and one service; the archive is a bucket if that service is S3."""
    async with running_cluster(folder) as cluster:
        cluster.settings["DOCV_LEASE_SECONDS"] = "2"
        addresses = {"redis": cluster.redis.url, "riskos": cluster.riskos.url, "s3": s3.endpoint}
        async with proxy_to(urlsplit(addresses[service]).port or 0) as proxy:
            through = urlsplit(addresses[service])._replace(netloc=f"127.0.0.1:{proxy.port}").geturl()
            archive: Archive = FolderArchive(cluster.archive)
            match service:
                case "redis":
                    cluster.settings["DOCV_REDIS_URL"] = through
                case "riskos":
                    cluster.settings["DOCV_RISKOS_URL"] = through
                case "s3":
                    cluster.settings |= {"DOCV_S3_ENDPOINT": through, "DOCV_ARCHIVE_URL": f"s3://{s3.bucket}/kyc"}
                    archive = BucketArchive(s3, "kyc/")
            yield cluster, proxy, archive


@pytest.mark.parametrize("service", ["redis", "riskos", "s3"])
async def test_another_worker_finishes_all_evaluations_when_one_is_killed_at_any_call(
    service: str, scale: Scale, figures: Callable[[str], None], tmp_path: Path, s3: S3
) -> None:
    began = time.monotonic()
    async with wired_stage(tmp_path / "stage", service, s3) as (cluster, proxy, archive):
        (worker,) = await cluster.start_workers(1)
        calls = await undisturbed(cluster, proxy)
        places = scale.spread(range(1, calls + 1), random.Random(calls))  # noqa: S311  # no secret hangs on it
        reached = 0
        for place in places:
            worker, killed = await kill_at_call(place, cluster, proxy, worker)
            reached += killed
        eval_ids = [eval_id for round_ in (0, *places) for eval_id in evaluations(round_)]
        result = await asyncio.to_thread(examine, archive, eval_ids)
        seconds = time.monotonic() - began
    figures(f"killed at each call to {service}: {reached} of {calls} calls, {result.sentence()}, {seconds:.0f} s")
    assert result.is_sound, result
    assert reached >= max(1, len(places) // 2)


async def undisturbed(cluster: Cluster, proxy: Proxy) -> int:
    """Run a set to its end without a kill; return how many calls that took."""
    eval_ids = evaluations(0)
    proxy.replies = 0
    await cluster.enqueue(eval_ids, run="undisturbed")
    counters = await cluster.wait_until_all_ended("undisturbed", len(eval_ids))
    assert counted_right(eval_ids, counters), counters
    return proxy.replies


async def kill_at_call(place: int, cluster: Cluster, proxy: Proxy, victim: Worker) -> tuple[Worker, bool]:
    """Kill a worker after a call, and let another finish; return the running one, and whether that call came."""
    eval_ids, run = evaluations(place), f"killed-at-{place}"
    blown = asyncio.Event()

    def blow() -> None:
        kill_now(victim)
        blown.set()

    proxy.blown, proxy.replies, proxy.fuse = blow, 0, place
    await cluster.enqueue(eval_ids, run=run)
    ending = asyncio.ensure_future(cluster.wait_until_all_ended(run, len(eval_ids)))
    breaking = asyncio.ensure_future(blown.wait())
    await asyncio.wait({ending, breaking}, return_when=asyncio.FIRST_COMPLETED)
    breaking.cancel()
    proxy.fuse = None
    worker = victim
    if blown.is_set():
        await victim.process.wait()
        worker = await cluster.start_worker()
        await cluster.wait_until_ready(worker)
        await let_a_minute_pass(cluster.client)
    counters = await ending
    assert counted_right(eval_ids, counters), (place, counters)
    return worker, blown.is_set()
