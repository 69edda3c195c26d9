"""The gate before unpacking: can this ZIP be read in one way only?

Readers of ZIP differ in what they do with a file that contradicts itself, and a file that two readers
understand differently is no proof of anything. So whatever contradicts itself is refused here, before a
byte is inflated. Field names and layouts follow PKWARE's APPNOTE 6.3.10, chapter 4.3.

Where real files leave a choice, this is ours:

* Bytes after the end record are refused, an archive comment is not. A comment that holds the mark of an
  end record is: some readers take the first one they find from the back.
* Bytes before the first member are fine (self-extractors) when all offsets count from the start of the
  file. Offsets that have to be shifted by a guess are refused.
* Gaps between members are fine, unless one begins like a member: a reader that streams would see a
  document there that the directory does not name.
* A data descriptor may have any of its four forms; the local header before it may hold zeros, the true
  figures or, as some streaming writers do, saturated sizes.
* An extra field is looked into only where a saturated figure says that a Zip64 one is needed.

The work is bounded by the size of the file: nothing is looked at twice but by sorting, and nothing is
copied but names and extra fields.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap
from typing import NamedTuple, TypeAlias

from tasks.errors import BadBundle

Buffer: TypeAlias = bytes | mmap
"""Bytes in memory or in a mapped file; both slice, search and unpack alike."""

ENCRYPTED = 1 << 0
LZMA_END_MARK = 1 << 1
DESCRIPTOR = 1 << 3
STRONGLY_ENCRYPTED = 1 << 6
UTF8_NAME = 1 << 11
_MASKED_HEADERS = 1 << 13

# The others are hints of the compressor's, which writers are known to set in one header only.
_FLAGS_THAT_MATTER = ENCRYPTED | DESCRIPTOR | STRONGLY_ENCRYPTED | UTF8_NAME | _MASKED_HEADERS

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_NAME_AND_EXTRA = struct.Struct("<2H")
_EXTRA = struct.Struct("<2H")

_END_MARK = b"PK\5\6"
_END64_MARK = b"PK\6\6"
_LOCATOR_MARK = b"PK\6\7"
_CENTRAL_MARK = b"PK\1\2"
_LOCAL_MARK = b"PK\3\4"
_DESCRIPTOR_MARK = b"PK\7\x08"

_ZIP64_EXTRA = 0x0001
_END64_LENGTH = _END64.size - 12  # APPNOTE 4.3.14.1: without the mark and this figure itself
_MAX_COMMENT = 0xFFFF
_SATURATED = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the directory, whose local header was found and says the same.

    Attributes:
        name: as it stands there, undecoded.
        flags: general purpose flags.
        method: compression method.
        date: day of the last change, in MS-DOS format.
        time: time of the last change, in MS-DOS format, of no known zone.
        crc: CRC-32 of the content, as promised.
        packed: bytes of the compressed data; they lie in the file.
        size: bytes of the content, as promised.
        attributes: external attributes; a Unix mode in the upper half.
        header_at: where the local header begins, in bytes from the start of the file.
        data_at: where the compressed data begins.
    """

    name: bytes
    flags: int
    method: int
    date: int
    time: int
    crc: int
    packed: int
    size: int
    attributes: int
    header_at: int
    data_at: int

    @property
    def data_end(self) -> int:
        """Where the compressed data ends."""
        return self.data_at + self.packed


class _Totals(NamedTuple):
    """What an end record says, in the order in which both of its forms say it."""

    disk: int
    directory_disk: int
    entries_here: int
    entries: int
    size: int
    offset: int


_SATURATED_TOTALS = _Totals(0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, _SATURATED, _SATURATED)


class _Directory(NamedTuple):
    """Where the central directory lies, in bytes from the start of the file, and its number of entries."""

    start: int
    end: int
    entries: int


def check(data: Buffer, *, max_entries: int) -> tuple[Entry, ...]:
    """Return the entries of a bundle that contradicts itself nowhere, in the directory's order.

    Whether the compressed data keeps the promises of its entry is for the reader to find out.

    Args:
        data: the whole bundle.
        max_entries: how many entries, folders included, are looked at.

    Raises:
        BadBundle: the bundle is no ZIP, is cut short, is ambiguous or lists too much.
    """
    directory = _find_directory(data)
    if directory.entries > max_entries:
        raise BadBundle("too_many_documents", f"it lists {directory.entries} entries; allowed are {max_entries}")
    entries = tuple(_listed(data, directory))
    _check_members(data, entries, directory.start)
    return entries


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
    marks = list(_end_marks(data))
    reaching = [at for at in marks if _end_of_comment(data, at) == len(data)]
    if not reaching:
        raise BadBundle("no_end_record", "no end record closes it: it is no ZIP, cut short or added to")
    if reaching != marks[-1:]:
        raise BadBundle("ambiguous_end", "it has more than one end record, and readers would disagree")
    return reaching[0]


def _end_marks(data: Buffer) -> Iterator[int]:
    at = data.find(_END_MARK, max(0, len(data) - _END.size - _MAX_COMMENT))
    while at >= 0:
        yield at
        at = data.find(_END_MARK, at + 1)


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


def _listed(data: Buffer, directory: _Directory) -> Iterator[Entry]:
    at = directory.start
    for _ in range(directory.entries):
        entry, at = _entry(data, at, directory)
        yield entry
    if at != directory.end:
        raise BadBundle("bad_directory", "its directory is longer than its entries")


