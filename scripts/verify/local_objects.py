"""List an archive in a folder in the order of its keys, with bounded memory."""

import asyncio
import contextlib
import heapq
import itertools
import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TypeVar

from scripts.verify.objects_api import IRREGULAR, ObjectHead
from tasks.errors import StorageError
from tasks.storage.bucket import ListedObject

Found = TypeVar("Found")
_SOME = 2_000
_NAMES = 100_000
"""Maximum number of names of one folder in memory; a folder with more names is read several times."""


class LocalObjectLister:
    """See ``scripts.verify.objects_api.ObjectLister``.

    Args:
        root: the folder of the archive.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def walk(self, prefix: str) -> AsyncIterator[list[ListedObject]]:
        """Yield everything below a prefix that ends with a slash, or everything."""
        walk = _walk(str(self._root / prefix), prefix)
        while some := await asyncio.to_thread(_next, walk):
            yield some

    async def list_folders(self, prefix: str) -> AsyncIterator[list[str]]:
        """Yield the names of the folders directly below a prefix that ends with a slash."""
        folders = (name[:-1] for name in _names(str(self._root / prefix)) if name.endswith("/"))
        while some := await asyncio.to_thread(_next, folders):
            yield some

    async def head(self, key: str) -> ObjectHead | None:  # noqa: ARG002  # a folder has only bytes
        """Return None: a folder has no attributes of objects."""
        return None

    get = head


def _next(found: Iterator[Found]) -> list[Found]:
    try:
        return list(itertools.islice(found, _SOME))
    except OSError as error:
        raise StorageError("list", error.strerror or type(error).__name__) from None


def _walk(folder: str, prefix: str) -> Iterator[ListedObject]:
    # An explicit stack: deeply nested folders could exhaust that of Python.
    open_folders = [(folder, prefix, _names(folder))]
    while open_folders:
        folder, prefix, names = open_folders[-1]
        name = next(names, None)
        if name is None:
            open_folders.pop()
        elif name.endswith("/"):
            below = f"{folder}/{name[:-1]}"
            open_folders.append((below, prefix + name, _names(below)))
        elif stored := _stored(f"{folder}/{name}", prefix + name):
            yield stored


def _names(folder: str) -> Iterator[str]:
    """Yield the names in a folder in the order of their keys, in which a slash follows the name of a folder."""
    last = ""
    while some := heapq.nsmallest(_NAMES, _after(folder, last)):
        yield from some
        last = some[-1]
        if len(some) < _NAMES:
            return


def _after(folder: str, last: str) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name
            if name > last:
                yield name


def _stored(path: str, key: str) -> ListedObject | None:
    """Return a file; None if it is gone by now."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    # ctime, which programs cannot set, unlike mtime.
    return ListedObject(key, found.st_size if stat.S_ISREG(found.st_mode) else IRREGULAR, found.st_ctime)
