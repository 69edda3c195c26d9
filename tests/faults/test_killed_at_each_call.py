"""A worker is killed after each call, when the service has replied and the worker has not yet received the reply."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from scripts.simulator.scenarios import Scenario, eval_id_for
from tests.aging import age_queued_evaluations
from tests.conftest import S3
from tests.faults.check import Archive, BucketArchive, FolderArchive, counters_match, examine
from tests.faults.cluster import Cluster, Worker, kill_now, running_cluster
from tests.faults.proxy import Proxy, proxy_to
from tests.faults.scale import Scale

_SCENARIOS = (
    Scenario.ATTACHMENTS,
    Scenario.NO_DOCUMENTS,
    Scenario.ERROR_500_ONCE,
    Scenario.DAMAGED_ALWAYS,
    Scenario.NOT_FOUND,
    Scenario.PASSPORT,
)


def evaluations(round_: int) -> list[str]:
    """Return evaluations for one round; the number in each ID is the round."""
    return [eval_id_for(scenario, round_) for scenario in _SCENARIOS]


@asynccontextmanager
async def running_cluster_with_proxy(
    folder: Path, service: str, s3: S3
) -> AsyncIterator[tuple[Cluster, Proxy, Archive]]:
    """Run a cluster with a proxy between the workers and one service; the archive is a bucket if that service is S3."""
    async with running_cluster(folder) as cluster:
        cluster.settings["DOCV_LEASE_SECONDS"] = "2"
        addresses = {"redis": cluster.redis.url, "riskos": cluster.riskos.url, "s3": s3.endpoint}
        async with proxy_to(urlsplit(addresses[service]).port or 0) as proxy:
            proxied_url = urlsplit(addresses[service])._replace(netloc=f"127.0.0.1:{proxy.port}").geturl()
            archive: Archive = FolderArchive(cluster.archive)
            match service:
                case "redis":
                    cluster.settings["DOCV_REDIS_URL"] = proxied_url
                case "riskos":
                    cluster.settings["DOCV_RISKOS_URL"] = proxied_url
                case "s3":
                    cluster.settings |= {"DOCV_S3_ENDPOINT": proxied_url, "DOCV_ARCHIVE_URL": f"s3://{s3.bucket}/kyc"}
                    archive = BucketArchive(s3, "kyc/")
            yield cluster, proxy, archive


@pytest.mark.parametrize("service", ["redis", "riskos", "s3"])
async def test_another_worker_finishes_all_evaluations_when_one_is_killed_at_any_call(
    service: str, scale: Scale, figures: Callable[[str], None], tmp_path: Path, s3: S3
) -> None:
    began = time.monotonic()
    async with running_cluster_with_proxy(tmp_path / "stage", service, s3) as (cluster, proxy, archive):
        (worker,) = await cluster.start_workers(1)
        calls = await run_undisturbed(cluster, proxy)
        places = scale.spread(range(1, calls + 1), random.Random(calls))  # noqa: S311  # not a secret
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


async def run_undisturbed(cluster: Cluster, proxy: Proxy) -> int:
    """Run a set to its end without a kill; return how many calls that took."""
    eval_ids = evaluations(0)
    proxy.replies = 0
    await cluster.enqueue(eval_ids, run="undisturbed")
    counters = await cluster.wait_until_all_ended("undisturbed", len(eval_ids))
    assert counters_match(eval_ids, counters), counters
    return proxy.replies


async def kill_at_call(place: int, cluster: Cluster, proxy: Proxy, victim: Worker) -> tuple[Worker, bool]:
    """Kill a worker after a call, and let another finish; return the running one, and whether the call was made."""
    eval_ids, run = evaluations(place), f"killed-at-{place}"
    dropped = asyncio.Event()

    def kill_victim() -> None:
        kill_now(victim)
        dropped.set()

    proxy.on_drop, proxy.replies, proxy.dropped_reply = kill_victim, 0, place
    await cluster.enqueue(eval_ids, run=run)
    ending = asyncio.ensure_future(cluster.wait_until_all_ended(run, len(eval_ids)))
    dropping = asyncio.ensure_future(dropped.wait())
    await asyncio.wait({ending, dropping}, return_when=asyncio.FIRST_COMPLETED)
    dropping.cancel()
    proxy.dropped_reply = None
    worker = victim
    if dropped.is_set():
        await victim.process.wait()
        worker = await cluster.start_worker()
        await cluster.wait_until_ready(worker)
        await age_queued_evaluations(cluster.client)
    counters = await ending
    assert counters_match(eval_ids, counters), (place, counters)
    return worker, dropped.is_set()
