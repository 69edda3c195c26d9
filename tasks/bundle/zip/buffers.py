"""Access bytes in memory or in a mapped file, and define the store for contents that are too large for memory."""

import mmap
import re
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeAlias

Buffer: TypeAlias = bytes | memoryview
"""Bytes in memory, or a view of bytes in memory or in a mapped file."""

_DROP_EVERY = 1 << 20
# Linux only; other systems decide themselves when to drop pages.
_NOT_NEEDED: int | None = getattr(mmap, "MADV_DONTNEED", None)


class Store(Protocol):
    """A store that appends contents and returns all of them as one buffer."""

    def put(self, chunks: Iterable[Buffer]) -> tuple[int, int]:
        """Append the content of a file, and return its start and end offsets."""

    def mapped(self) -> memoryview:
        """Return all appended contents as one view."""


def split(data: Buffer, start: int, end: int, size: int) -> Iterator[Buffer]:
    """Yield a range of a buffer in pieces, and drop the pages of a mapped file from memory after they are read."""
    view = memoryview(data)
    for number, at in enumerate(range(start, end, size)):
        if number * size % _DROP_EVERY < size:
            drop_pages(data)
        yield view[at : min(at + size, end)]
    drop_pages(data)


def contains(data: Buffer, mark: re.Pattern[bytes], start: int, end: int) -> bool:
    """Return whether a range of a buffer contains a 4-byte mark; drop pages like ``split``."""
    view = memoryview(data)
    for at in range(start, end, _DROP_EVERY):
        if mark.search(view[at : min(at + _DROP_EVERY + 3, end)]):
            return True
        drop_pages(data)
    return False


def drop_pages(data: Buffer) -> None:
    """Drop the pages of a mapped file from memory; they can be read from disk again."""
    if isinstance(data, memoryview) and isinstance(data.obj, mmap.mmap) and _NOT_NEEDED is not None:
        data.obj.madvise(_NOT_NEEDED)
