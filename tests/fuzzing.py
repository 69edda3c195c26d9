"""Give damaged bundles to everything that reads bundles, for a given time.

    python -m tests.fuzzing --seconds 600

Bundles of every kind are flipped, cut, spliced and forged, several times each. The reader has to return the contents
that the bundle promises, or refuse it. It must raise no other exception, and stay within the limits of memory and time.

With ``--keep``, inputs that lead to a new kind of answer join the corpus in ``tests/corpus``, which every test run
reads. Inputs that break a promise are kept there as ``finding-….zip``.
"""

import argparse
import hashlib
import random
import resource
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tasks.bundle.documents import identify
from tasks.bundle.unpack import unpack
from tasks.bundle.zip import Limits
from tasks.bundle.zip.check import check
from tasks.bundle.zip.decompress import zstd
from tasks.errors import BadBundle
from tests.zips import Forgery, Raw, deflated, descriptor, streamed_zip_of, wide_zip_of, zip64_extra, zip_of

CORPUS = Path(__file__).parent / "corpus"
LIMITS = Limits(max_documents=50, max_unpacked_bytes=4 << 20, ratio_from=1 << 20, in_memory=1 << 20)
_SLOWEST_SECONDS = 2.0
_MOST_MEMORY = 400 << 20
_FILES = {
    "user_uploaded/document_verification/documentfrontDoc_Front_1_blob.jpg": b"\xff\xd8\xff\xe0" + bytes(range(256)),
    "case_attachments/r\u00e9sum\u00e9.txt": b"text " * 40,
    "case_attachments/": b"",
    "empty": b"",
}
# Bytes that parsers are known to fail on.
_INTERESTING = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff" * 8,
    b"\0\0\0\x80",
    b"\x01\0",
    b"PK\5\6",
    b"PK\6\6",
    b"PK\1\2",
    b"PK\3\4",
)


@dataclass(frozen=True)
class Finding:
    """A promise that was broken.

    Attributes:
        data: the bundle.
        what: the promise, and how it was broken.
    """

    data: bytes
    what: str


def seeds() -> Iterator[bytes]:
    """Yield bundles of every kind, valid and invalid."""
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        yield zip_of(_FILES, method, comment=b"a comment")
        yield streamed_zip_of(_FILES, method)
    yield wide_zip_of(_FILES)
    yield zip_of({})
    yield zip_of({"inner.zip": zip_of(_FILES)}, zipfile.ZIP_STORED)
    content = b"some content" * 9
    yield Forgery(members=[Raw(method=93, content=content, packed=zstd.compress(content))]).to_bytes()
    packed = deflated(content)
    yield Forgery(
        members=[Raw(method=8, flags=8, content=content, descriptor=descriptor(content, packed, wide=True))]
    ).to_bytes()
    saturated = {"size": 0xFFFF_FFFF, "packed": 0xFFFF_FFFF, "extra": zip64_extra(len(content), len(content))}
    yield Forgery(members=[Raw(content=content, local=saturated, central=saturated)]).to_bytes()
    yield Forgery(members=[Raw(name=b"../\0\xff", flags=0x800), Raw(flags=1), Raw(name=b"x/")]).to_bytes()
    yield Forgery(end64={}, before=b"#!/bin/sh\n" * 3).to_bytes()


def mutate(dice: random.Random, bundles: list[bytes]) -> bytes:
    """Return one of the bundles, damaged in one to six ways."""
    data = bytearray(dice.choice(bundles))
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(data) + 1)
        length = dice.choice((1, 2, 4, 8, 30, dice.randrange(len(data) + 1)))
        match dice.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << dice.randrange(8)
            case 1:
                data[at : at + length] = dice.choice(_INTERESTING)
            case 2:
                del data[at : at + length]
            case 3:
                other = dice.choice(bundles)
                begin = dice.randrange(len(other) + 1)
                data[at:at] = other[begin : begin + length]
            case 4:
                data[at : at + length] = dice.randbytes(length)
            case 5:
                data[at : at + 4] = dice.randrange(len(data) + 64).to_bytes(4, "little")
            case _:
                del data[at:]
    return bytes(data[: 1 << 17])


def classify(data: bytes) -> tuple[str, ...]:
    """Read a bundle and everything in it; return the kinds of answer.

    Raises:
        AssertionError: the contents differ from those that the bundle promises.
        Exception: any other exception is a finding.
    """
    try:
        unpacked = unpack(data, LIMITS)
    except BadBundle as error:
        return (error.cause,)
    assert unpack(data, replace(LIMITS, in_memory=0)) == unpacked, "a spooled bundle is read differently"
    promised = {(entry.crc, entry.size) for entry in check(data, max_entries=20_000).entries}
    for member in unpacked.members:
        assert (zlib.crc32(member.data), len(member.data)) in promised, "a member that the bundle does not promise"
        assert hashlib.sha256(member.data).hexdigest() == member.sha256, "the hash of other content"
        identify(member).name.encode()
    kinds = {identify(member).media_type for member in unpacked.members} | {each.cause for each in unpacked.unreadable}
    return (*sorted(kinds), str(min(len(unpacked.members), 4)))


def judged(data: bytes) -> tuple[tuple[str, ...], Finding | None]:
    """Return the answer to a bundle, and the promise that was broken, if any."""
    began = time.thread_time()
    try:
        answer = classify(data)
    except Exception as error:  # noqa: BLE001  # any exception is a finding
        return (), Finding(data, f"{type(error).__name__}: {error}")
    if time.thread_time() - began > _SLOWEST_SECONDS:
        return answer, Finding(data, "it took too long")
    return answer, None


def fuzz(seconds: float, seed: int, corpus: Path | None = None) -> tuple[int, set[tuple[str, ...]], list[Finding]]:
    """Read damaged bundles; return how many, the kinds of answer, and the broken promises.

    Args:
        seconds: how long.
        seed: of the damage.
        corpus: folder for inputs with a new kind of answer.
    """
    dice = random.Random(seed)  # noqa: S311  # not a secret
    bundles = [*seeds(), *(path.read_bytes() for path in sorted(CORPUS.glob("*.zip")))]
    known = {judged(data)[0] for data in bundles}
    found: list[Finding] = []
    deadline, count = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        data, count = mutate(dice, bundles), count + 1
        answer, broken = judged(data)
        if broken:
            found.append(broken)
            _keep(corpus, "finding", data)
        elif answer not in known:
            known.add(answer)
            bundles.append(data)
            _keep(corpus, answer[0].replace("/", "-"), data)
    return count, known, found


def _keep(corpus: Path | None, word: str, data: bytes) -> None:
    if corpus:
        corpus.mkdir(exist_ok=True)
        (corpus / f"{word}-{hashlib.sha256(data).hexdigest()[:12]}.zip").write_bytes(data)


def main() -> int:
    """Fuzz with the options of the command line; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description="Give damaged bundles to the reader of bundles.")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=time.time_ns())
    parser.add_argument("--keep", action="store_true", help="add inputs with a new kind of answer to the corpus")
    options = parser.parse_args()
    count, kinds, found = fuzz(options.seconds, options.seed, CORPUS if options.keep else None)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(  # noqa: T201  # the result of the program
        f"{count:,} bundles in {options.seconds:g} s (seed {options.seed}): {len(found)} findings, "
        f"{len(kinds)} kinds of answer, {memory >> 20} MiB of memory"
    )
    for broken in found[:10]:
        print(f"  {broken.what} ({len(broken.data)} bytes)", file=sys.stderr)  # noqa: T201
    return 1 if found or memory > _MOST_MEMORY else 0


if __name__ == "__main__":
    raise SystemExit(main())
