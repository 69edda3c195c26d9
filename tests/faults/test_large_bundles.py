"""Bundles that are much larger than memory should be: they go through the disk, and memory stays where it is."""

import asyncio
import hashlib
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

from tests.faults.cluster import running_cluster
from tests.faults.scale import Scale

_MOST_MEMORY = 400 << 20
_AT_ONCE = 8


def write_bundle(path: Path, size: int) -> dict[str, str]:
    """Write a bundle of four documents that no compression makes smaller; return the hash of each."""
    hashes = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name in (f"case_attachments/scan-{number}.pdf" for number in range(4)):
            digest = hashlib.sha256()
            with bundle.open(name, "w") as member:
                for _ in range(size // 4 >> 20):
                    piece = os.urandom(1 << 20)
                    digest.update(piece)
                    member.write(piece)
            hashes[name] = digest.hexdigest()
    return hashes


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[str]:
    """Be a RiskOS that has the same large bundle for everybody; yield its URL."""

    async def answer(_: web.Request) -> web.FileResponse:
        return web.FileResponse(path, headers={"Content-Type": "application/zip"})

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


@pytest.mark.skipif(sys.platform != "linux", reason="the most memory a process ever had is told by Linux")
async def test_eight_large_bundles_at_once_leave_memory_where_it_is(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    size = (200 if scale.long else 24) << 20
    hashes = await asyncio.to_thread(write_bundle, tmp_path / "large.zip", size)
    eval_ids = [str(uuid4()) for _ in range(_AT_ONCE)]
    async with (
        serving(tmp_path / "large.zip") as url,
        running_cluster(tmp_path / "stage", DOCV_RISKOS_URL=url, DOCV_LEASE_SECONDS="60") as cluster,
    ):
        (worker,) = await cluster.start_workers(1)
        await cluster.enqueue(eval_ids, run="large")
        await cluster.wait_until_all_ended("large", _AT_ONCE, 200)
        status = await asyncio.to_thread(Path(f"/proc/{worker.process.pid}/status").read_text)
        left = [file.path for file in psutil.Process(worker.process.pid).open_files() if "spool" in file.path]
        for eval_id in eval_ids:
            manifest = json.loads((cluster.archive / "sandbox" / eval_id / "manifest.json").read_text())
            assert {each["name"]: each["sha256"] for each in manifest["documents"]} == hashes
    most = int(status.split("VmHWM:")[1].split()[0]) << 10
    figures(
        f"{_AT_ONCE} bundles of {size >> 20} MiB at once: {most >> 20} MiB of memory at most, {len(left)} files open"
    )
    assert most < _MOST_MEMORY
    assert left == []
