"""From a bundle to its members: every byte counted, hashed and compared with its CRC once.

The directory is read by ``zip_directory`` and not by ``zipfile``, although that would be less code: one name
that is not the UTF-8 it claims to be makes ``zipfile`` refuse the whole bundle, other names it shortens
and rewrites, and two readers of one directory would be two opinions.
"""

import contextlib
import hashlib
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from pathlib import Path

from isal import isal_zlib

from tasks.bundle import zip_check
from tasks.bundle.decompress import QUICK_METHODS, MemberError, decompress
from tasks.bundle.zip_directory import UTF8_NAME, ZipEntry
from tasks.errors import BadBundle
from tasks.memory.buffer_pool import SIZE, Arena, Buffer
from tasks.memory.spool import Spool

SMALL_BUNDLE = SIZE
"""Bytes of a bundle, and again of what is in it, that are read in some five milliseconds."""
_FEW = 32
# Folders are no documents, but looking at one costs time as well.
_MAX_FOLDERS = 10_000

_SPECIAL_FILES = {stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK}

# Bytes that are not UTF-8 become private use characters, U+EF80 to U+EFFF, one for each byte. So do the
# bytes of names that use those characters themselves: the way back is unambiguous. Lone surrogates, which
# Python would offer, cannot stand in JSON.
_KEPT_BYTE = 0xEF00
_KEPT_BYTES = {0xDC00 + byte: chr(_KEPT_BYTE + byte) for byte in range(0x80, 0x100)} | {
    code: "".join(chr(_KEPT_BYTE + byte) for byte in chr(code).encode())
    for code in range(_KEPT_BYTE + 0x80, _KEPT_BYTE + 0x100)
}


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a bundle may hold. What counts are the real bytes, never what a header promises.

    Attributes:
        max_documents: files in a bundle; folders do not count.
        max_unpacked_bytes: of all files together.
        max_document_bytes: of one file; a larger one is unreadable, the others are not.
        max_ratio: unpacked bytes for each byte of the bundle.
        ratio_from: unpacked bytes up to which the ratio is not looked at.
        in_memory: bytes of all files together that are kept in memory; the others are spooled, and mapped.
    """

    max_documents: int = 1000
    max_unpacked_bytes: int = 1 << 30
    max_document_bytes: int = 1 << 30
    max_ratio: int = 200
    ratio_from: int = 1 << 20
    in_memory: int = 32 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """One file in a bundle, as it stands there.

    Attributes:
        name: as the bundle has it, and never a path: it may hold ``../``, NUL or 10,000 characters. Decoded
            by what the bundle declares, CP437 or UTF-8; a byte *b* that is not valid UTF-8 is kept as the
            character U+EF00 + *b*. Nothing is lost, and the name can stand in JSON.
        data: its content, in memory or mapped read-only.
        sha256: of the content, 64 hex digits.
        size: of the content, in bytes.
        modified: the local time that the bundle gives, of no known zone, such as ``2026-01-31T12:00:00``;
            ``None`` where there is no such time.
    """

    name: str
    data: Buffer
    sha256: str
    size: int
    modified: str | None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """One file in a bundle that could not be read.

    Attributes:
        name: as a member's.
        cause: a short fixed word: ``encrypted``, ``symlink``, ``special_file``, ``folder_with_content``,
            ``unsupported_method``, ``corrupt_data``, ``truncated``, ``trailing_data``, ``wrong_size``,
            ``wrong_crc`` or ``document_too_large``.
        why: one sentence for a person, without the name.
    """

    name: str
    cause: str
    why: str


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What a bundle holds, in the order of its directory; names may occur more than once."""

    members: tuple[Member, ...]
    unreadable: tuple[Unreadable, ...]


def unpack(data: Buffer, limits: Limits, spool_dir: Path | None = None) -> Unpacked:
    """Read every file of a bundle.

    One that cannot be read does not stop the others. A bundle without files is none that is bad.

    Args:
        data: the whole bundle, in memory or mapped.
        limits: how much it may hold.
        spool_dir: where files are spooled to; the system's folder for temporary files if not given.

    Raises:
        BadBundle: the bundle as a whole is damaged, unsafe (``tasks.bundle.zip_check``), or holds too much:
            ``too_many_documents``, ``too_large``, ``ratio``.
        SpoolError: a file could not be spooled; the bundle is not to blame.
    """
    entries = _entries(data, limits, limits.max_documents + _MAX_FOLDERS)
    with contextlib.closing(Spool(spool_dir)) as spool:
        return _read(data, entries, limits, spool)


def unpack_small(data: Buffer, limits: Limits) -> Unpacked | None:
    """Read every file of a little bundle, for who must not be kept for more than some milliseconds.

    Returns:
        None where it may take longer, and where anything is unusual: ``unpack`` tells then. How long it takes is
        bounded by what the bundle promises, and one that holds more than it promises is unusual.
    """
    if len(data) > SMALL_BUNDLE:
        return None
    try:
        entries = _entries(data, limits, _FEW)
        promised = sum(entry.size for entry in entries)
        if promised > min(SMALL_BUNDLE, limits.in_memory) or any(
            entry.method not in QUICK_METHODS for entry in entries
        ):
            return None
        bounds = replace(limits, max_unpacked_bytes=min(promised, limits.max_unpacked_bytes), in_memory=0)
        return _read(data, entries, bounds, Arena())
    except BadBundle:
        return None


