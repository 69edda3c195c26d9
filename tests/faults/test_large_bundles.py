"""Bundles that are much larger than memory should be: they go through the disk, and memory does not grow."""

import asyncio
import hashlib
import itertools
import json
import os
import sys
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from aiohttp import web

from tests.bench.usage import PAGE_BYTES, measure_usage, peak_bytes
from tests.faults.cluster import running_cluster
from tests.faults.scale import Scale
from worker.config.settings import Settings

_MOST_MEMORY = 100_000_000 + Settings.model_fields["memory_bytes"].default
"""Bytes of memory that a worker uses at most, with bundles of any size."""
_AT_ONCE = 8
_SIZES = (750_000, 1_100_000, 2_300_000, 4_600_000, 12_000_000)
_MOST_FAULTS = 1.5
"""Page faults for each page of a bundle; fresh memory for bundle and documents alone takes two."""


def write_bundle(path: Path, size: int) -> dict[str, str]:
    """Write a bundle of four documents that compression does not make smaller; return the hash of each."""
    hashes = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name in (f"case_attachments/scan-{number}.pdf" for number in range(4)):
            digest = hashlib.sha256()
            with bundle.open(name, "w") as member:
                for _ in range(4):
                    piece = os.urandom(size // 16)
                    digest.update(piece)
                    member.write(piece)
            hashes[name] = digest.hexdigest()
    return hashes


@asynccontextmanager
async def serve_bundles(*paths: Path) -> AsyncIterator[str]:
    """Run a RiskOS that answers with each of the bundles in turn; yield its URL."""
    answers = itertools.cycle(paths)

    async def answer(_: web.Request) -> web.FileResponse:
        return web.FileResponse(next(answers), headers={"Content-Type": "application/zip"})

    app = web.Application()
    app.router.add_get("/api/evaluation/{eval_id}/documents", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the peak memory of a process")
async def test_memory_does_not_grow_when_eight_large_bundles_arrive_at_once(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    size = (200 if scale.long else 24) << 20
    hashes = await asyncio.to_thread(write_bundle, tmp_path / "large.zip", size)
    eval_ids = [str(uuid4()) for _ in range(_AT_ONCE)]
    async with (
        serve_bundles(tmp_path / "large.zip") as url,
        running_cluster(tmp_path / "stage", DOCV_RISKOS_URL=url, DOCV_LEASE_SECONDS="60") as cluster,
    ):
        (worker,) = await cluster.start_workers(1)
        await cluster.enqueue(eval_ids, run="large")
        await cluster.wait_until_all_ended("large", _AT_ONCE, 200)
        most = peak_bytes(worker.process.pid)
        left = [file.path for file in psutil.Process(worker.process.pid).open_files() if "spool" in file.path]
        for eval_id in eval_ids:
            manifest = json.loads((cluster.archive / "sandbox" / eval_id / "manifest.json").read_text())
            assert {each["name"]: each["sha256"] for each in manifest["documents"]} == hashes
    figures(
        f"{_AT_ONCE} bundles of {size >> 20} MiB at once: {most >> 20} MiB of memory at most, {len(left)} files open"
    )
    assert most < _MOST_MEMORY
    assert left == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports page faults and peak memory")
async def test_memory_is_bounded_and_reused_with_bundles_of_any_size(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    sizes = (*_SIZES, 200_000_000) if scale.long else _SIZES
    paths = [tmp_path / f"{size}.zip" for size in sizes]
    for path, size in zip(paths, sizes, strict=True):
        await asyncio.to_thread(write_bundle, path, size)
    count = len(sizes) * (20 if scale.long else 4)
    async with (
        serve_bundles(*paths) as url,
        running_cluster(
            tmp_path / "stage", DOCV_RISKOS_URL=url, DOCV_LEASE_SECONDS="60", DOCV_CONCURRENCY="64"
        ) as cluster,
    ):
        (worker,) = await cluster.start_workers(1)
        faults = []
        for run in ("first", "second"):
            before = measure_usage(worker.process.pid).page_faults
            await cluster.enqueue([str(uuid4()) for _ in range(count)], run=run)
            await cluster.wait_until_all_ended(run, count, 200)
            faults.append((measure_usage(worker.process.pid).page_faults - before) * PAGE_BYTES * len(sizes))
        most = peak_bytes(worker.process.pid)
    again = faults[1] / (count * sum(sizes))
    figures(f"bundles of {sizes[0]} to {sizes[-1]} bytes: {most >> 20} MiB at most, {again:.2f} page faults a page")
    assert most < _MOST_MEMORY
    assert again < _MOST_FAULTS
