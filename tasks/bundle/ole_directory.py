"""Read the root directory of an OLE compound file ([MS-CFB]): legacy Office, Outlook, installers, encrypted OOXML.

olefile is not used, because it follows a cycle in the table of tables for as long as the header promises. This module
follows at most as many sectors of a chain as the file has, and limits the number of directory entries.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from uuid import UUID

from tasks.memory.buffer_pool import Buffer

SIGNATURE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

_MAX_ENTRIES = 16_384
_MAX_NAMES = 4_096
_ENTRY = struct.Struct("<64sHBBIII16s")  # name, length of the name, type, color, left, right, child, class ID
_ENTRY_BYTES = 128
_HEADER_BYTES = 512
_SECTOR_SHIFTS = (9, 12)
_NUMBER = struct.Struct("<I")
_SHIFT_AT, _DIRECTORY_AT, _MORE_TABLES_AT, _TABLES_AT = 30, 48, 68, 76
_TABLES_IN_HEADER = 109


@dataclass(frozen=True, slots=True)
class OleRoot:
    """The root of a compound file.

    Attributes:
        names: the names of the streams and storages directly below it, in lower case because case does not matter.
        class_id: the class ID of the program that wrote the file; zero in many files.
    """

    names: frozenset[str]
    class_id: UUID


def read_root(data: Buffer) -> OleRoot | None:
    """Return the root of a compound file, from the readable part of its directory; None if it has no readable root."""
    if len(data) < _HEADER_BYTES or data[_SHIFT_AT] not in _SECTOR_SHIFTS:
        return None
    sectors = _Sectors(data, 1 << data[_SHIFT_AT])
    in_sector = sectors.size // _ENTRY_BYTES
    chain = list(islice(sectors.follow(_number(data, _DIRECTORY_AT)), _MAX_ENTRIES // in_sector))
    places = [start + number * _ENTRY_BYTES for start in chain for number in range(in_sector)]
    if not places or places[0] + _ENTRY_BYTES > len(data):
        return None
    *_, child, class_id = _ENTRY.unpack_from(data, places[0])
    return OleRoot(frozenset(_names(data, places, child)), UUID(bytes_le=class_id))


def _names(data: Buffer, places: list[int], first: int) -> Iterator[str]:
    """Yield the names in a tree of siblings; each entry has the numbers of its left and right siblings."""
    seen: set[int] = set()
    waiting = [first]
    while waiting and len(seen) < _MAX_NAMES:
        number = waiting.pop()
        if number in seen or number >= len(places) or places[number] + _ENTRY_BYTES > len(data):
            continue
        seen.add(number)
        name, length, _type, _color, left, right, *_ = _ENTRY.unpack_from(data, places[number])
        yield name[: max(length - 2, 0)].decode("utf-16-le", "replace").lower()
        waiting += (left, right)


class _Sectors:
    """The sectors of a compound file, and the allocation table that chains them."""

    def __init__(self, data: Buffer, size: int) -> None:
        self.size = size
        self._data = data
        self._in_table = size // _NUMBER.size
        self._tables = self._find_tables()

    def follow(self, number: int) -> Iterator[int]:
        """Yield the start of each sector in a chain, for at most as many sectors as the file has."""
        for _ in range(len(self._data) // self.size):
            start = self._start(number)
            if start >= len(self._data):
                return
            yield start
            table, place = divmod(number, self._in_table)
            if table >= len(self._tables):
                return
            number = _number(self._data, self._start(self._tables[table]) + place * _NUMBER.size)

    def _find_tables(self) -> list[int]:
        """Return the sectors that hold the allocation table; stop once there are enough for the file size."""
        needed = len(self._data) // (self.size * self._in_table) + 1
        tables = list(struct.unpack_from(f"<{_TABLES_IN_HEADER}I", self._data, _TABLES_AT))
        number = _number(self._data, _MORE_TABLES_AT)
        while len(tables) < needed and self._start(number) + self.size <= len(self._data):
            *more, number = struct.unpack_from(f"<{self._in_table}I", self._data, self._start(number))
            tables += more
        return tables

    def _start(self, number: int) -> int:
        return (number + 1) * self.size


def _number(data: Buffer, at: int) -> int:
    """Return the number at an offset; beyond the end of the file, it is the mark of a free sector."""
    return int.from_bytes(bytes(data[at : at + _NUMBER.size]).ljust(_NUMBER.size, b"\xff"), "little")
