"""Rebuild a refused ZIP from the members that can still be found in it.

The strict reader then checks each member of the rebuilt ZIP like that of any bundle. Members are found by their local
headers, so they never share bytes. Names and attributes come from the directory, if an entry for the member is found.
"""

import contextlib
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tasks.memory.buffer_pool import Buffer
from tasks.memory.spool import Spool, chunks

# The layouts of APPNOTE 6.3.10, chapter 4.3, without their signatures (marks).
_LOCAL, _LOCAL_MARK = struct.Struct("<5H3L2H"), b"PK\3\4"
_CENTRAL, _CENTRAL_MARK = struct.Struct("<6H3L5H2L"), b"PK\1\2"
_END, _END_MARK = struct.Struct("<4H2LH"), b"PK\5\6"
_DESCRIPTORS, _DESCRIPTOR_MARK = (struct.Struct("<3L"), struct.Struct("<L2Q")), b"PK\7\x08"
_MARK = 4
_HAS_DESCRIPTOR = 1 << 3
_VERSION = 20
_LIMIT = 0xFFFF_FFFF
_MOST_MARKS = 50_000
"""The maximum number of marks of each type to examine; it keeps the work bounded by the size of the file."""
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class RebuiltZip:
    """A ZIP rebuilt from the members found in a refused one.

    Attributes:
        data: the rebuilt ZIP, mapped.
        is_complete: whether the end record of the refused ZIP counts as many members as were found.
    """

    data: Buffer
    is_complete: bool


class _Descriptor(NamedTuple):
    """The CRC-32, the compressed size and the size of a member."""

    crc: int
    packed: int
    size: int


class _FoundMember(NamedTuple):
    """A member whose header and sizes were found."""

    flags: int
    method: int
    time: int
    date: int
    descriptor: _Descriptor
    name: bytes
    extra: bytes
    attributes: int
    data_offset: int

    @property
    def data_end(self) -> int:
        return self.data_offset + self.descriptor.packed


class _Listed(NamedTuple):
    """The directory entry of the member at an offset."""

    flags: int
    descriptor: _Descriptor
    name: bytes
    attributes: int


def rebuild_zip(data: Buffer, spool_dir: Path | None = None) -> RebuiltZip | None:
    """Return a ZIP of the recoverable members; None if none is found, or if the file needs Zip64.

    Raises:
        SpoolError: the rebuilt ZIP could not be spooled.
    """
    if len(data) >= _LIMIT:
        return None
    members = list(_find_members(data, _read_directory(data), _read_descriptors(data)))
    if not members:
        return None
    with contextlib.closing(Spool(spool_dir)) as spool:
        spool.put(_write(data, members))
        return RebuiltZip(spool.mapped(), is_complete=_count_listed(data) == len(members))


def _find_marks(data: Buffer, mark: bytes, layout: struct.Struct) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the offset and the fields of each header with this mark."""
    for found in islice(re.finditer(re.escape(mark), data), _MOST_MARKS):
        if found.end() + layout.size <= len(data):
            yield found.start(), layout.unpack_from(data, found.end())


def _read_directory(data: Buffer) -> dict[int, _Listed | None]:
    """Return the directory entries by the offset of the local header; None for duplicate or truncated entries."""
    listed: dict[int, _Listed | None] = {}
    for at, fields in _find_marks(data, _CENTRAL_MARK, _CENTRAL):
        flags, crc, packed, size, name_length, attributes, offset = (fields[i] for i in (2, 6, 7, 8, 9, 14, 15))
        name_at = at + _MARK + _CENTRAL.size
        name = bytes(data[name_at : name_at + name_length])
        is_sound = offset not in listed and len(name) == name_length
        listed[offset] = _Listed(flags, _Descriptor(crc, packed, size), name, attributes) if is_sound else None
    return listed


def _read_descriptors(data: Buffer) -> dict[int, _Descriptor]:
    """Return the values of each data descriptor, by the start offset of the data before it."""
    descriptors: dict[int, _Descriptor] = {}
    for layout in _DESCRIPTORS:
        for at, fields in _find_marks(data, _DESCRIPTOR_MARK, layout):
            descriptor = _Descriptor(*fields)
            if descriptor.packed <= at:
                descriptors.setdefault(at - descriptor.packed, descriptor)
    return descriptors


def _find_members(
    data: Buffer, directory: Mapping[int, _Listed | None], descriptors: Mapping[int, _Descriptor]
) -> Iterator[_FoundMember]:
    free_from = 0
    for at, fields in _find_marks(data, _LOCAL_MARK, _LOCAL):
        if at < free_from:
            continue
        member = _read_member(data, at, fields, directory.get(at), descriptors)
        if member is None:
            continue
        if member.data_end > len(data):
            # The file is truncated, so the rest of it is the beginning of this member's data.
            return
        yield member
        free_from = member.data_end


def _read_member(
    data: Buffer, at: int, fields: Sequence[int], listed: _Listed | None, descriptors: Mapping[int, _Descriptor]
) -> _FoundMember | None:
    """Return the member whose header is at an offset; None if the end of its data is unknown."""
    _, flags, method, time, date, *numbers, name_length, extra_length = fields
    extra_at = at + _MARK + _LOCAL.size + name_length
    data_at = extra_at + extra_length
    known = listed.descriptor if listed else None
    descriptor: _Descriptor | None = _Descriptor(*numbers)
    if flags & _HAS_DESCRIPTOR:
        descriptor = descriptors.get(data_at, known)
    elif _LIMIT in numbers:
        descriptor = known
    if descriptor is None or max(descriptor) > _LIMIT:
        return None
    name = listed.name if listed else bytes(data[extra_at - name_length : extra_at])
    flags, attributes = (listed.flags, listed.attributes) if listed else (flags, 0)
    extra = bytes(data[extra_at:data_at])
    return _FoundMember(flags & ~_HAS_DESCRIPTOR, method, time, date, descriptor, name, extra, attributes, data_at)


def _count_listed(data: Buffer) -> int | None:
    """Return the number of members in the last end record; None if the file has no end record."""
    counts = [fields[3] for _, fields in _find_marks(data, _END_MARK, _END)]
    return counts[-1] if counts else None


def _write(data: Buffer, members: Sequence[_FoundMember]) -> Iterator[Buffer]:
    at, directory = 0, b""
    for member in members:
        common = _VERSION, *member[:4], *member.descriptor, len(member.name), len(member.extra)
        directory += _CENTRAL_MARK + _CENTRAL.pack(_VERSION, *common, 0, 0, 0, member.attributes, at)
        directory += member.name + member.extra
        header = _LOCAL_MARK + _LOCAL.pack(*common) + member.name + member.extra
        yield header
        yield from chunks(data, member.data_offset, member.data_end, _CHUNK)
        at += len(header) + member.descriptor.packed
    yield directory
    yield _END_MARK + _END.pack(0, 0, len(members), len(members), len(directory), at, 0)
