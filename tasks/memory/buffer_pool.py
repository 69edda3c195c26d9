"""A pool of large buffers that are reused.

malloc keeps more than twice the memory that bundles and photographs use, because freed blocks rarely fit the next one.
Fresh pages from the system cost half a millisecond per megabyte (``docs/performance.md``).
"""

import contextlib
import ctypes
import mmap
import weakref
from collections.abc import Iterable
from typing import TypeAlias

Buffer: TypeAlias = bytes | memoryview
"""Bytes in memory, or a view of bytes or of a mapped file; all of them can be sliced and unpacked in the same way."""

SIZE = 1 << 20
"""Bytes of the smallest buffer; larger ones are multiples of it."""

# The last user of a buffer may be a thread of the bucket's client, or the garbage collector. These containers need no
# lock because each step on them is atomic.
_free: list[mmap.mmap] = []
_lent: set[mmap.mmap] = set()
_most_lent = 0


def borrow(size: int) -> memoryview:
    """Return a buffer of this size with arbitrary content; it is lent as long as a view of any part of it exists."""
    global _most_lent  # noqa: PLW0603  # buffers belong to the process, as malloc's do
    block = _take_free(size) or mmap.mmap(-1, _round_up(size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    _lent.add(block)
    _most_lent = max(_most_lent, _total(_lent))
    # Every view of this object keeps it alive. A slice of a view of the map would not keep that view alive.
    lent = (ctypes.c_char * len(block)).from_buffer(block)
    weakref.finalize(lent, _give_back, block).atexit = False
    return memoryview(lent).cast("B")[:size]


def _round_up(size: int) -> int:
    return max(1, -(-size // SIZE)) * SIZE


def _take_free(size: int) -> mmap.mmap | None:
    """Take the smallest free block that fits, or return None if it would waste too much memory."""
    for block in sorted(_free, key=len):
        if size <= len(block) <= _round_up(size * 5 // 4):
            with contextlib.suppress(ValueError):  # another thread took it
                _free.remove(block)
                return block
    return None


def _give_back(block: mmap.mmap) -> None:
    """Keep a block; return the oldest ones to the system if there are more than were ever in use at once."""
    _lent.discard(block)
    _free.append(block)
    with contextlib.suppress(IndexError):
        while _total(_free) + _total(_lent) > _most_lent:
            del _free[0]


def _total(blocks: Iterable[mmap.mmap]) -> int:
    return sum(map(len, tuple(blocks)))


class Arena:
    """One buffer that contents are appended to, like a ``Spool`` in memory.

    Args:
        size: bytes of all contents.
    """

    def __init__(self, size: int) -> None:
        self._buffer = borrow(size)
        self._size = 0

    def put(self, chunks: Iterable[Buffer]) -> tuple[int, int]:
        """Append the content of a file; return the positions where it begins and ends.

        Raises:
            ValueError: the content does not fit.
        """
        begin = self._size
        for chunk in chunks:
            end = self._size + len(chunk)
            self._buffer[self._size : end] = chunk
            self._size = end
        return begin, self._size

    def mapped(self) -> memoryview:
        """Return all contents as one read-only view."""
        return self._buffer[: self._size].toreadonly()
