"""Make something beside its place, and put it there only when it is whole, and never over what is there."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import click

from worker.clients.errors import ServiceUnavailable

_FILE_MODE = 0o600
_FOLDER_MODE = 0o700


def check_target_absent(target: Path) -> None:
    """See that a place is free.

    Raises:
        click.UsageError: something is there, or there is no folder to make it in.
    """
    if os.path.lexists(target):
        raise click.UsageError(f"{target} is there already, and nothing is ever written over: name another place")
    if not target.parent.is_dir():
        raise click.UsageError(f"{target.parent} is no folder: make it first")


@contextlib.contextmanager
def staging_folder(target: Path) -> Iterator[Path]:
    """Lend an empty folder beside a place; whatever is still in it goes with it.

    Raises:
        ServiceUnavailable: the disk does not take something.
    """
    folder = target.parent / f".docv-export-{secrets.token_hex(8)}.part"
    try:
        folder.mkdir(mode=_FOLDER_MODE)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ServiceUnavailable(f"{target} cannot be written: {why}; make room, or name another place") from None


def put_in_place(made: Path, target: Path) -> None:
    """Give a whole file or folder its place.

    Raises:
        click.UsageError: something is there by now.
        OSError: the disk does not do it.
    """
    is_folder = made.is_dir()
    try:
        # Who makes it has it: only our own empty file or folder is then replaced.
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
    """Make a folder and those above it, for their owner only."""
    if not folder.is_dir():
        make_folders(folder.parent)
        folder.mkdir(mode=_FOLDER_MODE)


def open_for_owner(path: str, flags: int) -> int:
    """Open a file as ``open`` wants it, readable by its owner only."""
    return os.open(path, flags, _FILE_MODE)


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, in the order of their names."""
    for where, folders, files in os.walk(folder):
        folders.sort()
        yield from (Path(where) / name for name in sorted(files))
