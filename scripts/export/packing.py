"""A folder becomes a ZIP, file by file, so that both together never need twice the room."""

import zipfile
from pathlib import Path

from scripts.export.staging import files_below, open_for_owner


def pack(folder: Path, target: Path) -> None:
    """Move all files of a folder into a new ZIP, in Zip64 form where that is needed.

    Pictures do not shrink, so nothing is compressed.

    Raises:
        OSError: the disk does not take it.
    """
    with open(target, "xb", opener=open_for_owner) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for path in files_below(folder):
            archive.write(path, path.relative_to(folder).as_posix())
            path.unlink()
