"""Read the directory at the end of a ZIP, entry by entry.

Field names and layouts follow PKWARE's APPNOTE 6.3.10, chapter 4.3. Directories that contradict themselves or point
outside the file are refused. Only names and extra fields are copied.
"""

import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tasks.bundle.zip.buffers import Buffer, contains, drop_pages
from tasks.bundle.zip.errors import BadZip

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
"""The layout of a local header, without the name and the extra field."""
_SIZE, _NAME_LENGTH, _ATTRIBUTES = 9, 10, 15
"""Field indexes in a central header; the lengths of the extra field and the comment follow the name length."""
_NAME_AND_EXTRA = struct.Struct("<2H")
_EXTRA = struct.Struct("<2H")

_END_MARK = b"PK\5\6"
_END64_MARK = b"PK\6\6"
_LOCATOR_MARK = b"PK\6\7"
_CENTRAL_MARK = b"PK\1\2"
MARKS = re.compile(rb"PK(?:\x01\x02|\x03\x04|\x05\x06|\x06[\x06\x07])")
"""The marks of headers and end records."""

PADDING = b"\0\t\n\r "
"""The bytes that may follow a ZIP."""
_PIECE = 1 << 16

_DOS_FOLDER = 0x10
_ZIP64_EXTRA = 0x0001
_UNICODE_PATH = 0x7075
_UNICODE_PATH_TAG = _UNICODE_PATH.to_bytes(2, "little")
_END64_LENGTH = _END64.size - 12  # APPNOTE 4.3.14.1: without the mark and the length field itself
_MAX_COMMENT = 0xFFFF
SATURATED = 0xFFFF_FFFF
"""The placeholder for a value that the Zip64 record or field contains in full."""


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """One entry of the directory; ``check`` compares it with its local header.

    Attributes:
        host: the system that wrote the entry; 0 for FAT (APPNOTE 4.4.2.2).
        name: the name in the directory, not decoded.
        flags: the general purpose flags.
        method: the compression method.
        date: the day of the last change, in MS-DOS format.
        time: the time of the last change, in MS-DOS format; its zone is unknown.
        crc: the CRC-32 of the content, as promised.
        compressed_size: the size of the compressed data in bytes; all of it is inside the file.
        size: the size of the content in bytes, as promised.
        attributes: the external attributes, with a Unix mode in the upper half.
        header_offset: the offset of the local header, in bytes from the start of the file.
        data_offset: the offset of the compressed data, in bytes from the start of the file.
        unicode_paths: the content of each Unicode Path in the directory.
        local_unicode_paths: the content of each Unicode Path in the local header.
    """

    host: int
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
    unicode_paths: tuple[bytes, ...] = ()
    local_unicode_paths: tuple[bytes, ...] = ()

    @property
    def data_end(self) -> int:
        """Return the end of the compressed data, in bytes from the start of the file."""
        return self.data_offset + self.compressed_size

    @property
    def is_folder(self) -> bool:
        """Return whether the entry is a folder."""
        return is_folder(self.name, self.attributes, self.size)


class Listing(NamedTuple):
    """The contents of the directory of a ZIP.

    Attributes:
        entries: the entries, in the order of the directory.
        directory_start: the start of the directory, in bytes from the start of the file.
        after: the number of padding bytes after the end record.
        name_bytes: the size of all names together, in bytes.
    """

    entries: tuple[ZipEntry, ...]
    directory_start: int
    after: int
    name_bytes: int


class _Totals(NamedTuple):
    """The fields of an end record; both forms of the record have them in this order."""

    disk: int
    directory_disk: int
    entries_here: int
    entries: int
    size: int
    offset: int


_SATURATED_TOTALS = _Totals(0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, SATURATED, SATURATED)


class _Directory(NamedTuple):
    """The position of the central directory, in bytes from the start of the file.

    Attributes:
        start: the first byte of the directory.
        end: the byte after the directory.
        entries: the number of entries.
        shift: the number of bytes before the first member that the offsets do not count.
        after: the number of padding bytes after the end record.
    """

    start: int
    end: int
    entries: int
    shift: int
    after: int


def list_directory(data: Buffer, *, max_entries: int, max_name_bytes: int) -> Listing:
    """Return the contents of the directory.

    Raises:
        BadZip: the data is not a ZIP, is truncated, is ambiguous or exceeds a limit.
    """
    directory = _find_directory(data)
    if directory.entries > max_entries:
        raise BadZip("too_many_documents", f"it lists {directory.entries} entries; expected at most {max_entries}")
    entries, at, name_bytes = [], directory.start, 0
    for _ in range(directory.entries):
        entry, at = _read_entry(data, at, directory)
        name_bytes += len(entry.name) + sum(map(len, entry.unicode_paths))
        check_names(name_bytes, max_name_bytes)
        entries.append(entry)
    if at != directory.end:
        raise BadZip("bad_directory", "its directory is not as long as its entries")
    return Listing(tuple(entries), directory.start, directory.after, name_bytes)


