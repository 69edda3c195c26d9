"""The file system of an archive in a folder is checked."""

import asyncio
import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from worker.clients import file_system
from worker.clients.archive import check_archive
from worker.clients.embedded_redis import EmbeddedError, embedded_redis
from worker.clients.errors import ServiceUnavailable
from worker.clients.file_system import check_file_system, find_lock_problem
from worker.config.settings import Settings


def fail(number: int) -> Callable[..., None]:
    def call(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def test_a_local_folder_is_accepted_and_stays_empty(tmp_path: Path) -> None:
    check_file_system(tmp_path)
    assert find_lock_problem(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_another_worker_is_not_a_problem(tmp_path: Path) -> None:
    with file_system.opened_folder(tmp_path) as folder:
        fcntl.flock(folder, fcntl.LOCK_EX)
        assert find_lock_problem(tmp_path) is None


@pytest.mark.parametrize(
    ("flock", "message"),
    [
        (lambda *_: None, "the file system grants one lock twice"),
        (fail(errno.ENOLCK), "a folder there cannot be locked: No locks available"),
        (fail(errno.EBADF), "a folder there cannot be locked: Bad file descriptor"),
    ],
)
async def test_a_process_does_not_start_if_locks_fail_or_have_no_effect(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Settings, flock: Callable[..., None], message: str
) -> None:
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ServiceUnavailable, match=f"{message}; use a local disk, or an s3:// archive"):
        await check_archive(tmp_path, settings)


@pytest.mark.parametrize("kind", ["nfs", "nfs4"])
def test_a_process_does_not_start_on_nfs_even_if_locks_seem_to_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Settings, kind: str
) -> None:
    device = tmp_path.stat().st_dev
    line = f"36 35 {os.major(device)}:{os.minor(device)} / /mnt/a\\040b rw,relatime shared:1 - {kind} server:/a - rw"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"22 27 0:0 / /proc rw - proc proc rw\n{line}\n")
    with pytest.raises(
        ServiceUnavailable, match=f"it is on {kind}, where a lock on a folder excludes no other machine"
    ):
        asyncio.run(check_archive(tmp_path, settings))


def test_an_unknown_file_system_with_working_locks_is_not_a_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Path, "read_text", fail(errno.ENOENT))
    assert find_lock_problem(tmp_path) is None


def test_a_file_system_without_hard_links_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Path, "hardlink_to", fail(errno.EPERM))
    with pytest.raises(
        ServiceUnavailable, match="does not support links: Operation not permitted; use a file system such as"
    ):
        check_file_system(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_nearly_full_disk_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100 << 20))
    with pytest.raises(ServiceUnavailable, match="only 100 MiB are free; free some space"):
        check_file_system(tmp_path)


def test_a_folder_that_is_not_writable_is_refused() -> None:
    with pytest.raises(ServiceUnavailable, match="/proc: the folder of the archive cannot be used"):
        check_file_system(Path("/proc"))


def test_a_state_directory_without_locks_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fcntl, "flock", fail(errno.ENOLCK))
    with (
        pytest.raises(EmbeddedError, match="the state directory cannot be used: No locks available"),
        embedded_redis(tmp_path / "state"),
    ):
        pass
