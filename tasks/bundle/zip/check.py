"""Check before unpacking that every reader would read a ZIP in the same way.

ZIP readers differ in how they handle a file that contradicts itself. A file that two readers understand differently
proves nothing. This module therefore refuses contradictory files before any byte is inflated.

Real files vary in some details. This module decides them as follows:

* Blanks, NULs and line ends may follow the end record, as in files from bsdtar and PHP. The record may have a comment.
  A comment with the mark of an end record is refused, because some readers use the first mark from the back.
* Any bytes without the mark of a header or an end record may precede the first member. Offsets may count these bytes
  (self-extractors) or not.
* Gaps between members are allowed, unless one contains the mark of a member. A streaming reader would find a document
  there that the directory does not list.
* A data descriptor may have any of its four forms. The local header before it may contain zeros, the true values or,
  from some streaming writers, saturated sizes. Some writers set the descriptor flag in only one of the two headers. A
  true descriptor must follow in this case as well.
* The UTF-8 flag may differ if the name is ASCII. A backslash in one header may be a slash in the other.
* An extra field is read in two cases only. A saturated value requires the Zip64 field, and a Unicode Path gives a
  name, which ``names`` compares.

The size of the file bounds the work. Apart from sorting, nothing is examined twice.
"""

import re
from dataclasses import replace
from typing import NamedTuple

from tasks.bundle.zip.buffers import Buffer, contains
from tasks.bundle.zip.directory import (
    DESCRIPTOR,
    ENCRYPTED,
    LOCAL,
    MARKS,
    MASKED_HEADERS,
    SATURATED,
    STRONGLY_ENCRYPTED,
    UTF8_NAME,
    ZipEntry,
    check_names,
    list_directory,
    unicode_paths,
    zip64_sizes,
)
from tasks.bundle.zip.errors import BadZip

# Most other flags are hints from the compressor, and some writers set them in one header only.
_FLAGS_THAT_MATTER = ENCRYPTED | STRONGLY_ENCRYPTED | MASKED_HEADERS
_SLASHES = bytes.maketrans(b"\\", b"/")

_LOCAL_MARK = b"PK\3\4"
_MEMBER = re.compile(_LOCAL_MARK)
_DESCRIPTOR_MARK = b"PK\7\x08"


class _LocalHeader(NamedTuple):
    """The fields of a local header."""

    mark: bytes
    flags: int
    method: int
    crc: int
    compressed_size: int
    size: int
    name: bytes
    extra: bytes


MAX_NAME_BYTES = 1 << 20
"""The maximum size of all names in a ZIP together: a thousand names of 1 KiB each."""


class Padding(NamedTuple):
    """The number of padding bytes before the first member and after the end record."""

    before: int
    after: int


NO_PADDING = Padding(0, 0)


class CheckedZip(NamedTuple):
    """The entries of a consistent ZIP, in the order of the directory, and its padding."""

    entries: tuple[ZipEntry, ...]
    padding: Padding


def check(data: Buffer, *, max_entries: int, max_name_bytes: int = MAX_NAME_BYTES) -> CheckedZip:
    """Return the entries of a ZIP if it is consistent.

    The reader compares the compressed data with its entry later. Members are checked in the order of the file, and
    overlaps come first. Otherwise a header that a thousand entries share would be read a thousand times.

    Args:
        data: the whole ZIP.
        max_entries: the maximum number of entries, including folders.
        max_name_bytes: the maximum size of all names together, including Unicode Paths.

    Raises:
        BadZip: the data is not a ZIP, is truncated, is ambiguous or exceeds a limit.
    """
    entries, directory_start, after, name_bytes = list_directory(
        data, max_entries=max_entries, max_name_bytes=max_name_bytes
    )
    in_order = sorted(entries, key=lambda entry: entry.header_offset)
    before = in_order[0].header_offset if in_order else directory_start
    if contains(data, MARKS, 0, before):
        raise BadZip("hidden_member", "bytes before its first member look like a member or a directory")
    local_paths: dict[int, tuple[bytes, ...]] = {}
    free_from = before
    for entry in in_order:
        if entry.header_offset < free_from:
            raise BadZip("overlapping_members", "two of its members share bytes")
        _check_gap(data, free_from, entry.header_offset)
        local = _read_local_header(data, entry)
        _check_local_header(entry, local)
        if paths := unicode_paths(local.extra):
            local_paths[entry.header_offset] = paths
            name_bytes += sum(map(len, paths))
            check_names(name_bytes, max_name_bytes)
        has_descriptor = (local.flags | entry.flags) & DESCRIPTOR
        free_from = _end_of_descriptor(data, entry) if has_descriptor else entry.data_end
    if free_from > directory_start:
        raise BadZip("overlapping_members", "a member and the directory share bytes")
    _check_gap(data, free_from, directory_start)
    named = (replace(entry, local_unicode_paths=local_paths.get(entry.header_offset, ())) for entry in entries)
    return CheckedZip(tuple(named) if local_paths else entries, Padding(before, after))


def _check_gap(data: Buffer, start: int, end: int) -> None:
    if contains(data, _MEMBER, start, end):
        raise BadZip("hidden_member", "it holds a member that its directory does not name")


def _read_local_header(data: Buffer, entry: ZipEntry) -> _LocalHeader:
    mark, _needed, flags, method, _time, _date, crc, packed, size, name_length, _ = LOCAL.unpack_from(
        data, entry.header_offset
    )
    name_at = entry.header_offset + LOCAL.size
    extra_at = name_at + name_length
    extra = bytes(data[extra_at : entry.data_offset])
    size, packed = zip64_sizes(extra, (size, packed))
    return _LocalHeader(mark, flags, method, crc, packed, size, bytes(data[name_at:extra_at]), extra)


def _check_local_header(entry: ZipEntry, local: _LocalHeader) -> None:
    differing = local.flags ^ entry.flags
    agrees = (
        local.mark == _LOCAL_MARK
        and _is_same_name(entry.name, local.name)
        and local.method == entry.method
        and not differing & _FLAGS_THAT_MATTER
        and (entry.name.isascii() or not differing & UTF8_NAME)
    )
    if not agrees or not _sizes_agree(entry, local):
        raise BadZip("local_header_differs", "a member's own header and the directory disagree")


def _is_same_name(name: bytes, other: bytes) -> bool:
    return name == other or name.translate(_SLASHES) == other.translate(_SLASHES)


def _sizes_agree(entry: ZipEntry, local: _LocalHeader) -> bool:
    if not local.flags & DESCRIPTOR:
        return (local.crc, local.compressed_size, local.size) == (entry.crc, entry.compressed_size, entry.size)
    return (
        local.crc in (0, entry.crc)
        and local.compressed_size in (0, SATURATED, entry.compressed_size)
        and local.size in (0, SATURATED, entry.size)
    )  # fmt: skip


def _end_of_descriptor(data: Buffer, entry: ZipEntry) -> int:
    """Return the end of a data descriptor (APPNOTE 4.3.9), which is narrow or wide, with or without a mark."""
    crc = entry.crc.to_bytes(4, "little")
    narrow = max(entry.compressed_size, entry.size) <= SATURATED
    for width in (4, 8) if narrow else (8,):
        figures = crc + entry.compressed_size.to_bytes(width, "little") + entry.size.to_bytes(width, "little")
        for descriptor in (_DESCRIPTOR_MARK + figures, figures):
            end = entry.data_end + len(descriptor)
            if data[entry.data_end : end] == descriptor:
                return end
    raise BadZip("bad_descriptor", "the sizes after a member and the directory disagree")
