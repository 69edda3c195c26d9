"""Move a folder into a ZIP, file by file, so that both together never need twice the space."""

import zipfile
from pathlib import Path

from scripts.export.staging import files_below, open_for_owner


def pack(folder: Path, target: Path, top: str) -> None:
    """Move all files of a folder into a new ZIP, in Zip64 form if needed.

    Nothing is compressed, since images do not shrink.

    Args:
        folder: the folder to pack.
        target: the ZIP.
        top: the one folder at the top of the ZIP, which a BagIt bag must have (RFC 8493, section 4).

    Raises:
        OSError: writing to disk fails.
    """
    with open(target, "xb", opener=open_for_owner) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for path in files_below(folder):
            archive.write(path, f"{top}/{path.relative_to(folder).as_posix()}")
            path.unlink()