def check_names(name_bytes: int, max_name_bytes: int) -> None:
    """Raise BadZip if all names together exceed the limit."""
    if name_bytes > max_name_bytes:
        raise BadZip("names_too_large", f"the names in it have more than {max_name_bytes} bytes together")


def count_files(tail: Buffer) -> int | None:
    """Return the number of files in the directory, from the last part of a ZIP alone; folders do not count.

    The result is None if the directory is damaged, or if this part does not contain all of it.
    """
    try:
        end, _ = _find_end(tail)
    except BadZip:
        return None
    size = _Totals._make(_END.unpack_from(tail, end)[1:-1]).size
    record = end - _LOCATOR.size - _END64.size
    if record >= 0 and tail[record : record + 4] == _END64_MARK:
        end, size = record, _Totals._make(_END64.unpack_from(tail, record)[4:]).size
    at, files = end - size, 0
    while 0 <= at <= end - _CENTRAL.size and tail[at : at + 4] == _CENTRAL_MARK:
        header = _CENTRAL.unpack_from(tail, at)
        name_end = at + _CENTRAL.size + header[_NAME_LENGTH]
        files += not is_folder(bytes(tail[at + _CENTRAL.size : name_end]), header[_ATTRIBUTES], header[_SIZE])
        at = name_end + header[_NAME_LENGTH + 1] + header[_NAME_LENGTH + 2]
    return files if at == end else None


def is_folder(name: bytes, attributes: int, size: int) -> bool:
    """Return whether an entry is a folder.

    Every reader treats a name with a final slash as a folder. A final backslash, a Unix mode or the DOS attribute makes
    an entry a folder only if it has no content. Readers differ about such entries with content, and a document must
    not be lost.
    """
    if name.endswith(b"/"):
        return True
    if size:
        return False
    mode = stat.S_IFMT(attributes >> 16)
    return name.endswith(b"\\") or mode == stat.S_IFDIR or bool(not mode and attributes & _DOS_FOLDER)


def _find_directory(data: Buffer) -> _Directory:
    """Return the position of the directory.

    If the offsets do not count the bytes before the first member, the directory lies that many bytes after its offset.
    """
    end, after = _find_end(data)
    totals = _Totals._make(_END.unpack_from(data, end)[1:-1])
    locator, end_by_locator = end - _LOCATOR.size, None
    if locator >= 0 and data[locator : locator + 4] == _LOCATOR_MARK:
        end, end_by_locator, totals = _end64(data, locator, totals)
    if totals.disk or totals.directory_disk or totals.entries_here != totals.entries:
        raise BadZip("multi_disk", "it is one part of an archive that spans several")
    shift = end - totals.offset - totals.size
    if end_by_locator not in (None, end, end - shift):
        raise BadZip("bad_zip64", "its Zip64 end record is not where the locator says")
    if shift < 0 or (shift and end_by_locator == end) or contains(data, MARKS, 0, shift + 3):
        raise BadZip("misplaced_directory", "its directory is not where the end record says")
    return _Directory(end - totals.size, end, totals.entries, shift, after)


def _find_end(data: Buffer) -> tuple[int, int]:
    """Return the offset of the end record and the number of padding bytes after it.

    The end record with its comment ends at the end of the file, or only padding follows it.
    """
    padding_at = _find_padding(data)
    start = max(0, padding_at - _END.size - _MAX_COMMENT)
    marks = [start + mark.start() for mark in re.finditer(_END_MARK, data[start:padding_at])]
    reaching = [at for at in marks if padding_at <= _end_of_comment(data, at) <= len(data)]
    if not reaching:
        raise BadZip("no_end_record", "it has no end record: it is not a ZIP, is truncated or has bytes appended")
    if reaching != marks[-1:]:
        raise BadZip("ambiguous_end", "it has more than one end record, so readers would disagree")
    return reaching[0], len(data) - _end_of_comment(data, reaching[0])


def _find_padding(data: Buffer) -> int:
    """Return the start of the blanks, NULs and line ends at the end of the file."""
    for end in range(len(data), 0, -_PIECE):
        start = max(0, end - _PIECE)
        if piece := bytes(data[start:end]).rstrip(PADDING):
            return start + len(piece)
        drop_pages(data)
    return 0


def _end_of_comment(data: Buffer, at: int) -> int:
    comment_at = at + _END.size
    return comment_at + int.from_bytes(data[comment_at - 2 : comment_at], "little")