def _entry(data: Buffer, at: int, directory: _Directory) -> tuple[Entry, int]:
    """Return the entry whose central header stands there, and where the next one begins."""
    name_at = at + _CENTRAL.size
    if name_at > directory.end or data[at : at + 4] != _CENTRAL_MARK:
        raise BadBundle("bad_directory", "its directory holds fewer entries than it says, or other things")
    (_, _made_by, _needed, flags, method, time, date, crc, packed, size,
     name_length, extra_length, comment_length, disk, _internal, attributes, header_at,
    ) = _CENTRAL.unpack_from(data, at)  # fmt: skip
    extra_at = name_at + name_length
    comment_at = extra_at + extra_length
    following = comment_at + comment_length
    if following > directory.end:
        raise BadBundle("bad_directory", "an entry of its directory reaches beyond the directory")
    if disk:
        raise BadBundle("multi_disk", "it is one part of an archive that spans several")
    size, packed, header_at = _widened(data[extra_at:comment_at], (size, packed, header_at))
    data_at = _data_at(data, header_at, directory.start)
    if data_at + packed > directory.start:
        raise BadBundle("outside_file", "a member reaches into the directory or beyond the file")
    entry = Entry(data[name_at:extra_at], flags, method, date, time, crc, packed, size, attributes, header_at, data_at)
    return entry, following


def _data_at(data: Buffer, header_at: int, upto: int) -> int:
    name_at = header_at + _LOCAL.size
    if name_at > upto:
        raise BadBundle("outside_file", "a member begins in the directory or beyond the file")
    name_length, extra_length = _NAME_AND_EXTRA.unpack_from(data, name_at - _NAME_AND_EXTRA.size)
    return name_at + int(name_length) + int(extra_length)


def _widened(extra: bytes, figures: tuple[int, ...]) -> tuple[int, ...]:
    """Return the figures, those that are saturated as the Zip64 extra field has them (APPNOTE 4.5.3).

    A saturated figure without such a field means itself.
    """
    missing = figures.count(_SATURATED)
    field = _zip64_field(extra) if missing else None
    if field is None:
        return figures
    if len(field) < missing * 8:
        raise BadBundle("bad_zip64", "a Zip64 extra field is too short")
    wide = iter(struct.unpack_from(f"<{missing}Q", field))
    return tuple(next(wide) if figure == _SATURATED else figure for figure in figures)


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


def _check_members(data: Buffer, entries: tuple[Entry, ...], directory_start: int) -> None:
    """Check what lies before the directory, from the first byte to the last.

    In the order of the file, and overlaps first: a header that a thousand entries share would otherwise be
    looked into a thousand times.
    """
    free_from = 0
    for entry in sorted(entries, key=lambda entry: entry.header_at):
        if entry.header_at < free_from:
            raise BadBundle("overlapping_members", "two of its members share bytes")
        _check_gap(data, free_from, entry.header_at)
        _check_local_header(data, entry)
        free_from = _end_of_member(data, entry)
    if free_from > directory_start:
        raise BadBundle("overlapping_members", "a member and the directory share bytes")
    _check_gap(data, free_from, directory_start)


def _check_gap(data: Buffer, start: int, end: int) -> None:
    if start < end and data[start : start + 4] == _LOCAL_MARK:
        raise BadBundle("hidden_member", "it holds a member that its directory does not name")


def _check_local_header(data: Buffer, entry: Entry) -> None:
    mark, _needed, flags, method, _time, _date, crc, packed, size, name_length, _ = _LOCAL.unpack_from(
        data, entry.header_at
    )
    name_at = entry.header_at + _LOCAL.size
    extra_at = name_at + name_length
    size, packed = _widened(data[extra_at : entry.data_at], (size, packed))
    agrees = (
        mark == _LOCAL_MARK
        and data[name_at:extra_at] == entry.name
        and method == entry.method
        and not (flags ^ entry.flags) & _FLAGS_THAT_MATTER
    )
    if not agrees or not _figures_agree(entry, crc, packed, size):
        raise BadBundle("local_header_differs", "a member's own header and the directory disagree")


def _figures_agree(entry: Entry, crc: int, packed: int, size: int) -> bool:
    if not entry.flags & DESCRIPTOR:
        return (crc, packed, size) == (entry.crc, entry.packed, entry.size)
    return (
        crc in (0, entry.crc)
        and packed in (0, _SATURATED, entry.packed)
        and size in (0, _SATURATED, entry.size)
    )  # fmt: skip


def _end_of_member(data: Buffer, entry: Entry) -> int:
    if not entry.flags & DESCRIPTOR:
        return entry.data_end
    for descriptor in _descriptors(entry):
        end = entry.data_end + len(descriptor)
        if data[entry.data_end : end] == descriptor:
            return end
    raise BadBundle("bad_descriptor", "the figures after a member and the directory disagree")


def _descriptors(entry: Entry) -> Iterator[bytes]:
    """Yield all forms of a true data descriptor (APPNOTE 4.3.9): narrow and wide, marked or not."""
    crc = entry.crc.to_bytes(4, "little")
    narrow = max(entry.packed, entry.size) <= _SATURATED
    for width in (4, 8) if narrow else (8,):
        figures = crc + entry.packed.to_bytes(width, "little") + entry.size.to_bytes(width, "little")
        yield _DESCRIPTOR_MARK + figures
        yield figures
