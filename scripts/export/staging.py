"""Make a file or folder next to its target, and move it there when it is complete. Nothing is overwritten."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from scripts.export.leftovers import locked_folder, remove_leftovers
from worker.clients.errors import ServiceUnavailable

_FILE_MODE = 0o600
_FOLDER_MODE = 0o700


def check_target_absent(target: Path) -> None:
    """Check that nothing is at the target.

    Raises:
        click.UsageError: something is there, or its parent folder does not exist.
    """
    if os.path.lexists(target):
        raise click.UsageError(f"{target} already exists and is not overwritten: choose another path")
    if not target.parent.is_dir():
        raise click.UsageError(f"{target.parent} is not a folder: create it first")


@contextlib.contextmanager
def staging_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder next to a target, and remove it with its content; remove leftovers of killed exports first.

    Raises:
        ServiceUnavailable: writing to disk fails.
    """
    remove_leftovers(target.parent)
    try:
        with locked_folder(target.parent, _FOLDER_MODE) as folder:
            yield folder
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ServiceUnavailable(
            f"{target} cannot be written: {why}; free some space, or choose another path"
        ) from None


def put_in_place(made: Path, target: Path) -> None:
    """Move a complete file or folder to its target.

    Raises:
        click.UsageError: something is there by now.
        OSError: writing to disk fails.
    """
    is_folder = made.is_dir()
    try:
        # Making an empty file or folder claims the target, so that only our own claim is replaced.
        if is_folder:
            target.mkdir(_FOLDER_MODE)
        else:
            target.touch(_FILE_MODE, exist_ok=False)
    except FileExistsError:
        check_target_absent(target)
        raise
    try:
        made.replace(target)
    except BaseException:
        (target.rmdir if is_folder else target.unlink)()
        raise


def make_folders(folder: Path) -> None:
    """Make a folder and its missing parents, for their owner only."""
    if not folder.is_dir():
        make_folders(folder.parent)
        folder.mkdir(mode=_FOLDER_MODE)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Make a file for its owner only, and remove it if writing it fails."""
    with open(path, "xb", opener=open_for_owner) as file:
        try:
            yield file
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def open_for_owner(path: str, flags: int) -> int:
    """Open a file that only its owner can read; an ``opener`` for ``open``."""
    return os.open(path, flags, _FILE_MODE)


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, in the order of their names."""
    for where, folders, files in os.walk(folder):
        folders.sort()
        yield from (Path(where) / name for name in sorted(files))