def _entries(data: Buffer, limits: Limits, max_entries: int) -> Sequence[ZipEntry]:
    entries = zip_check.check(data, max_entries=max_entries)
    documents = sum(not _is_folder(entry) for entry in entries)
    if documents > limits.max_documents:
        raise BadBundle("too_many_documents", f"it holds {documents} files; allowed are {limits.max_documents}")
    return entries


def _read(data: Buffer, entries: Sequence[ZipEntry], limits: Limits, spool: Spool | Arena) -> Unpacked:
    reader = _Reader(data, limits, spool)
    found = [reader.read(entry) for entry in entries]
    spooled = spool.mapped()
    return Unpacked(
        tuple(one.as_member(spooled) for one in found if isinstance(one, _Content)),
        tuple(one for one in found if isinstance(one, Unreadable)),
    )


@dataclass(frozen=True, slots=True)
class _Content:
    """A member while others are still read: what is spooled is mapped when all of it is there."""

    entry: ZipEntry
    data: bytes | tuple[int, int]
    sha256: str

    def as_member(self, spooled: memoryview) -> Member:
        data = self.data if isinstance(self.data, bytes) else spooled[slice(*self.data)]
        return Member(_name(self.entry), data, self.sha256, self.entry.size, _modified(self.entry))


class _Reader:
    """Reads the members of one bundle within one budget.

    The ratio is that of the whole bundle: a swarm of small bombs is as bad as a large one, and an empty
    page, which may well be a thousandth of its size, does no harm among photographs.
    """

    def __init__(self, data: Buffer, limits: Limits, spool: Spool | Arena) -> None:
        self._data, self._limits, self._spool = data, limits, spool
        self._room = limits.in_memory
        self._ratio_bytes = max(limits.ratio_from, limits.max_ratio * len(data))
        self._unpacked = 0

    def read(self, entry: ZipEntry) -> _Content | Unreadable | None:
        """Return the member, or why it cannot be read; ``None`` for a folder."""
        try:
            _check_type(entry)
            digest = hashlib.sha256()
            # A header may promise what it likes: memory is given for what it says, and no more.
            data = self._collect(self._checked(entry, digest.update), min(entry.size, self._room))
        except MemberError as error:
            return Unreadable(_name(entry), error.cause, error.why)
        if isinstance(data, bytes):
            self._room -= len(data)
        if not _is_folder(entry):
            return _Content(entry, data, digest.hexdigest())
        if not entry.size:
            return None
        return Unreadable(_name(entry), "folder_with_content", "it is named as a folder and has content")

    def _collect(self, chunks: Iterator[Buffer], room: int) -> bytes | tuple[int, int]:
        """Return the chunks as one where there is room, else where they are in the spool."""
        collected: list[Buffer] = []
        size = 0
        for chunk in chunks:
            collected.append(chunk)
            size += len(chunk)
            if size > room:
                return self._spool.put(chain(collected, chunks))
        return b"".join(collected)

    def _checked(self, entry: ZipEntry, update_digest: Callable[[Buffer], object]) -> Iterator[Buffer]:
        """Yield the content of a member; raise as soon as it exceeds a limit, or at its end if a promise is broken."""
        limits, size, crc = self._limits, 0, 0
        for chunk in decompress(self._data, entry):
            size += len(chunk)
            self._unpacked += len(chunk)
            if self._unpacked > limits.max_unpacked_bytes:
                raise BadBundle("too_large", f"it unpacks to more than {limits.max_unpacked_bytes} bytes")
            if self._unpacked > self._ratio_bytes:
                raise BadBundle("ratio", f"it unpacks to more than {limits.max_ratio} times its size")
            if size > limits.max_document_bytes:
                raise MemberError("document_too_large", f"it is larger than {limits.max_document_bytes} bytes")
            crc = isal_zlib.crc32(chunk, crc)
            update_digest(chunk)
            yield chunk
        if size != entry.size:
            raise MemberError("wrong_size", "its content is not as long as the bundle says")
        if crc != entry.crc:
            raise MemberError("wrong_crc", "its content does not match its checksum")


def _type(entry: ZipEntry) -> int:
    """Return the type of file: the upper half of the attributes is a Unix mode, or nothing.

    Whatever system the entry claims to come from: it is free to lie.
    """
    return stat.S_IFMT(entry.attributes >> 16)


def _is_folder(entry: ZipEntry) -> bool:
    return entry.name.endswith(b"/") or _type(entry) == stat.S_IFDIR


def _check_type(entry: ZipEntry) -> None:
    # Only what is known to be special: Maven, for one, writes modes that are no type at all.
    kind = _type(entry)
    if kind == stat.S_IFLNK:
        raise MemberError("symlink", "it is a symbolic link, and links are not followed")
    if kind in _SPECIAL_FILES:
        raise MemberError("special_file", "it is a device, a pipe or a socket")


def _name(entry: ZipEntry) -> str:
    if entry.flags & UTF8_NAME:
        return entry.name.decode("utf-8", "surrogateescape").translate(_KEPT_BYTES)
    return entry.name.decode("cp437")


def _modified(entry: ZipEntry) -> str | None:
    date, time = entry.date, entry.time
    year, month, day = 1980 + (date >> 9), date >> 5 & 15, date & 31
    hour, minute, second = time >> 11, time >> 5 & 63, (time & 31) * 2
    try:
        return datetime(year, month, day, hour, minute, second).isoformat()  # noqa: DTZ001 - a ZIP knows no zone
    except ValueError:
        return None