def _end64(data: Buffer, locator: int, short: _Totals) -> tuple[int, int, _Totals]:
    """Return the start of the Zip64 end record, its start according to the locator, and the totals.

    The record must come directly before the locator, because only encrypted directories use its extensible form.
    """
    _, disk, end_by_locator, disks = _LOCATOR.unpack_from(data, locator)
    if disk or disks > 1:
        raise BadZip("multi_disk", "it is one part of an archive that spans several")
    at = locator - _END64.size
    if at < 0 or data[at : at + 4] != _END64_MARK:
        raise BadZip("bad_zip64", "its Zip64 end record is not where the locator says")
    _, length, _made_by, _needed, *figures = _END64.unpack_from(data, at)
    totals = _Totals._make(figures)
    agreed = all(mine in (full, theirs) for mine, theirs, full in zip(short, totals, _SATURATED_TOTALS, strict=True))
    if length != _END64_LENGTH or not agreed:
        raise BadZip("bad_zip64", "its Zip64 end record and its end record disagree")
    return at, end_by_locator, totals


def _read_entry(data: Buffer, offset: int, directory: _Directory) -> tuple[ZipEntry, int]:
    """Return the entry with its central header at an offset, and the offset of the next header."""
    name_at = offset + _CENTRAL.size
    if name_at > directory.end or data[offset : offset + 4] != _CENTRAL_MARK:
        raise BadZip("bad_directory", "its directory holds fewer entries than it says, or other things")
    (_, made_by, _needed, flags, method, time, date, crc, packed, size,
     name_length, extra_length, comment_length, disk, _internal, attributes, header_at,
    ) = _CENTRAL.unpack_from(data, offset)  # fmt: skip
    extra_at = name_at + name_length
    comment_at = extra_at + extra_length
    following = comment_at + comment_length
    if disk:
        raise BadZip("multi_disk", "it is one part of an archive that spans several")
    extra = bytes(data[extra_at:comment_at])
    size, packed, header_at = zip64_sizes(extra, (size, packed, header_at))
    header_at += directory.shift
    data_at = _find_data_offset(data, header_at, directory.start)
    if data_at + packed > directory.start:
        raise BadZip("outside_file", "a member reaches into the directory or beyond the file")
    entry = ZipEntry(
        made_by >> 8, bytes(data[name_at:extra_at]), flags, method, date, time, crc, packed, size, attributes,
        header_at, data_at, unicode_paths(extra),
    )  # fmt: skip
    return entry, following


def _find_data_offset(data: Buffer, header_offset: int, upto: int) -> int:
    name_at = header_offset + LOCAL.size
    if name_at > upto:
        raise BadZip("outside_file", "a member begins in the directory or beyond the file")
    name_length, extra_length = _NAME_AND_EXTRA.unpack_from(data, name_at - _NAME_AND_EXTRA.size)
    return name_at + int(name_length) + int(extra_length)


def zip64_sizes(extra: bytes, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the values, with saturated ones replaced from the Zip64 extra field (APPNOTE 4.5.3).

    Without this field, a saturated value is taken literally.
    """
    missing = sizes.count(SATURATED)
    field = _zip64_field(extra) if missing else None
    if field is None:
        return sizes
    if len(field) < missing * 8:
        raise BadZip("bad_zip64", "a Zip64 extra field is too short")
    wide = iter(struct.unpack_from(f"<{missing}Q", field))
    return tuple(next(wide) if figure == SATURATED else figure for figure in sizes)


def _zip64_field(extra: bytes) -> bytes | None:
    found = None
    for tag, content in _extra_fields(extra):
        if content is None or (tag == _ZIP64_EXTRA and found is not None):
            raise BadZip("bad_zip64", "its extra fields are damaged, or two of them are for Zip64")
        if tag == _ZIP64_EXTRA:
            found = content
    return found


def unicode_paths(extra: bytes) -> tuple[bytes, ...]:
    """Return the content of each Unicode Path (APPNOTE 4.6.9) in the extra fields; empty bytes for a truncated one."""
    if _UNICODE_PATH_TAG not in extra:
        return ()
    return tuple(content or b"" for tag, content in _extra_fields(extra) if tag == _UNICODE_PATH)


def _extra_fields(extra: bytes) -> Iterator[tuple[int, bytes | None]]:
    """Yield the tag and the content of each extra field; the content is None if it reaches beyond the end."""
    at = 0
    while at + _EXTRA.size <= len(extra):  # writers often append up to three bytes of padding
        tag, length = _EXTRA.unpack_from(extra, at)
        begin, at = at + _EXTRA.size, at + _EXTRA.size + length
        yield tag, extra[begin:at] if at <= len(extra) else None
