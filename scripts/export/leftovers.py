"""The hidden folder of an export, and the folders that killed exports left behind.

A killed export leaves opened documents in its folder. A lock on the folder ends with the process that took it, so a
folder without a lock is a leftover.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import click

_PATTERN = ".docv-export-*.part"


@contextlib.contextmanager
def locked_folder(parent: Path, mode: int) -> Iterator[Path]:
    """Make a hidden folder that counts as in use until it is removed or this process ends.

    Raises:
        OSError: writing to disk fails.
    """
    folder, descriptor = _make_locked(parent, mode)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _make_locked(parent: Path, mode: int) -> tuple[Path, int]:
    # Another export may remove the folder as a leftover before it is locked: then make another one.
    while True:
        folder = parent / _PATTERN.replace("*", secrets.token_hex(8))
        folder.mkdir(mode=mode)
        with contextlib.suppress(FileNotFoundError):
            descriptor = _open_folder(folder)
            # Without locks in the file system no other export removes the folder either.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.is_dir():
                return folder, descriptor
            os.close(descriptor)


def remove_leftovers(parent: Path) -> None:
    """Remove the folders that killed exports left in a folder, and print the path of each."""
    for folder in sorted(parent.glob(_PATTERN)):
        try:
            _remove_unless_in_use(folder)
        except (BlockingIOError, FileNotFoundError):
            continue
        except OSError as error:
            what = f"{folder} may hold opened documents of a killed export"
            click.echo(f"docv-archive: {what} and cannot be removed: {error.strerror}", err=True)
        else:
            click.echo(f"docv-archive: removed {folder}, opened documents that a killed export left behind", err=True)


def _remove_unless_in_use(folder: Path) -> None:
    descriptor = _open_folder(folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(descriptor)


def _open_folder(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
