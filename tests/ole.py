"""Minimal OLE compound files: a header, the allocation table, the directory."""

import struct
from collections.abc import Sequence
from uuid import UUID

FREE, END = 0xFFFFFFFF, 0xFFFFFFFE
NO_CLASS_ID = UUID(int=0)
_SIGNATURE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_STORAGE, _STREAM = 1, 2


def compound_file(
    *names: str, nested: Sequence[str] = (), class_id: UUID = NO_CLASS_ID, shift: int = 9, before: int = 0
) -> bytes:
    """Return a compound file with these names in its root.

    Args:
        nested: names in a storage within the root, such as those of an embedded document.
        class_id: of the root.
        shift: binary logarithm of the sector size, 9 or 12.
        before: sectors before the directory.
    """
    size = 1 << shift
    numbers = size // 4
    directory = _directory(names, nested, class_id, size)
    directory_sectors = len(directory) // size
    tables = -(-(before + directory_sectors + 64) // (numbers - 1))
    more = max(0, -(-(tables - 109) // (numbers - 1)))
    first = tables + more + before
    table = [FREE] * (tables * numbers)
    table[first : first + directory_sectors] = [*range(first + 1, first + directory_sectors), END]
    versions_and_shifts = 0x3E, 3, 0xFFFE, shift, 6
    counts_and_places = 0, tables, first, 0, 4096, END, 0, tables if more else END, more
    header = struct.pack("<8s16x5H6x9I", _SIGNATURE, *versions_and_shifts, *counts_and_places)
    in_header = [*range(min(tables, 109)), *[FREE] * max(0, 109 - tables)]
    parts = [(header + struct.pack("<109I", *in_header)).ljust(size, b"\0"), struct.pack(f"<{len(table)}I", *table)]
    for number in range(more):
        begin = 109 + number * (numbers - 1)
        listed = [each if each < tables else FREE for each in range(begin, begin + numbers - 1)]
        parts.append(struct.pack(f"<{numbers}I", *listed, tables + number + 1 if number + 1 < more else END))
    return b"".join((*parts, bytes(before * size), directory))


def _directory(names: Sequence[str], nested: Sequence[str], class_id: UUID, size: int) -> bytes:
    """Return the entries: each name of a storage is the right sibling of the one before."""
    level = [*names, "ObjectPool"] if nested else list(names)
    inner = len(level) + 1
    entries = [_entry("Root Entry", FREE, 1 if level else FREE, class_id)]
    for number, name in enumerate(level, 1):
        child = inner if nested and number == len(level) else FREE
        entries.append(_entry(name, number + 1 if number < len(level) else FREE, child))
    for number, name in enumerate(nested, inner):
        entries.append(_entry(name, number + 1 if number < inner + len(nested) - 1 else FREE, FREE))
    directory = b"".join(entries)
    return directory.ljust(-(-len(directory) // size) * size, b"\0")


def _entry(name: str, right: int, child: int, class_id: UUID = NO_CLASS_ID) -> bytes:
    encoded = name.encode("utf-16-le") + b"\0\0"
    sort = _STREAM if child == FREE else _STORAGE
    return struct.pack("<64sHBBIII16s32x", encoded, len(encoded), sort, 1, FREE, right, child, class_id.bytes_le)
