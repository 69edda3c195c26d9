"""Evaluation IDs, each once, in the order in which they first came, in memory that does not grow with them.

An ID is 16 bytes. All of them are written one after the other; and each, with its place, a second time into one of 64
buckets, so that equal ones meet in the same. A bucket is small enough to be looked through in memory. What is found to
be repeated there is left out when everything is copied. Short lists never leave memory.
"""

import hashlib
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO
from zlib import crc32

from scripts.ids.scratch import translate_disk_errors

_ID_BYTES = 16
_BUCKETS = 64
_AT_ONCE = 1 << 15
"""IDs that are worked on together; a multiple of 8."""
_IN_MEMORY = 1 << 16
"""Bytes of each file that stay in memory."""
_PLACED = struct.Struct(">16sQ")


class UniqueIds(AbstractContextManager["UniqueIds"]):
    """What a sieve let through; may be read any number of times. Lives in a file, so it must be closed.

    Attributes:
        repeated: how many times an ID came that had come before.
        fingerprint: SHA-256, as 64 hex digits, of the 16-byte values of all IDs, in order.
    """

    def __init__(self, file: IO[bytes], *, count: int, repeated: int, fingerprint: str) -> None:
        self._file = file
        self._count = count
        self.repeated = repeated
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        for chunk in self.chunks(_AT_ONCE):
            yield from chunk

    def chunks(self, most: int) -> Iterator[list[str]]:
        """Yield the IDs, so many at a time; the last are what is left."""
        for start in range(0, self._count, most):
            self._file.seek(start * _ID_BYTES)
            yield _texts(self._file.read(most * _ID_BYTES))

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __exit__(self, *_: object) -> None:
        self.close()


class Deduplicator(AbstractContextManager["Deduplicator"]):
    """Lets each evaluation ID through once: add all of them, then ask for what is finished.

    Args:
        folder: where files without a name are, when the IDs are too many for memory; None is the system's own.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._files = ExitStack()
        self._all = self._file()
        self._buckets = [self._file() for _ in range(_BUCKETS)]
        self._waiting: list[str] = []
        self._count = 0

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def add(self, eval_id: str) -> None:
        """Take an ID in its canonical form.

        Raises:
            ServiceUnavailable: the disk has no room.
        """
        self._waiting.append(eval_id)
        if len(self._waiting) == _AT_ONCE:
            self._write()

    def finish(self) -> UniqueIds:
        """Return what came, each once; nothing can be added any more.

        Raises:
            ServiceUnavailable: the disk has no room.
        """
        self._write()
        with translate_disk_errors(self._folder):
            return self._write_once(self._repeated())

    def _file(self) -> IO[bytes]:
        return self._files.enter_context(_spooled(self._folder))

    def _write(self) -> None:
        values = bytes.fromhex("".join(self._waiting).replace("-", ""))
        placed = [bytearray() for _ in range(_BUCKETS)]
        for place, value in enumerate(_split(values), self._count):
            placed[crc32(value) % _BUCKETS] += _PLACED.pack(value, place)
        with translate_disk_errors(self._folder):
            self._all.write(values)
            for bucket, entries in zip(self._buckets, placed, strict=True):
                bucket.write(entries)
        self._count += len(self._waiting)
        self._waiting.clear()

    def _repeated(self) -> bytearray:
        """Return a bit for each place, the lowest first: whether its ID came before."""
        repeated = bytearray((self._count + 7) // 8)
        for bucket in self._buckets:
            bucket.seek(0)
            seen: set[bytes] = set()
            for value, place in _PLACED.iter_unpack(bucket.read()):
                if value in seen:
                    repeated[place >> 3] |= 1 << (place & 7)
                seen.add(value)
            bucket.close()
        return repeated

    def _write_once(self, repeated: bytearray) -> UniqueIds:
        digest = hashlib.sha256()
        count = 0
        with ExitStack() as unless_all_is_well:
            kept = unless_all_is_well.enter_context(_spooled(self._folder))
            self._all.seek(0)
            for start in range(0, self._count, _AT_ONCE):
                values = self._all.read(_AT_ONCE * _ID_BYTES)
                bits = repeated[start // 8 : (start + _AT_ONCE) // 8]
                if any(bits):
                    values = b"".join(
                        value for at, value in enumerate(_split(values)) if not bits[at >> 3] >> (at & 7) & 1
                    )
                digest.update(values)
                kept.write(values)
                count += len(values) // _ID_BYTES
            unless_all_is_well.pop_all()
        return UniqueIds(kept, count=count, repeated=self._count - count, fingerprint=digest.hexdigest())


def _spooled(folder: Path | None) -> IO[bytes]:
    return SpooledTemporaryFile(_IN_MEMORY, dir=None if folder is None else str(folder))


def _split(values: bytes) -> Iterator[bytes]:
    return (values[at : at + _ID_BYTES] for at in range(0, len(values), _ID_BYTES))


def _texts(values: bytes) -> list[str]:
    digits = values.hex()
    return [
        f"{digits[at : at + 8]}-{digits[at + 8 : at + 12]}-{digits[at + 12 : at + 16]}-"
        f"{digits[at + 16 : at + 20]}-{digits[at + 20 : at + 32]}"
        for at in range(0, len(digits), 2 * _ID_BYTES)
    ]
