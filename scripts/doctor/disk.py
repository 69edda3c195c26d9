"""Examine a disk: is there room?"""

import shutil
from pathlib import Path

from scripts.doctor.finding import Finding, fine, warning, wrong

GiB = 1 << 30
ENOUGH = 10 * GiB
"""Fewer free bytes are a warning."""


def room(what: str, folder: Path) -> Finding:
    """Return whether the disk of a folder, which may not be there yet, has room."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return wrong(what, f"{there} cannot be examined: {error.strerror}", "see that the disk is mounted")
    return amount(what, free)


def amount(what: str, free: int) -> Finding:
    """Return whether so many free bytes are enough."""
    said = f"{free / GiB:.1f} GiB are free"
    return fine(what, said) if free >= ENOUGH else warning(what, said, "make room, or name a larger disk")
