"""Places in memory for what is about a megabyte, lent and used again.

Bundles and photographs come and go by the dozen and never fit into each other's holes, so that an allocator keeps more
than twice what is in use; and a new place from the system for each costs half a millisecond of page faults. So there
are some that stay, and what is needed beyond those is given back at once (``docs/performance.md``).
"""

import ctypes
import mmap
import weakref
from collections.abc import Iterable
from typing import TypeAlias

Buffer: TypeAlias = bytes | memoryview
"""Bytes in memory, or a view of such or of a mapped file; all slice and unpack alike."""

SIZE = 1 << 20
"""Bytes of a buffer."""
_MAX_FREE = 64
_PLACE = ctypes.c_char * SIZE
# Whoever looks at one last, the collector of garbage or a thread of the bucket's client, gives it back: a list's append
# and pop need no lock.
_free: list[mmap.mmap] = []


def borrow() -> memoryview:
    """Return a buffer with anything in it. It is lent until nobody looks at it any more, nor at a part of it."""
    try:
        place = _free.pop()
    except IndexError:
        place = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # Every view keeps this one alive, which a view of the map itself would not be for its parts.
    lent = _PLACE.from_buffer(place)
    weakref.finalize(lent, _give_back, place).atexit = False
    return memoryview(lent).cast("B")


def _give_back(place: mmap.mmap) -> None:
    if len(_free) < _MAX_FREE:
        _free.append(place)


class Arena:
    """One buffer that contents are put into, one after the other: what a ``Spool`` is for, without a disk."""

    def __init__(self) -> None:
        self._buffer = borrow()
        self._size = 0

    def put(self, chunks: Iterable[Buffer]) -> tuple[int, int]:
        """Append a content; return where it begins and ends.

        Raises:
            ValueError: it does not fit.
        """
        begin = self._size
        for chunk in chunks:
            end = self._size + len(chunk)
            self._buffer[self._size : end] = chunk
            self._size = end
        return begin, self._size

    def mapped(self) -> memoryview:
        """Return everything that was put in."""
        return self._buffer[: self._size].toreadonly()
