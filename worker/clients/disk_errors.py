"""Explain why a folder is not writable: a full disk, a read-only disk, or its owner and mode."""

import errno
from pathlib import Path
from tempfile import TemporaryFile

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_PROBE = bytes(1 << 16)


def explain_disk_error(error: OSError, setting: str = "DOCV_STATE_DIR") -> str:
    """Return the problem with the folder that a setting names and, after a semicolon, how to fix it."""
    if error.errno in _FULL:
        return f"the disk of {setting} is full; free some space, or use a folder on another disk"
    if error.errno == errno.EROFS:
        return f"the disk of {setting} is read-only; mount it read-write, or use another folder"
    fix = "fix its owner and mode" if isinstance(error, PermissionError) else "check that folder"
    return f"{error.strerror or type(error).__name__}; {fix}, or use another one in {setting}"


def find_disk_problem(folder: Path, setting: str = "DOCV_STATE_DIR") -> str | None:
    """Return why the folder that a setting names is not writable; None if it is."""
    try:
        with TemporaryFile(dir=folder) as file:
            file.write(_PROBE)
    except OSError as error:
        return explain_disk_error(error, setting)
    return None
