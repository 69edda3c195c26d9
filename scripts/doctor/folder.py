"""Check that an archive folder can be written to, and that its file system supports links and locks."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scripts.doctor.disk import check_free_space
from scripts.doctor.finding import Finding, fine, warning, wrong
from worker.clients.disk_errors import explain_disk_error
from worker.clients.file_system import find_link_problem, find_lock_problem

_WHAT = "archive"
_NAMELESS = getattr(os, "O_TMPFILE", 0)


def examine(folder: Path) -> Iterator[Finding]:
    """Yield the findings about the folder."""
    if not folder.is_dir():
        yield warning(_WHAT, f"{folder} does not exist yet", "the first write creates it; check that the path is right")
        return
    try:
        with tempfile.TemporaryDirectory(prefix=".probe-", dir=folder) as probe:
            yield fine(_WHAT, f"{folder} can be written to")
            yield _make_finding("links", find_link_problem(Path(probe)))
            yield _make_finding("locks", find_lock_problem(Path(probe)))
            yield _check_nameless_files(Path(probe))
    except OSError as error:
        why, _, fix = explain_disk_error(error, "DOCV_ARCHIVE_URL").partition("; ")
        yield wrong(_WHAT, f"{folder} cannot be written to: {why}", fix)
    yield check_free_space("disk of the archive", folder)


def _make_finding(what: str, problem: str | None) -> Finding:
    if problem:
        return wrong(what, problem, "use a local disk with a file system such as ext4 or XFS, or an s3:// archive")
    return fine(what, "the file system supports them")


def _check_nameless_files(folder: Path) -> Finding:
    what = "unnamed files"
    with contextlib.suppress(OSError):
        if _NAMELESS:
            os.close(os.open(folder, os.O_WRONLY | _NAMELESS, 0o600))
            return fine(what, "the file system supports them")
    return warning(
        what,
        "the file system does not support them",
        "a worker that is killed may leave .part files; nothing else is affected",
    )
