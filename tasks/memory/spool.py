"""Spool content that is too large for memory to an unnamed file on disk, and map the file.

Only its owner can read the file, and the system removes it with its last user, so a killed process leaves nothing
behind. Mapped pages can be dropped from memory at any time because the disk has them; ``chunks`` drops them.
"""

import asyncio
import contextlib
import hashlib
import math
import mmap
import shutil
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from tasks.errors import SpoolError
from tasks.memory import buffer_pool
from tasks.memory.buffer_pool import Buffer
from tasks.memory.byte_budget import Reservation
from worker.clients.disk_errors import explain_disk_error

_AT_ONCE = 1 << 20
# Only Linux has it. Other systems decide themselves which pages to drop.
_NOT_NEEDED: int | None = getattr(mmap, "MADV_DONTNEED", None)
# Bytes of each file of this process, because an unnamed file appears in no listing. Threads and the garbage collector
# need no lock because each entry is set and removed in one step.
_on_disk: dict[object, int] = {}


def spooled_bytes() -> int:
    """Return how many bytes this process has spooled to disk."""
    return sum(tuple(_on_disk.values()))


def disk_space(folder: Path) -> tuple[float, float]:
    """Return the free bytes and the size of a folder's disk, each NaN if the system does not know them."""
    try:
        disk = shutil.disk_usage(folder)
    except OSError:
        return math.nan, math.nan
    return disk.free, disk.total


class Spool:
    """A file that contents are appended to, and that is then mapped as a whole.

    Args:
        folder: folder of the file; None for the system's folder for temporary files.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._size = 0
        self._name = object()

    def put(self, chunks: Iterable[Buffer]) -> tuple[int, int]:
        """Append the content of a file; return the positions where it begins and ends.

        Raises:
            SpoolError: the file could not be written, which is not the fault of a bundle.
        """
        begin = self._size
        with _translated():
            if self._file is None:
                self._file = TemporaryFile(dir=self._folder)  # noqa: SIM115  # close() or mapped() closes it
        for chunk in chunks:
            with _translated():
                self._file.write(chunk)
            self._size += len(chunk)
            _on_disk[self._name] = self._size
        return begin, self._size

    def mapped(self) -> memoryview:
        """Return all contents as one mapped view, which keeps the file alive.

        Raises:
            SpoolError: the file could not be written.
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
        """Close the file; mapped contents stay valid."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # closing flushes the file, which fails on a full disk
                self._file.close()
        _on_disk.pop(self._name, None)


class DownloadBuffer:
    """A buffer that collects and hashes content in chunks, and spools it if it is large or memory is short.

    Args:
        in_memory: bytes of the largest content in memory; larger ones are spooled.
        folder: folder of the file, as for ``Spool``.
        reservation: memory that it may use; None if no budget limits it.
    """

    def __init__(self, in_memory: int, folder: Path | None, reservation: Reservation | None = None) -> None:
        self._in_memory, self._reservation = in_memory, reservation
        self._spool = Spool(folder)
        self._hash = hashlib.sha256()
        self._buffer = memoryview(b"")
        self._filled = 0
        self._is_spooled = False
        self.size = 0

    async def expect(self, size: int) -> None:
        """Wait for memory for content of this size, or for the memory that spooling it takes."""
        size = size if size <= self._in_memory else _AT_ONCE
        if self._reservation:
            await self._reservation.resize(size)
        self._buffer = buffer_pool.borrow(size)

    async def add(self, chunk: bytes) -> None:
        """Add a chunk; wait for the disk in a thread, so that the sender waits, too.

        Raises:
            SpoolError: the chunk could not be written.
        """
        # Hashed here and not in a thread, because hashing a chunk takes no longer than waking up a thread.
        self._hash.update(chunk)
        self.size += len(chunk)
        if self._filled + len(chunk) > len(self._buffer) and not self._enlarge(self._filled + len(chunk)):
            await asyncio.to_thread(self._write, chunk)
            return
        self._buffer[self._filled : self._filled + len(chunk)] = chunk
        self._filled += len(chunk)

    async def whole(self) -> tuple[Buffer, str]:
        """Return the whole content, and its SHA-256 as 64 hex digits.

        Raises:
            SpoolError: the content could not be written.
        """
        if self._is_spooled:
            await asyncio.to_thread(self._write)
            self._buffer = memoryview(b"")
        if self._reservation:
            self._reservation.shrink(len(self._buffer) and self.size)
        whole = self._spool.mapped() if self._is_spooled else self._buffer[: self.size].toreadonly()
        return whole, self._hash.hexdigest()

    def close(self) -> None:
        """Close the spool; returned contents stay valid."""
        self._spool.close()

    def _enlarge(self, size: int) -> bool:
        """Enlarge the buffer to at least this size if the limits allow it; return whether they do."""
        if self._is_spooled or size > self._in_memory:
            return False
        size = min(max(size, 2 * len(self._buffer)), self._in_memory)
        if self._reservation and size > self._reservation.amount and not self._reservation.try_grow(size):
            return False
        larger = buffer_pool.borrow(size)
        larger[: self._filled] = self._buffer[: self._filled]
        self._buffer = larger
        return True

    def _write(self, chunk: bytes = b"") -> None:
        self._is_spooled = True
        self._spool.put([self._buffer[: self._filled], chunk])
        self._filled = 0
        if len(self._buffer) < _AT_ONCE:
            self._buffer = buffer_pool.borrow(_AT_ONCE)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpoolError(explain_disk_error(error)) from None


def chunks(data: Buffer, start: int, end: int, size: int) -> Iterator[Buffer]:
    """Yield a range of some bytes in chunks of ``size``; drop mapped pages from memory as they are passed."""
    view = memoryview(data)
    for number, at in enumerate(range(start, end, size)):
        if number * size % _AT_ONCE < size:
            drop_pages(data)
        yield view[at : min(at + size, end)]
    drop_pages(data)


def drop_pages(data: Buffer) -> None:
    """Drop the pages of a mapped file from memory; they can be read again from disk."""
    if isinstance(data, memoryview) and isinstance(data.obj, mmap.mmap) and _NOT_NEEDED is not None:
        data.obj.madvise(_NOT_NEEDED)
