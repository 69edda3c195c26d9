"""Temporary files for lists that are too large for memory."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from worker.clients.disk_errors import explain_disk_error
from worker.clients.errors import ServiceUnavailable
from worker.clients.private_folder import make_private
from worker.config.settings import Settings


def scratch_folder(settings: Settings | None) -> Path | None:
    """Return the folder, which is created if it is missing; None stands for the folder of the system.

    Raises:
        ServiceUnavailable: it cannot be created.
    """
    if settings is None:
        return None
    folder = settings.private_dir / "spool"
    with translate_disk_errors(folder):
        make_private(settings.private_dir)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@contextmanager
def leave_no_folders(settings: Settings) -> Iterator[None]:
    """Remove the folders that reading a list makes, unless they existed before or are not empty."""
    folders = (settings.private_dir / "spool", settings.private_dir, settings.state_dir)
    made = [folder for folder in folders if not folder.exists()]
    try:
        yield
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def scratch_file(folder: Path | None) -> Iterator[IO[bytes]]:
    """Yield a file without a name, readable by its owner only; the system removes it.

    Raises:
        ServiceUnavailable: it cannot be created.
    """
    with translate_disk_errors(folder):
        file = TemporaryFile(dir=folder)  # noqa: SIM115  # closed below, outside of the translation
    with file:
        yield file


@contextmanager
def translate_disk_errors(folder: Path | None) -> Iterator[None]:
    """Translate errors of the disk.

    Raises:
        ServiceUnavailable: the disk failed.
    """
    try:
        yield
    except OSError as error:
        where = folder or "the folder for temporary files"
        raise ServiceUnavailable(
            f"{where}: a list of IDs cannot be kept there while it is read: {explain_disk_error(error)}"
        ) from None
