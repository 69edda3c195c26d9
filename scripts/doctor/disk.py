"""Check that a disk can be written to, and has enough free space."""

import os
import shutil
from pathlib import Path

from scripts.doctor.finding import Finding, fine, warning, wrong
from worker.clients.disk_errors import find_disk_problem
from worker.clients.file_system import LEAST_FREE_BYTES

GiB = 1 << 30
ENOUGH = 10 * GiB
"""Less free space (bytes) results in a warning."""


def check_state_folder(folder: Path) -> Finding:
    """Return whether the state directory, which may not exist yet, can be written to and has free space."""
    what = "disk of DOCV_STATE_DIR"
    path = _find_nearest(folder)
    if not path.is_dir():
        return wrong(what, f"{path} is not a folder", "fix its owner and mode, or set DOCV_STATE_DIR to another folder")
    if problem := find_disk_problem(path):
        why, _, fix = problem.partition("; ")
        return wrong(what, f"{path} cannot be written to: {why}", fix)
    return check_free_space(what, folder)


def check_free_space(what: str, folder: Path) -> Finding:
    """Return whether the disk of a folder, which may not exist yet, has enough free space."""
    path = _find_nearest(folder)
    try:
        free = shutil.disk_usage(path).free
    except OSError as error:
        return wrong(what, f"{path} cannot be checked: {error.strerror}", "make sure that the disk is mounted")
    return judge_free_space(what, free)


def judge_free_space(what: str, free: int) -> Finding:
    """Return whether this number of free bytes is enough."""
    message, fix = f"{free / GiB:.1f} GiB free", "free some space, or use a larger disk"
    if free < LEAST_FREE_BYTES:
        return wrong(what, message, fix)
    return fine(what, message) if free >= ENOUGH else warning(what, message, fix)


def _find_nearest(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
