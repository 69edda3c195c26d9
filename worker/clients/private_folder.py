"""Make folders that only the user of this process may enter."""

import contextlib
import errno
import os
import stat
from pathlib import Path


def make_private(folder: Path) -> None:
    """Make a folder that only this user may enter, or check that it is one.

    Raises:
        OSError: it cannot be created, or another user owns it, or may write to it.
    """
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "it is not a folder")
    if found.st_uid != os.getuid() or found.st_mode & stat.S_IWOTH:
        raise PermissionError(errno.EPERM, "another user owns it or may write to it")
    if found.st_mode & 0o077:
        # At each mount, Kubernetes gives the group of a volume (fsGroup) access to everything in it.
        folder.chmod(stat.S_IMODE(found.st_mode) & ~0o077)
