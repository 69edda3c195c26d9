"""List and remove an evaluation's files if the archive is a folder."""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.erase.stock import NotRemoved, ObjectVersion, VersionLock, key_prefixes
from tasks.model.evaluation import Evaluation
from tasks.storage.local_bucket import sync_folder
from worker.clients.disk_errors import explain_disk_error
from worker.clients.errors import ServiceUnavailable


class LocalFiles:
    """Lists and removes files as ``ObjectVersions``; a folder has neither versions nor locks.

    Args:
        root: the folder of the archive.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def items(self, evaluation: Evaluation) -> list[ObjectVersion]:
        """Return every file of an evaluation, including half-written ones that a worker left."""
        with _translate_disk_errors():
            return [
                ObjectVersion(path.relative_to(self._root).as_posix(), size=size)
                for prefix in key_prefixes(evaluation)
                for path, size in self._files(prefix)
            ]

    def _files(self, prefix: str) -> list[tuple[Path, int]]:
        """Return files and their sizes; another eraser, or the worker that wrote a file, may remove it meanwhile."""
        found = []
        for folder, folders, names in os.walk(self._root / prefix):
            for path in (Path(folder, name) for name in (*folders, *names)):
                with contextlib.suppress(FileNotFoundError):
                    status = path.lstat()
                    if not stat.S_ISDIR(status.st_mode):
                        found.append((path, status.st_size))
        return sorted(found)

    def locks(self, items: Sequence[ObjectVersion], *, bypass_governance: bool) -> str | None:  # a folder has no locks
        """Return None: a folder has no locks."""

    def lock_of(self, item: ObjectVersion) -> VersionLock | None:  # a folder has no locks
        """Return None: a folder has no locks."""

    def remove(self, items: Sequence[ObjectVersion], *, bypass_governance: bool) -> None:  # noqa: ARG002  # no locks
        """Remove these files, and flush their folders to the disk.

        Raises:
            NotRemoved: this user may not remove some of them.
            ServiceUnavailable: the disk fails.
        """
        paths = [self._root / item.key for item in items]
        denied: PermissionError | None = None
        with _translate_disk_errors():
            for path in paths:
                try:
                    path.unlink(missing_ok=True)
                except PermissionError as error:
                    denied = error
            for folder in {path.parent for path in paths}:
                # Another eraser may have removed the empty folder.
                with contextlib.suppress(FileNotFoundError):
                    sync_folder(folder)
        if denied:
            raise NotRemoved(_explain(denied)) from None

    def tidy(self, evaluation: Evaluation) -> None:
        """Remove empty folders."""
        with _translate_disk_errors():
            for prefix in key_prefixes(evaluation):
                for folder, _, _ in os.walk(self._root / prefix, topdown=False):
                    # Not empty, or already removed: both are fine.
                    with contextlib.suppress(OSError):
                        Path(folder).rmdir()

    def keys(self, below: str) -> list[str]:
        """Return the keys below a prefix, in order."""
        with _translate_disk_errors():
            return [path.relative_to(self._root).as_posix() for path, _ in self._files(below)]


@contextlib.contextmanager
def _translate_disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ServiceUnavailable(_explain(error)) from None


def _explain(error: OSError) -> str:
    return f"the folder of the archive cannot be changed: {explain_disk_error(error, 'DOCV_ARCHIVE_URL')}"
