"""The Redis and the worker of a command report a full or read-only disk of DOCV_STATE_DIR, at start or later."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from scripts.local import log_file, processes
from scripts.local.processes import LocalWorker, local_redis
from worker.clients.embedded_redis import EmbeddedError
from worker.clients.errors import ServiceUnavailable
from worker.clients.redis import open_redis
from worker.config.settings import Settings

FULL = "the disk of DOCV_STATE_DIR is full; free some space"
_BLOCK = bytes(1 << 16)


def mount(*arguments: str | Path) -> bool:
    """Mount a disk in memory; return whether this user was allowed to."""
    return subprocess.run(["/bin/mount", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not Path("/bin/mount").exists() or not mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", folder):
        pytest.skip("this user may not mount a disk")
    yield folder
    subprocess.run(["/bin/umount", "--lazy", folder], check=True)


def fill(disk: Path) -> None:
    """Fill the disk completely."""
    with (disk / "filling").open("wb", buffering=0) as file:
        try:
            while file.write(_BLOCK):
                pass
        except OSError as error:
            assert "No space left" in str(error)  # noqa: PT017  # the loop always ends like this


def test_a_full_disk_is_reported_when_redis_starts(disk: Path) -> None:
    fill(disk)
    with pytest.raises(EmbeddedError, match=f"the embedded Redis does not start: {FULL}"):
        local_redis(Settings(state_dir=disk / "state")).__enter__()


def test_a_read_only_disk_is_reported_when_redis_starts(disk: Path) -> None:
    assert mount("-o", "remount,ro", disk)
    with pytest.raises(EmbeddedError, match="the disk of DOCV_STATE_DIR is read-only; mount it read-write"):
        local_redis(Settings(state_dir=disk / "state")).__enter__()


async def _write_until_refused(disk: Path) -> None:
    with local_redis(Settings(state_dir=disk / "state")) as (settings, _):
        fill(disk)
        async with open_redis(settings.need_redis_url(), retries=1) as redis:
            while await redis.set("a-key", _BLOCK):
                pass


async def test_a_disk_that_fills_up_while_the_embedded_redis_runs_is_reported(disk: Path) -> None:
    with pytest.raises(EmbeddedError, match=FULL):
        await _write_until_refused(disk)


def _keep_alive(worker: LocalWorker) -> None:
    while True:
        worker.check_alive()
        time.sleep(0.01)


def test_a_worker_that_keeps_dying_is_reported_with_the_full_disk(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(disk)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(processes, "_MOST_STARTS", 2)
    settings = Settings(redis_url=SecretStr("redis://127.0.0.1:1/0"), state_dir=disk)
    worker = LocalWorker(settings, disk / "worker.log", None)
    with pytest.raises(ServiceUnavailable, match=f"the worker died 2 times: {FULL}"):
        _keep_alive(worker)
    worker.stop()


def test_the_log_of_a_worker_is_rotated_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(log_file, "LOG_BYTES", 10)
    log = tmp_path / "worker.log"
    worker = LocalWorker(Settings(redis_url=SecretStr("redis://127.0.0.1:1/0")), log, None)
    log.write_bytes(b"0123456789")
    worker.check_alive()
    worker.stop()
    assert (tmp_path / "worker.log.1").read_bytes() == b"0123456789"
