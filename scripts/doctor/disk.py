"""Examine a disk: can it be written to, and is there room?"""

import os
import shutil
import tempfile
from pathlib import Path

from scripts.doctor.finding import Finding, fine, warning, wrong

GiB = 1 << 30
ENOUGH = 10 * GiB
"""Fewer free bytes are a warning."""
LEAST = GiB // 2
"""With fewer free bytes large bundles wait for room, and Redis's file may find none."""


def check_state_folder(folder: Path) -> Finding:
    """Return whether the state directory, which may not be there yet, can be used and has room."""
    what = "disk of DOCV_STATE_DIR"
    there = _nearest(folder)
    mend = "mend its owner and mode, or name another folder in DOCV_STATE_DIR"
    if not there.is_dir():
        return wrong(what, f"{there} is no folder", mend)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return wrong(what, f"{there} cannot be written to: {error.strerror}", mend)
    return check_free_space(what, folder)


def check_free_space(what: str, folder: Path) -> Finding:
    """Return whether the disk of a folder, which may not be there yet, has room."""
    there = _nearest(folder)
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return wrong(what, f"{there} cannot be examined: {error.strerror}", "see that the disk is mounted")
    return judge_free_space(what, free)


def judge_free_space(what: str, free: int) -> Finding:
    """Return whether so many free bytes are enough."""
    said, mend = f"{free / GiB:.1f} GiB are free", "make room, or name a larger disk"
    if free < LEAST:
        return wrong(what, said, mend)
    return fine(what, said) if free >= ENOUGH else warning(what, said, mend)


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
