"""Bytes that are too many for memory: in a file without a name on disk, mapped.

The file is readable by its owner only and goes with its last user: whoever dies leaves nothing behind. Mapped bytes
can be thrown out of memory at any time, since the disk has them, and whoever reads a lot of them does so.
"""

import asyncio
import contextlib
import hashlib
import mmap
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from tasks.errors import SpoolError
from tasks.memory import buffer_pool
from tasks.memory.buffer_pool import Buffer

_AT_ONCE = 1 << 20
# Linux; elsewhere the system throws out what it likes.
_NOT_NEEDED: int | None = getattr(mmap, "MADV_DONTNEED", None)
# Bytes of each file of this process: a file without a name is in no listing. Each is set and taken out by itself, so
# that threads, and the collector of garbage, need no lock.
_on_disk: dict[object, int] = {}


def spooled_bytes() -> int:
    """Return how many bytes this process has on disk."""
    return sum(tuple(_on_disk.values()))


class Spool:
    """A file that contents are put into one after the other, and mapped all at once.

    Args:
        folder: where the file is; the system's folder for temporary files where it is None.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._size = 0
        self._name = object()

    def put(self, chunks: Iterable[Buffer]) -> tuple[int, int]:
        """Append a content; return where it begins and ends.

        Raises:
            SpoolError: it could not be written; no bundle is to blame.
        """
        begin = self._size
        with _translated():
            if self._file is None:
                self._file = TemporaryFile(dir=self._folder)  # noqa: SIM115  # it lives as long as we do
        for chunk in chunks:
            with _translated():
                self._file.write(chunk)
            self._size += len(chunk)
            _on_disk[self._name] = self._size
        return begin, self._size

    def mapped(self) -> memoryview:
        """Return everything that was put in; the mapping keeps the file.

        Raises:
            SpoolError: it could not be written.
        """
        if self._file is None or not self._size:
            return memoryview(b"")
        with _translated(), self._file as file:
            file.flush()
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        weakref.finalize(mapping, _on_disk.pop, self._name, None).atexit = False
        self._name = object()
        return memoryview(mapping)

    def close(self) -> None:
        """Let go of the file; what is mapped stays."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what was not written yet has no room on a full disk
                self._file.close()
        _on_disk.pop(self._name, None)


class DownloadBuffer:
    """A content that arrives in chunks: in memory while it is small, else spooled; hashed on the way.

    Args:
        in_memory: bytes; a larger content is spooled.
        folder: see Spool.
    """

    def __init__(self, in_memory: int, folder: Path | None) -> None:
        self._in_memory = in_memory
        self._spool = Spool(folder)
        self._hash = hashlib.sha256()
        # Most bundles are little, and a buffer takes them. What is larger grows: chunks that are put together in the
        # end would take it twice.
        self._buffer = buffer_pool.borrow() if in_memory >= buffer_pool.SIZE else memoryview(b"")
        self._waiting = bytearray()
        self.size = 0

    async def add(self, chunk: bytes) -> None:
        """Take a chunk; the disk is waited for in a thread, so that whoever sends waits, too.

        Raises:
            SpoolError: it could not be written.
        """
        # Hashed here and not by a thread in the end: a chunk takes no longer than waking up a thread does.
        self._hash.update(chunk)
        begin, self.size = self.size, self.size + len(chunk)
        if self.size <= len(self._buffer):
            self._buffer[begin : self.size] = chunk
            return
        if self._buffer:
            self._waiting += self._buffer[:begin]
            self._buffer = memoryview(b"")
        self._waiting += chunk
        if self.size > self._in_memory and len(self._waiting) >= _AT_ONCE:
            await asyncio.to_thread(self._write)

    async def whole(self) -> tuple[Buffer, str]:
        """Return all of it, and its SHA-256 as 64 hex digits.

        Raises:
            SpoolError: it could not be written.
        """
        if self.size <= self._in_memory:
            whole = self._buffer[: self.size] if self._buffer else memoryview(self._waiting)
            return whole.toreadonly(), self._hash.hexdigest()
        await asyncio.to_thread(self._write)
        return self._spool.mapped(), self._hash.hexdigest()

    def close(self) -> None:
        """Let go of what was spooled; what was returned stays."""
        self._spool.close()

    def _write(self) -> None:
        self._spool.put([memoryview(self._waiting)])
        self._waiting = bytearray()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpoolError(error.strerror or type(error).__name__) from None


def chunks(data: Buffer, start: int, end: int, size: int) -> Iterator[Buffer]:
    """Yield a part of some bytes, so many at a time; what has been passed need not stay in memory."""
    view = memoryview(data)
    for number, at in enumerate(range(start, end, size)):
        if number * size % _AT_ONCE < size:
            drop_pages(data)
        yield view[at : min(at + size, end)]
    drop_pages(data)


def drop_pages(data: Buffer) -> None:
    """Throw out of memory what is mapped and can be read again from disk."""
    if isinstance(data, memoryview) and isinstance(data.obj, mmap.mmap) and _NOT_NEEDED is not None:
        data.obj.madvise(_NOT_NEEDED)
