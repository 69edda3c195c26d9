"""Check the file system of an archive in a folder: hard links, locks and free space."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from worker.clients.errors import ServiceUnavailable

LEAST_FREE_BYTES = 1 << 29
"""Free bytes below which large bundles wait for space, and Redis may be unable to write its file."""
# On NFS, Linux locks a folder on its own machine only, because NFS has no flock for folders.
_LOCAL_LOCKS = {"nfs", "nfs4"}


def check_file_system(folder: Path) -> None:
    """Check that documents can be archived in an existing folder.

    Raises:
        ServiceUnavailable: they cannot; the message says what to do.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".probe-", dir=folder) as probe:
            problem = find_link_problem(Path(probe))
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise ServiceUnavailable(f"{folder}: the folder of the archive cannot be used: {error.strerror}") from None
    if problem:
        raise ServiceUnavailable(f"{folder}: {problem}; use a file system such as ext4 or XFS, or an s3:// archive")
    if free < LEAST_FREE_BYTES:
        raise ServiceUnavailable(f"{folder}: only {free >> 20} MiB are free; free some space, or use a larger disk")


def find_link_problem(folder: Path) -> str | None:
    """Return why an empty folder does not support hard links; None if it does.

    Raises:
        OSError: the folder is not writable.
    """
    (folder / "a").write_bytes(b"")
    try:
        (folder / "b").hardlink_to(folder / "a")
    except OSError as error:
        return f"the file system does not support links: {error.strerror}"
    return None


def find_lock_problem(folder: Path) -> str | None:
    """Return why a lock on a folder does not exclude other workers; None if it does."""
    kind = _file_system(folder)
    if kind in _LOCAL_LOCKS:
        return f"it is on {kind}, where a lock on a folder excludes no other machine"
    try:
        with opened_folder(folder) as one, opened_folder(folder) as other:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError as error:
        return f"a folder there cannot be locked: {error.strerror}"
    return "the file system grants one lock twice"


@contextlib.contextmanager
def opened_folder(folder: Path) -> Iterator[int]:
    """Yield the file descriptor of a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _file_system(folder: Path) -> str | None:
    """Return the type of the file system of a folder; None if the system has no mountinfo (proc(5))."""
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(FileNotFoundError):
        for line in Path("/proc/self/mountinfo").read_text("utf-8", errors="replace").splitlines():
            mount, _, source = line.partition(" - ")
            if mount.split()[2] == wanted:
                return source.split()[0]
    return None
