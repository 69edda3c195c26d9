"""Damaged and malicious bundles.

They are made from the documents of an intact bundle, so each is as large as a real one.
"""

import io
import zipfile
from collections.abc import Callable, Mapping

from scripts.simulator.bundles import zip_of

Documents = Mapping[str, bytes]


def wrong_crc(documents: Documents) -> bytes:
    """Return a bundle in which one bit of the first document is flipped."""
    bundle = bytearray(zip_of(documents, compressed=False))
    content = next(iter(documents.values()))
    # The content is not compressed, so its bytes are found in the bundle.
    bundle[bundle.index(content) + len(content) // 2] ^= 1
    return bytes(bundle)


def garbage(documents: Documents) -> bytes:
    """Return bytes that are not a ZIP: a bundle with every bit flipped."""
    return zip_of(documents).translate(bytes(range(255, -1, -1)))


def truncated(documents: Documents) -> bytes:
    """Return the first half of a bundle: the directory at its end is missing."""
    bundle = zip_of(documents)
    return bundle[: len(bundle) // 2]


def empty(_: Documents) -> bytes:
    """Return a valid ZIP without members."""
    return zip_of({})


def overlapping(documents: Documents) -> bytes:
    """Return a bundle whose directory gives all members the offset of the first one."""

    def at_the_first(members: list[zipfile.ZipInfo]) -> None:
        for member in members[1:]:
            member.header_offset = members[0].header_offset

    return _forged(documents, at_the_first)


def forged_size(documents: Documents) -> bytes:
    """Return a bundle whose directory says that the first member unpacks to two gibibytes."""

    def enlarge(members: list[zipfile.ZipInfo]) -> None:
        members[0].file_size = (2 << 30) - 1

    return _forged(documents, enlarge)


def _forged(documents: Documents, forge: Callable[[list[zipfile.ZipInfo]], None]) -> bytes:
    """Return a bundle with a forged directory, which ``zipfile`` writes from the entries when the ZIP is closed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in documents.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        forge(archive.infolist())
    return file.getvalue()
