"""The folder for what is too much for memory while it is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from worker.clients.errors import ServiceUnavailable
from worker.config.settings import Settings


def scratch_folder(settings: Settings | None) -> Path | None:
    """Return the folder, made where it was missing; None stands for the system's own.

    Raises:
        ServiceUnavailable: it cannot be made.
    """
    if settings is None:
        return None
    folder = settings.state_dir / "spool"
    with translate_disk_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@contextmanager
def scratch_file(folder: Path | None) -> Iterator[IO[bytes]]:
    """Lend a file without a name, readable by its owner only; nothing of it stays behind.

    Raises:
        ServiceUnavailable: it cannot be made.
    """
    with translate_disk_errors(folder):
        file = TemporaryFile(dir=folder)  # noqa: SIM115  # closed below; what fails there is not this folder's fault
    with file:
        yield file


@contextmanager
def translate_disk_errors(folder: Path | None) -> Iterator[None]:
    """Say it in a sentence when the disk does not do what it is asked.

    Raises:
        ServiceUnavailable: it did not.
    """
    try:
        yield
    except OSError as error:
        where = folder or "the folder for temporary files"
        raise ServiceUnavailable(
            f"{where}: a list of IDs cannot be kept there while it is read: {error.strerror or type(error).__name__}; "
            "make room, or let DOCV_STATE_DIR name another folder"
        ) from None
