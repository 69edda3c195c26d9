"""A BagIt bag around an export (RFC 8493), which its recipient can check without docv-archive.

Written by hand: the Library of Congress's `bagit` 1.9.0 gives its bags version 0.97, which is older than the RFC,
changes the process's working directory, and is published without a wheel.
"""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from scripts.export.staging import files_below, open_for_owner
from tasks.storage.manifest import archiver

PAYLOAD = "data"
_DECLARATION = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"


def close_bag(folder: Path, facts: Iterable[tuple[str, object]]) -> None:
    """Write the tag files of a bag whose payload is in place.

    Args:
        folder: the bag; its payload is below ``PAYLOAD``, under names without control characters and ``%``.
        facts: further labels and values of ``bag-info.txt``; a label may come more than once.

    Raises:
        OSError: writing to disk fails.
    """
    size, count = _write_hashes(folder)
    info = [
        ("Bag-Software-Agent", archiver()),
        ("Bagging-Date", datetime.now(UTC).date().isoformat()),
        ("Payload-Oxum", f"{size}.{count}"),
        *facts,
    ]
    _write(folder / "bagit.txt", _DECLARATION)
    _write(folder / "bag-info.txt", "".join(f"{label}: {value}\n" for label, value in info))
    tags = [folder / name for name in ("bag-info.txt", "bagit.txt", "manifest-sha256.txt")]
    _write(folder / "tagmanifest-sha256.txt", "".join(_line(path, folder) for path in tags))


def _write_hashes(folder: Path) -> tuple[int, int]:
    """Write the hashes of the payload as read back from the disk; return the number of bytes and of files."""
    size = count = 0
    with open(folder / "manifest-sha256.txt", "x", encoding="utf-8", opener=open_for_owner) as hashes:
        for path in files_below(folder / PAYLOAD):
            hashes.write(_line(path, folder))
            size, count = size + path.stat().st_size, count + 1
    return size, count


def _line(path: Path, folder: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{digest}  {path.relative_to(folder).as_posix()}\n"


def _write(path: Path, text: str) -> None:
    with open(path, "x", encoding="utf-8", opener=open_for_owner) as file:
        file.write(text)
