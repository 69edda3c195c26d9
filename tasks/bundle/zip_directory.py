"""What a ZIP says of itself at its end: its directory, entry by entry.

Field names and layouts follow PKWARE's APPNOTE 6.3.10, chapter 4.3. What contradicts itself, or reaches outside the
file, is refused. Nothing is copied but names and extra fields.
"""

import re
import struct
from dataclasses import dataclass
from typing import NamedTuple

from tasks.errors import BadBundle
from tasks.memory.buffer_pool import Buffer

ENCRYPTED = 1 << 0
LZMA_END_MARK = 1 << 1
DESCRIPTOR = 1 << 3
STRONGLY_ENCRYPTED = 1 << 6
UTF8_NAME = 1 << 11
MASKED_HEADERS = 1 << 13

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")
"""A member's own header, without name and extra field."""
_NAME_AND_EXTRA = struct.Struct("<2H")
_EXTRA = struct.Struct("<2H")

_END_MARK = b"PK\5\6"
_END64_MARK = b"PK\6\6"
_LOCATOR_MARK = b"PK\6\7"
_CENTRAL_MARK = b"PK\1\2"

_ZIP64_EXTRA = 0x0001
_END64_LENGTH = _END64.size - 12  # APPNOTE 4.3.14.1: without the mark and this figure itself
_MAX_COMMENT = 0xFFFF
SATURATED = 0xFFFF_FFFF
"""A figure that a Zip64 record tells in full."""


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """One entry of the directory, whose local header was found and says the same.

    Attributes:
        name: as it stands there, undecoded.
        flags: general purpose flags.
        method: compression method.
        date: day of the last change, in MS-DOS format.
        time: time of the last change, in MS-DOS format, of no known zone.
        crc: CRC-32 of the content, as promised.
        compressed_size: bytes of the compressed data; they lie in the file.
        size: bytes of the content, as promised.
        attributes: external attributes; a Unix mode in the upper half.
        header_offset: where the local header begins, in bytes from the start of the file.
        data_offset: where the compressed data begins.
    """

    name: bytes
    flags: int
    method: int
    date: int
    time: int
    crc: int
    compressed_size: int
    size: int
    attributes: int
    header_offset: int
    data_offset: int

    @property
    def data_end(self) -> int:
        """Where the compressed data ends."""
        return self.data_offset + self.compressed_size


class _Totals(NamedTuple):
    """What an end record says, in the order in which both of its forms say it."""

    disk: int
    directory_disk: int
    entries_here: int
    entries: int
    size: int
    offset: int


_SATURATED_TOTALS = _Totals(0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, SATURATED, SATURATED)


class _Directory(NamedTuple):
    """Where the central directory lies, in bytes from the start of the file, and its number of entries."""

    start: int
    end: int
    entries: int


def entries_of(data: Buffer, *, max_entries: int) -> tuple[tuple[ZipEntry, ...], int]:
    """Return the entries of a bundle in the directory's order, and where the directory begins.

    Raises:
        BadBundle: the bundle is no ZIP, is cut short, is ambiguous or lists too much.
    """
    directory = _find_directory(data)
    if directory.entries > max_entries:
        raise BadBundle("too_many_documents", f"it lists {directory.entries} entries; allowed are {max_entries}")
    entries, at = [], directory.start
    for _ in range(directory.entries):
        entry, at = _read_entry(data, at, directory)
        entries.append(entry)
    if at != directory.end:
        raise BadBundle("bad_directory", "its directory is longer than its entries")
    return tuple(entries), directory.start


def _find_directory(data: Buffer) -> _Directory:
    end = _find_end(data)
    totals = _Totals._make(_END.unpack_from(data, end)[1:-1])
    locator = end - _LOCATOR.size
    if locator >= 0 and data[locator : locator + 4] == _LOCATOR_MARK:
        end, totals = _end64(data, locator, totals)
    if totals.disk or totals.directory_disk or totals.entries_here != totals.entries:
        raise BadBundle("multi_disk", "it is one part of an archive that spans several")
    if totals.offset + totals.size != end:
        raise BadBundle("misplaced_directory", "its directory is not where the end record says")
    return _Directory(totals.offset, end, totals.entries)


