"""Examine an archive in a folder: can it be written to, and does its file system do what our writing rests on?"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scripts.doctor.disk import check_free_space
from scripts.doctor.finding import Finding, fine, warning, wrong

_WHAT = "archive"
_NAMELESS = getattr(os, "O_TMPFILE", 0)


def examine(folder: Path) -> Iterator[Finding]:
    """Yield what there is to say of the folder."""
    if not folder.is_dir():
        yield warning(_WHAT, f"{folder} is not there yet", "it is made when first written to; is it the right one?")
        return
    try:
        with tempfile.TemporaryDirectory(prefix=".probe-", dir=folder) as probe:
            yield fine(_WHAT, f"{folder} can be written to")
            yield _links(Path(probe))
            yield _nameless(Path(probe))
    except OSError as error:
        yield wrong(
            _WHAT, f"{folder} cannot be written to: {error.strerror}", "mend its owner and mode, or DOCV_ARCHIVE_URL"
        )
    yield check_free_space("disk of the archive", folder)


def _links(folder: Path) -> Finding:
    (folder / "a").write_bytes(b"")
    try:
        (folder / "b").hardlink_to(folder / "a")
    except OSError as error:
        return wrong("links", f"the file system knows none: {error.strerror}", "use a file system such as ext4 or XFS")
    return fine("links", "the file system knows them")


def _nameless(folder: Path) -> Finding:
    what = "files without a name"
    with contextlib.suppress(OSError):
        if _NAMELESS:
            os.close(os.open(folder, os.O_WRONLY | _NAMELESS, 0o600))
            return fine(what, "the file system knows them")
    return warning(
        what, "the file system knows none", "a worker that is killed may leave .part files; nothing else changes"
    )
