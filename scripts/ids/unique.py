"""Remove duplicate evaluation IDs, keeping the order, in memory that does not grow with their number.

An ID is 16 bytes. All IDs are written to one file, and each, with its position, also to one of 64 buckets that its hash
selects, so that equal ones are in the same bucket. A bucket is small enough to be searched in memory. Duplicates found
there are skipped in a final copy. Short lists stay in memory.

The facts of an evaluation are a record of nine bytes in another file; those of a duplicate are merged into the first.
"""

import functools
import hashlib
import itertools
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO
from zlib import crc32

from scripts.ids.scratch import translate_disk_errors
from tasks.model.evidence import EvaluationFacts
from tasks.model.outcome import Evidence

_ID_BYTES = 16
_BUCKETS = 64
_AT_ONCE = 1 << 15
"""The number of IDs in a batch; a multiple of 8."""
_IN_MEMORY = 1 << 16
"""Maximum number of bytes of each file that stay in memory."""
_PLACED = struct.Struct(">16sQ")
_FACTS = struct.Struct(">Bq")
_BITS = {evidence: 1 << number for number, evidence in enumerate(Evidence)}
_HAS_TIME = 1 << 7
NO_FACTS = EvaluationFacts()
_NO_RECORD = bytes(_FACTS.size)


class UniqueIds(AbstractContextManager["UniqueIds"]):
    """The IDs without duplicates. They are in a file, so it must be closed; it can be read repeatedly.

    Attributes:
        repeated: the number of duplicates.
        fingerprint: SHA-256, as 64 hex digits, of the 16-byte values of all IDs, in order.
        has_facts: whether any evaluation has facts.
    """

    def __init__(
        self, file: IO[bytes], facts: IO[bytes], *, count: int, repeated: int, fingerprint: str, has_facts: bool
    ) -> None:
        self._file, self._facts = file, facts
        self._count = count
        self.has_facts = has_facts
        self.repeated = repeated
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        for chunk in self.chunks(_AT_ONCE):
            yield from chunk

    def chunks(self, most: int) -> Iterator[list[str]]:
        """Yield the IDs in lists of ``most``; the last list may be shorter."""
        for start in range(0, self._count, most):
            self._file.seek(start * _ID_BYTES)
            yield _texts(self._file.read(most * _ID_BYTES))

    def facts(self) -> Iterator[EvaluationFacts]:
        """Yield the facts of each, in order."""
        for start in range(0, self._count, _AT_ONCE):
            here = min(_AT_ONCE, self._count - start)
            self._facts.seek(start * _FACTS.size)
            found = self._facts.read(here * _FACTS.size) if self.has_facts else _NO_RECORD * here
            yield from itertools.starmap(_unpack, _FACTS.iter_unpack(found))

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._facts.close()

    def __exit__(self, *_: object) -> None:
        self.close()