def _find_end(data: Buffer) -> int:
    """Return where the end record begins: the one that reaches to the end of the file."""
    start = max(0, len(data) - _END.size - _MAX_COMMENT)
    marks = [start + mark.start() for mark in re.finditer(_END_MARK, data[start:])]
    reaching = [at for at in marks if _end_of_comment(data, at) == len(data)]
    if not reaching:
        raise BadBundle("no_end_record", "no end record closes it: it is no ZIP, cut short or added to")
    if reaching != marks[-1:]:
        raise BadBundle("ambiguous_end", "it has more than one end record, and readers would disagree")
    return reaching[0]


def _end_of_comment(data: Buffer, at: int) -> int:
    comment_at = at + _END.size
    return comment_at + int.from_bytes(data[comment_at - 2 : comment_at], "little")


def _end64(data: Buffer, locator: int, short: _Totals) -> tuple[int, _Totals]:
    """Return where the Zip64 end record begins, which is where the directory ends, and what it says."""
    _, disk, at, disks = _LOCATOR.unpack_from(data, locator)
    if disk or disks > 1:
        raise BadBundle("multi_disk", "it is one part of an archive that spans several")
    # The extensible form of the record is for encrypted directories; nothing else needs the room.
    if at != locator - _END64.size or data[at : at + 4] != _END64_MARK:
        raise BadBundle("bad_zip64", "its Zip64 end record is not where the locator says")
    _, length, _made_by, _needed, *figures = _END64.unpack_from(data, at)
    totals = _Totals._make(figures)
    agreed = all(mine in (full, theirs) for mine, theirs, full in zip(short, totals, _SATURATED_TOTALS, strict=True))
    if length != _END64_LENGTH or not agreed:
        raise BadBundle("bad_zip64", "its Zip64 end record and its end record disagree")
    return at, totals


def _read_entry(data: Buffer, offset: int, directory: _Directory) -> tuple[ZipEntry, int]:
    """Return the entry whose central header stands there, and where the next one begins."""
    name_at = offset + _CENTRAL.size
    if name_at > directory.end or data[offset : offset + 4] != _CENTRAL_MARK:
        raise BadBundle("bad_directory", "its directory holds fewer entries than it says, or other things")
    (_, _made_by, _needed, flags, method, time, date, crc, packed, size,
     name_length, extra_length, comment_length, disk, _internal, attributes, header_at,
    ) = _CENTRAL.unpack_from(data, offset)  # fmt: skip
    extra_at = name_at + name_length
    comment_at = extra_at + extra_length
    following = comment_at + comment_length
    if following > directory.end:
        raise BadBundle("bad_directory", "an entry of its directory reaches beyond the directory")
    if disk:
        raise BadBundle("multi_disk", "it is one part of an archive that spans several")
    size, packed, header_at = zip64_sizes(bytes(data[extra_at:comment_at]), (size, packed, header_at))
    data_at = _find_data_offset(data, header_at, directory.start)
    if data_at + packed > directory.start:
        raise BadBundle("outside_file", "a member reaches into the directory or beyond the file")
    name = bytes(data[name_at:extra_at])
    return ZipEntry(name, flags, method, date, time, crc, packed, size, attributes, header_at, data_at), following


def _find_data_offset(data: Buffer, header_offset: int, upto: int) -> int:
    name_at = header_offset + LOCAL.size
    if name_at > upto:
        raise BadBundle("outside_file", "a member begins in the directory or beyond the file")
    name_length, extra_length = _NAME_AND_EXTRA.unpack_from(data, name_at - _NAME_AND_EXTRA.size)
    return name_at + int(name_length) + int(extra_length)


def zip64_sizes(extra: bytes, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the figures, those that are saturated as the Zip64 extra field has them (APPNOTE 4.5.3).

    A saturated figure without such a field means itself.
    """
    missing = sizes.count(SATURATED)
    field = _zip64_field(extra) if missing else None
    if field is None:
        return sizes
    if len(field) < missing * 8:
        raise BadBundle("bad_zip64", "a Zip64 extra field is too short")
    wide = iter(struct.unpack_from(f"<{missing}Q", field))
    return tuple(next(wide) if figure == SATURATED else figure for figure in sizes)


def _zip64_field(extra: bytes) -> bytes | None:
    found = None
    at = 0
    while at + _EXTRA.size <= len(extra):  # up to three bytes of padding are common at the end
        tag, length = _EXTRA.unpack_from(extra, at)
        begin, at = at + _EXTRA.size, at + _EXTRA.size + length
        if at > len(extra) or (tag == _ZIP64_EXTRA and found is not None):
            raise BadBundle("bad_zip64", "its extra fields are damaged, or two of them say Zip64")
        if tag == _ZIP64_EXTRA:
            found = extra[begin:at]
    return found
