"""Evaluations are erased while a worker, unaware of it, still writes to them: none of their objects comes back."""

import asyncio
import contextlib
import io
import json
import os
import signal
import zipfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from aiohttp import web

from scripts.archive_access.s3_client import open_s3_archive
from scripts.erase.files import LocalFiles
from scripts.erase.versions import S3Versions
from tasks.model.evaluation import Evaluation
from tests.commands import Finished, Shell
from tests.conftest import S3
from tests.faults.cluster import Cluster, Worker, running_cluster
from tests.faults.proxy import proxy_to
from tests.faults.scale import Scale
from worker.config.settings import Settings

_DOCUMENTS = 200
_DELAY = 0.3
_AT_ONCE = 5
"""Evaluations that are erased together; moto reads the whole bucket for each page of a listing."""
_LEASE, _PUT = 2.0, 1.0
_LEFTOVERS = "docv:erased:leftovers"


@contextlib.asynccontextmanager
async def serving(documents: int) -> AsyncIterator[str]:
    """Run a RiskOS with a bundle of many documents for each evaluation; yield its URL."""

    async def answer(request: web.Request) -> web.Response:
        eval_id, file = request.match_info["eval_id"], io.BytesIO()
        with zipfile.ZipFile(file, "w") as bundle:
            for number in range(documents):
                bundle.writestr(f"case_attachments/{number}.pdf", b"%PDF-1.4\n" + f"{eval_id} {number}\n".encode() * 40)
        return web.Response(body=file.getvalue(), content_type="application/zip")

    app = web.Application()
    app.router.add_get("/api/evaluation/{eval_id}/documents", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@dataclass(frozen=True)
class Stage:
    """An archive, a worker's cluster, and a command line for erasures.

    Attributes:
        cluster: the cluster with the worker.
        stock: the archive with all versions.
        eraser: runs the commands of erasures.
        is_folder: whether the archive is a folder.
    """

    cluster: Cluster
    storage: LocalFiles | S3Versions
    eraser: Shell
    is_folder: bool

    def find_leftovers(self, eval_id: str) -> list[str]:
        """Return the remaining objects of an evaluation, except the marker."""
        evaluation = Evaluation(eval_id, "sandbox")
        items = self.storage.items(evaluation)
        return [each.key for each in items if each.key != evaluation.manifest_key or not each.latest]

    def has_begun(self, eval_id: str) -> bool:
        """Return whether some documents are archived, and the worker is uploading the others."""
        keys = [key for key in self.storage.keys(f"sandbox/{eval_id}/") if not key.endswith("manifest.json")]
        return len(keys) > 3

    async def erase(self, *arguments: str) -> Finished:
        finished = await self.eraser.run("erase", *arguments, "--json")
        assert finished.code in {0, 1}, finished.err
        return finished

    async def is_idle(self) -> bool:
        """Return whether the worker has no evaluations any more."""
        stats = await self.cluster.ledger.get_stats()
        return not (stats.leased or stats.parked or sum(stats.queued.values()) or sum(stats.held.values()))


@pytest.fixture(params=["folder", "versioned"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path, s3: S3) -> AsyncIterator[Stage]:
    """Run a cluster with an archive; connections to one in S3 are slow, so that its uploads take long."""
    settings = {"DOCV_LEASE_SECONDS": str(_LEASE), "DOCV_PUT_SECONDS": str(_PUT)}
    is_folder = request.param == "folder"
    if not is_folder:
        s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
        settings |= {"DOCV_ARCHIVE_URL": f"s3://{s3.bucket}/kyc", "DOCV_S3_ENDPOINT": s3.endpoint}
    async with (
        serving(_DOCUMENTS) as url,
        proxy_to(int(s3.endpoint.rpartition(":")[2])) as s3_proxy,
        running_cluster(tmp_path, DOCV_RISKOS_URL=url, **settings) as cluster,
    ):
        archive = open_s3_archive(Settings(archive_url=cluster.settings["DOCV_ARCHIVE_URL"], s3_endpoint=s3.endpoint))
        storage = S3Versions(archive) if archive else LocalFiles(cluster.archive)
        eraser = Shell(tmp_path, dict(cluster.settings))
        if not is_folder:
            s3_proxy.delay = _DELAY
            cluster.settings["DOCV_S3_ENDPOINT"] = f"http://127.0.0.1:{s3_proxy.port}"
        yield Stage(cluster, storage, eraser, is_folder)


Fault = Callable[[Worker, Sequence[str]], AbstractAsyncContextManager[None]]


@contextlib.asynccontextmanager
async def stopped(worker: Worker, _: Sequence[str]) -> AsyncIterator[None]:
    """Stop a worker's process in the middle of its work."""
    os.killpg(worker.process.pid, signal.SIGSTOP)
    yield
    os.killpg(worker.process.pid, signal.SIGCONT)


async def erase_during_writes(stage: Stage, worker: Worker, fault: Fault, eval_ids: Sequence[str]) -> None:
    """Erase evaluations while a worker writes to them without knowing it."""
    await stage.cluster.enqueue(eval_ids, run="erased")
    await stage.cluster.wait_until(lambda: any(map(stage.has_begun, eval_ids)))
    async with fault(worker, eval_ids):
        erased = await stage.erase(*eval_ids, "--reason", "request 4711", "--yes", "--even-if-absent")
    states = [json.loads(line) for line in erased.out.splitlines()]
    # If deletions take long, a worker may still have one: its receipt stays open, and --pending completes it.
    assert {each["state"] for each in states} <= ({"erased"} if stage.is_folder else {"erased", "refused"}), states
    await asyncio.sleep(_LEASE + _PUT)  # by then the worker has noticed and stopped
    async with asyncio.timeout(90):
        while not await stage.is_idle():
            await asyncio.sleep(0.1)
    if not stage.is_folder:
        # A worker records its leftovers within a second or two.
        await asyncio.sleep(2.5)
        assert (await stage.erase("--pending")).code == 0


async def check_erasures(stage: Stage, fault: Fault, scale: Scale, figures: Callable[[str], None], what: str) -> None:
    if not (scale.long or stage.is_folder or fault is stopped):
        pytest.skip("the short form has one fault with an archive in S3")
    (worker,) = await stage.cluster.start_workers(1)
    back, erased = [], 0
    for start in range(0, scale.erasures, _AT_ONCE):
        eval_ids = [str(uuid4()) for _ in range(min(_AT_ONCE, scale.erasures - start))]
        await erase_during_writes(stage, worker, fault, eval_ids)
        erased += len(eval_ids)
        back += [key for eval_id in eval_ids for key in stage.find_leftovers(eval_id)]
    figures(f"erase, {what}: {erased} evaluations of {_DOCUMENTS} documents; {len(back)} objects came back")
    assert back == []
    assert await stage.cluster.client.scard(_LEFTOVERS) == 0
    assert worker.is_alive


async def test_an_erased_evaluation_does_not_come_back_when_its_worker_was_stopped(
    stage: Stage, scale: Scale, figures: Callable[[str], None]
) -> None:
    await check_erasures(stage, stopped, scale, figures, "the worker is stopped")


async def test_an_erased_evaluation_does_not_come_back_when_redis_was_flushed(
    stage: Stage, scale: Scale, figures: Callable[[str], None]
) -> None:
    @contextlib.asynccontextmanager
    async def flushed(_: Worker, __: Sequence[str]) -> AsyncIterator[None]:
        await stage.cluster.client.flushall()
        yield

    await check_erasures(stage, flushed, scale, figures, "Redis is flushed")


async def test_an_erased_evaluation_does_not_come_back_when_its_worker_could_not_reach_redis(
    stage: Stage, scale: Scale, figures: Callable[[str], None]
) -> None:
    async with proxy_to(int(stage.cluster.redis.url.rpartition(":")[2].partition("/")[0])) as proxy:

        @contextlib.asynccontextmanager
        async def cut_off(_: Worker, __: Sequence[str]) -> AsyncIterator[None]:
            proxy.cut()
            yield
            proxy.restore()

        stage.cluster.settings["DOCV_REDIS_URL"] = f"redis://127.0.0.1:{proxy.port}/0"
        await check_erasures(stage, cut_off, scale, figures, "the worker is cut off from Redis")


async def test_an_erased_evaluation_does_not_come_back_while_events_arrive(
    stage: Stage, scale: Scale, figures: Callable[[str], None]
) -> None:
    @contextlib.asynccontextmanager
    async def enqueuing(_: Worker, eval_ids: Sequence[str]) -> AsyncIterator[None]:
        async def send() -> None:
            while True:
                await stage.cluster.enqueue(eval_ids, run="events")
                await asyncio.sleep(0.2)

        sending = asyncio.create_task(send())
        yield
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending

    await check_erasures(stage, enqueuing, scale, figures, "events arrive")