class Deduplicator(AbstractContextManager["Deduplicator"]):
    """Removes duplicates: add all IDs, then call ``finish``.

    Args:
        folder: folder of the temporary files for lists that do not fit into memory; None stands for the system's.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._files = ExitStack()
        self._all = self._file()
        self._facts = self._file()
        self._has_facts = False
        self._buckets = [self._file() for _ in range(_BUCKETS)]
        self._waiting: list[str] = []
        self._waiting_facts = bytearray()
        self._count = 0

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def add(self, eval_id: str, facts: EvaluationFacts = NO_FACTS) -> None:
        """Add an ID in its canonical form, with the facts of the evaluation.

        Raises:
            ServiceUnavailable: the disk is full.
        """
        self._waiting.append(eval_id)
        self._waiting_facts += _pack(facts)
        if len(self._waiting) == _AT_ONCE:
            self._write()

    def finish(self) -> UniqueIds:
        """Return the IDs without duplicates; nothing can be added afterwards.

        Raises:
            ServiceUnavailable: the disk is full.
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
            self._write_facts()
            for bucket, entries in zip(self._buckets, placed, strict=True):
                bucket.write(entries)
        self._count += len(self._waiting)
        self._waiting.clear()

    def _write_facts(self) -> None:
        """Write the records of the batch, unless no evaluation has facts yet."""
        self._has_facts = self._has_facts or any(self._waiting_facts)
        if self._has_facts:
            self._facts.seek(self._count * _FACTS.size)
            self._facts.write(self._waiting_facts)
        self._waiting_facts.clear()

    def _join_facts(self, first: int, later: int) -> None:
        """Merge the facts of a duplicate into those of its first line."""
        bits, moment = self._read_facts(later)
        if bits:
            known, latest = self._read_facts(first)
            both_timed = bits & known & _HAS_TIME
            self._facts.seek(first * _FACTS.size)
            self._facts.write(_FACTS.pack(known | bits, max(latest, moment) if both_timed else latest or moment))

    def _read_facts(self, place: int) -> tuple[int, int]:
        self._facts.seek(place * _FACTS.size)
        bits, moment = _FACTS.unpack(self._facts.read(_FACTS.size))
        return int(bits), int(moment)

    def _repeated(self) -> bytearray:
        """Return a bit for each position, the lowest first: whether it is a duplicate."""
        repeated = bytearray((self._count + 7) // 8)
        for bucket in self._buckets:
            bucket.seek(0)
            seen: dict[bytes, int] = {}
            for value, place in _PLACED.iter_unpack(bucket.read()):
                first = seen.setdefault(value, place)
                if first != place:
                    repeated[place >> 3] |= 1 << (place & 7)
                    if self._has_facts:
                        self._join_facts(first, place)
            bucket.close()
        return repeated

    def _write_once(self, repeated: bytearray) -> UniqueIds:
        digest = hashlib.sha256()
        count = 0
        with ExitStack() as on_error:
            kept = on_error.enter_context(_spooled(self._folder))
            facts = on_error.enter_context(_spooled(self._folder))
            self._all.seek(0)
            self._facts.seek(0)
            for start in range(0, self._count, _AT_ONCE):
                bits = repeated[start // 8 : (start + _AT_ONCE) // 8]
                values = _without(bits, self._all.read(_AT_ONCE * _ID_BYTES), _ID_BYTES)
                digest.update(values)
                kept.write(values)
                count += len(values) // _ID_BYTES
                if self._has_facts:
                    facts.write(_without(bits, self._facts.read(_AT_ONCE * _FACTS.size), _FACTS.size))
            on_error.pop_all()
        return UniqueIds(
            kept,
            facts,
            count=count,
            repeated=self._count - count,
            fingerprint=digest.hexdigest(),
            has_facts=self._has_facts,
        )


def _spooled(folder: Path | None) -> IO[bytes]:
    return SpooledTemporaryFile(_IN_MEMORY, dir=None if folder is None else str(folder))


def _split(values: bytes, size: int = _ID_BYTES) -> Iterator[bytes]:
    return (values[at : at + size] for at in range(0, len(values), size))


def _without(bits: bytearray, records: bytes, size: int) -> bytes:
    """Return the records whose bit is not set."""
    if not any(bits):
        return records
    return b"".join(each for at, each in enumerate(_split(records, size)) if not bits[at >> 3] >> (at & 7) & 1)


def _pack(facts: EvaluationFacts) -> bytes:
    if facts == NO_FACTS:
        return _NO_RECORD
    bits = sum(_BITS[evidence] for evidence in facts.evidence)
    return (
        _FACTS.pack(bits, 0) if facts.event_at is None else _FACTS.pack(bits | _HAS_TIME, round(facts.event_at * 1000))
    )


@functools.lru_cache(1024)
def _unpack(bits: int, moment: int) -> EvaluationFacts:
    evidence = tuple(sorted(evidence for evidence, bit in _BITS.items() if bits & bit))
    return EvaluationFacts(evidence, moment / 1000 if bits & _HAS_TIME else None)


def _texts(values: bytes) -> list[str]:
    digits = values.hex()
    return [
        f"{digits[at : at + 8]}-{digits[at + 8 : at + 12]}-{digits[at + 12 : at + 16]}-"
        f"{digits[at + 16 : at + 20]}-{digits[at + 20 : at + 32]}"
        for at in range(0, len(digits), 2 * _ID_BYTES)
    ]
