"""An evaluation's objects in a folder."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.erase.stock import ObjectVersion, prefixes_of
from tasks.model.evaluation import Evaluation
from worker.clients.errors import ServiceUnavailable


class LocalFiles:
    """See ``scripts.erase.stock.ObjectVersions``. A folder knows no versions and no locks.

    Args:
        root: the folder of the archive.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def items(self, evaluation: Evaluation) -> list[ObjectVersion]:
        """Return every file of an evaluation, also one that a worker left half written."""
        with _translated():
            return [
                ObjectVersion(path.relative_to(self._root).as_posix(), size=path.lstat().st_size)
                for prefix in prefixes_of(evaluation)
                for path in self._files(prefix)
            ]

    def _files(self, prefix: str) -> list[Path]:
        return sorted(path for path in (self._root / prefix).rglob("*") if path.is_symlink() or not path.is_dir())

    def locks(self, items: Sequence[ObjectVersion], *, bypass_governance: bool) -> str | None:  # see the class
        """Return None: nothing is locked."""

    def remove(self, items: Sequence[ObjectVersion], *, bypass_governance: bool) -> None:  # noqa: ARG002  # see the class
        """Remove these files, and ask the disk to remember it."""
        paths = [self._root / item.key for item in items]
        with _translated():
            for path in paths:
                path.unlink(missing_ok=True)
            for folder in {path.parent for path in paths}:
                descriptor = os.open(folder, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def tidy(self, evaluation: Evaluation) -> None:
        """Remove the folders that are empty now."""
        with _translated():
            for prefix in prefixes_of(evaluation):
                top = self._root / prefix
                for folder in [*sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True), top]:
                    # It is not empty, or is not there: both are as they should be.
                    with contextlib.suppress(OSError):
                        folder.rmdir()

    def keys(self, below: str) -> list[str]:
        """Return the keys below a prefix, in order."""
        with _translated():
            return [path.relative_to(self._root).as_posix() for path in self._files(below)]


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ServiceUnavailable(f"the folder of the archive does not do what it was asked: {error.strerror}") from None
