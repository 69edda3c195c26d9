"""Read the members of a ZIP, and count, hash and CRC-check every byte once.

This module does not use ``zipfile``. If one name is declared as UTF-8 but is not valid, ``zipfile`` refuses the whole
ZIP, and it truncates and rewrites other names. ``directory`` reads the directory instead.
"""

import hashlib
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from isal import isal_zlib

from tasks.bundle.zip.buffers import Buffer, Store
from tasks.bundle.zip.check import MAX_NAME_BYTES, NO_PADDING, CheckedZip, Padding, check
from tasks.bundle.zip.decompress import MAX_WINDOW, decompress, window_bytes
from tasks.bundle.zip.directory import ZipEntry
from tasks.bundle.zip.errors import BadZip, MemberError, WindowNeeded
from tasks.bundle.zip.names import Name, read_name

# Folders are not documents, but reading a folder takes time as well.
_MAX_FOLDERS = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits on the contents of a bundle. They apply to the real bytes, never to the sizes in a header.

    Attributes:
        max_documents: the maximum number of files; folders do not count.
        max_name_bytes: the maximum size of all names together, including folders and Unicode Paths.
        max_unpacked_bytes: the maximum size of all files together.
        max_document_bytes: the maximum size of one file; a larger file is unreadable, the others are still read.
        max_ratio: the maximum number of unpacked bytes for each byte of the bundle.
        ratio_from: the unpacked size up to which the ratio is ignored, in bytes. A blank A4 page at 600 dpi in colour
            takes 104 MB and compresses to a thousandth. The default allows both sides of it.
        in_memory: the maximum size of all files kept in memory; the others are spooled and mapped.
        max_window_bytes: the additional memory for the decoder of one file.
    """

    max_documents: int = 1000
    max_name_bytes: int = MAX_NAME_BYTES
    max_unpacked_bytes: int = 1 << 30
    max_document_bytes: int = 1 << 30
    max_ratio: int = 200
    ratio_from: int = 256 << 20
    in_memory: int = 32 << 20
    max_window_bytes: int = MAX_WINDOW


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a bundle.

    Attributes:
        name: the name; never use it as a path (see ``names.Name``).
        data: the content, in memory or mapped read-only.
        sha256: the SHA-256 of the content, 64 hex digits.
        size: the size of the content, in bytes.
        modified: the local time in the bundle, without a known zone, such as ``2026-01-31T12:00:00``; None if the
            bundle gives no valid time.
        name_encoding: how the name was decoded; None for ASCII.
        header_name: the name for readers that do not support Unicode Paths, if it differs.
        other_names: the names that other readers give the file, if it is unclear which name is right.
    """

    name: str
    data: Buffer
    sha256: str
    size: int
    modified: str | None
    name_encoding: str | None = None
    header_name: str | None = None
    other_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """One file of a bundle that could not be read.

    Attributes:
        name: the name, like that of a member.
        cause: a short fixed word: ``encrypted``, ``symlink``, ``folder_with_content``, ``unsupported_method``,
            ``corrupt_data``, ``truncated``, ``trailing_data``, ``wrong_size``, ``wrong_crc`` or
            ``document_too_large``.
        why: one sentence for people, without the name.
    """

    name: str
    cause: str
    why: str


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The contents of a bundle in the order of its directory; names may occur more than once.

    Attributes:
        members: the readable files.
        unreadable: the unreadable files.
        padding: the bytes before and after the contents that belong to no member.
    """

    members: tuple[Member, ...]
    unreadable: tuple[Unreadable, ...]
    padding: Padding = NO_PADDING


def read_zip(data: Buffer, limits: Limits, store: Store | None = None) -> Unpacked:
    """Read every member of a ZIP; an unreadable member does not stop the others.

    Args:
        data: the whole ZIP, in memory or mapped.
        limits: the limits on its contents.
        store: the store for contents beyond ``limits.in_memory``; without it, they stay in memory.

    Raises:
        BadZip: the ZIP as a whole is damaged, ambiguous (see ``check``), or exceeds a limit (``too_many_documents``,
            ``names_too_large``, ``too_large``, ``ratio``).
        WindowNeeded: a decoder needs more memory than ``limits.max_window_bytes``.
    """
    return read_entries(data, list_entries(data, limits), limits, store)


def list_entries(data: Buffer, limits: Limits) -> CheckedZip:
    """Return the entries of a ZIP, including folders, without reading their contents.

    Raises:
        BadZip: the ZIP is damaged, ambiguous, or exceeds a limit.
    """
    found = check(data, max_entries=limits.max_documents + _MAX_FOLDERS, max_name_bytes=limits.max_name_bytes)
    documents = sum(bool(entry.size) or not entry.is_folder for entry in found.entries)
    if documents > limits.max_documents:
        raise BadZip("too_many_documents", f"it holds {documents} files; expected at most {limits.max_documents}")
    return found


def read_entries(data: Buffer, checked: CheckedZip, limits: Limits, store: Store | None = None) -> Unpacked:
    """Read the contents of the entries from ``list_entries``.

    Raises:
        BadZip: the contents exceed a limit.
        WindowNeeded: a decoder needs more memory than ``limits.max_window_bytes``.
    """
    window = max((window_bytes(data, entry) for entry in checked.entries), default=0)
    if window > limits.max_window_bytes:
        raise WindowNeeded(window)
    reader = _Reader(data, limits, store)
    found = [reader.read(entry) for entry in checked.entries]
    stored = store.mapped() if store else memoryview(b"")
    return Unpacked(
        tuple(one.as_member(stored) for one in found if isinstance(one, _Content)),
        tuple(one for one in found if isinstance(one, Unreadable)),
        checked.padding,
    )


@dataclass(frozen=True, slots=True)
class _Content:
    """A member that has been read; the store returns contents only after all members are read."""

    entry: ZipEntry
    name: Name
    data: bytes | tuple[int, int]
    sha256: str

    def as_member(self, stored: memoryview) -> Member:
        data = self.data if isinstance(self.data, bytes) else stored[slice(*self.data)]
        name = self.name
        return Member(
            name=name.text,
            data=data,
            sha256=self.sha256,
            size=self.entry.size,
            modified=_modified(self.entry),
            name_encoding=name.encoding,
            header_name=name.in_header if name.in_header != name.text else None,
            other_names=name.others,
        )


class _Reader:
    """Read the members of one bundle within one budget.

    The ratio limit applies to the whole bundle. Many small ZIP bombs are as harmful as a large one, and a blank page
    among photographs is harmless.
    """

    def __init__(self, data: Buffer, limits: Limits, store: Store | None) -> None:
        self._data, self._limits, self._store = data, limits, store
        self._memory_left = limits.in_memory
        self._ratio_bytes = max(limits.ratio_from, limits.max_ratio * len(data))
        self._unpacked = 0

    def read(self, entry: ZipEntry) -> _Content | Unreadable | None:
        """Return the member, or the reason why it cannot be read; None for a folder."""
        name = read_name(entry)
        try:
            digest = hashlib.sha256()
            # A header may promise any size, so use memory only up to that size.
            data = self._collect(self._checked(entry, digest.update), min(entry.size, self._memory_left))
        except MemberError as error:
            return Unreadable(name.text, error.cause, error.why)
        if isinstance(data, bytes):
            self._memory_left -= len(data)
        if not entry.is_folder or (entry.size and name.others):
            return _Content(entry, name, data, digest.hexdigest())
        if not entry.size:
            return None
        return Unreadable(name.text, "folder_with_content", "it is named as a folder and has content")

    def _collect(self, chunks: Iterator[Buffer], memory_left: int) -> bytes | tuple[int, int]:
        """Return the joined chunks if they fit in memory, or their start and end offsets in the store."""
        collected: list[Buffer] = []
        size = 0
        for chunk in chunks:
            collected.append(chunk)
            size += len(chunk)
            if size > memory_left and self._store:
                return self._store.put(chain(collected, chunks))
        return b"".join(collected)

    def _checked(self, entry: ZipEntry, update_digest: Callable[[Buffer], object]) -> Iterator[Buffer]:
        """Yield the content of a member; raise once it exceeds a limit, or at its end if its size or CRC is wrong."""
        if _is_link(entry):
            raise MemberError("symlink", "it is a symbolic link, and links are not followed")
        limits, size, crc = self._limits, 0, 0
        for chunk in decompress(self._data, entry):
            size += len(chunk)
            self._unpacked += len(chunk)
            if self._unpacked > limits.max_unpacked_bytes:
                raise BadZip("too_large", f"it unpacks to more than {limits.max_unpacked_bytes} bytes")
            if self._unpacked > self._ratio_bytes:
                raise BadZip("ratio", f"it unpacks to more than {limits.max_ratio} times its size")
            if size > limits.max_document_bytes:
                raise MemberError("document_too_large", f"it is larger than {limits.max_document_bytes} bytes")
            crc = isal_zlib.crc32(chunk, crc)
            update_digest(chunk)
            yield chunk
        if size != entry.size:
            raise MemberError("wrong_size", "its content does not have the size that the bundle states")
        if crc != entry.crc:
            raise MemberError("wrong_crc", "its content does not match its checksum")


def _is_link(entry: ZipEntry) -> bool:
    """Return whether the Unix mode in the attributes marks a symbolic link, on any host system.

    Other modes do not describe the content. For example, a member that was read from a pipe has the mode of a pipe.
    """
    return stat.S_ISLNK(entry.attributes >> 16)


def _modified(entry: ZipEntry) -> str | None:
    date, time = entry.date, entry.time
    year, month, day = 1980 + (date >> 9), date >> 5 & 15, date & 31
    hour, minute, second = time >> 11, time >> 5 & 63, (time & 31) * 2
    try:
        return datetime(year, month, day, hour, minute, second).isoformat()  # noqa: DTZ001 - a ZIP stores no zone
    except ValueError:
        return None
