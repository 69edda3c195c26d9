"""The check before unpacking: can this ZIP be read in one way only?

Readers of ZIP differ in what they do with a file that contradicts itself, and a file that two readers
understand differently is no proof of anything. So whatever contradicts itself is refused here, before a
byte is inflated.

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

The work is bounded by the size of the file: nothing is looked at twice but by sorting.
"""

from tasks.bundle.zip_directory import (
    DESCRIPTOR,
    ENCRYPTED,
    LOCAL,
    MASKED_HEADERS,
    SATURATED,
    STRONGLY_ENCRYPTED,
    UTF8_NAME,
    ZipEntry,
    entries_of,
    zip64_sizes,
)
from tasks.errors import BadBundle
from tasks.memory.buffer_pool import Buffer

# The others are hints of the compressor's, which writers are known to set in one header only.
_FLAGS_THAT_MATTER = ENCRYPTED | DESCRIPTOR | STRONGLY_ENCRYPTED | UTF8_NAME | MASKED_HEADERS

_LOCAL_MARK = b"PK\3\4"
_DESCRIPTOR_MARK = b"PK\7\x08"


def check(data: Buffer, *, max_entries: int) -> tuple[ZipEntry, ...]:
    """Return the entries of a bundle that contradicts itself nowhere, in the directory's order.

    Whether the compressed data keeps the promises of its entry is for the reader to find out. Members are checked in
    the order of the file, and overlaps first: a header that a thousand entries share would otherwise be looked into a
    thousand times.

    Args:
        data: the whole bundle.
        max_entries: how many entries, folders included, are looked at.

    Raises:
        BadBundle: the bundle is no ZIP, is cut short, is ambiguous or lists too much.
    """
    entries, directory_start = entries_of(data, max_entries=max_entries)
    free_from = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < free_from:
            raise BadBundle("overlapping_members", "two of its members share bytes")
        _check_gap(data, free_from, entry.header_offset)
        _check_local_header(data, entry)
        free_from = _end_of_member(data, entry)
    if free_from > directory_start:
        raise BadBundle("overlapping_members", "a member and the directory share bytes")
    _check_gap(data, free_from, directory_start)
    return entries


def _check_gap(data: Buffer, start: int, end: int) -> None:
    if start < end and data[start : start + 4] == _LOCAL_MARK:
        raise BadBundle("hidden_member", "it holds a member that its directory does not name")


def _check_local_header(data: Buffer, entry: ZipEntry) -> None:
    mark, _needed, flags, method, _time, _date, crc, packed, size, name_length, _ = LOCAL.unpack_from(
        data, entry.header_offset
    )
    name_at = entry.header_offset + LOCAL.size
    extra_at = name_at + name_length
    size, packed = zip64_sizes(bytes(data[extra_at : entry.data_offset]), (size, packed))
    agrees = (
        mark == _LOCAL_MARK
        and data[name_at:extra_at] == entry.name
        and method == entry.method
        and not (flags ^ entry.flags) & _FLAGS_THAT_MATTER
    )
    if not agrees or not _sizes_agree(entry, crc, packed, size):
        raise BadBundle("local_header_differs", "a member's own header and the directory disagree")


def _sizes_agree(entry: ZipEntry, crc: int, compressed_size: int, size: int) -> bool:
    if not entry.flags & DESCRIPTOR:
        return (crc, compressed_size, size) == (entry.crc, entry.compressed_size, entry.size)
    return (
        crc in (0, entry.crc)
        and compressed_size in (0, SATURATED, entry.compressed_size)
        and size in (0, SATURATED, entry.size)
    )  # fmt: skip


def _end_of_member(data: Buffer, entry: ZipEntry) -> int:
    """Return the end of a member: a true data descriptor (APPNOTE 4.3.9) is narrow or wide, marked or not."""
    if not entry.flags & DESCRIPTOR:
        return entry.data_end
    crc = entry.crc.to_bytes(4, "little")
    narrow = max(entry.compressed_size, entry.size) <= SATURATED
    for width in (4, 8) if narrow else (8,):
        figures = crc + entry.compressed_size.to_bytes(width, "little") + entry.size.to_bytes(width, "little")
        for descriptor in (_DESCRIPTOR_MARK + figures, figures):
            end = entry.data_end + len(descriptor)
            if data[entry.data_end : end] == descriptor:
                return end
    raise BadBundle("bad_descriptor", "the figures after a member and the directory disagree")
