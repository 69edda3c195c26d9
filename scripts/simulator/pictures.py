"""Documents as files: JPEG of a given size, PNG, TIFF and PDF.

Each is a fixed sample (`make samples`) with a comment that names its evaluation: different bytes for each evaluation,
and the same bytes every time.
"""

import enum
import hashlib
import importlib.resources
import zlib
from functools import cache

_START_OF_IMAGE = b"\xff\xd8"
_COMMENT = b"\xff\xfe"
_LENGTH_BYTES = 2
_LONGEST_COMMENT = 0xFFFF - _LENGTH_BYTES
_END_OF_PNG = b"\0\0\0\0IEND"
_END_OF_PDF = b"startxref"


class Subject(enum.Enum):
    """What a JPEG shows."""

    FRONT = "front"
    BACK = "back"
    SELFIE = "selfie"


def jpeg(eval_id: str, subject: Subject, size: int, *, take: int = 1) -> bytes:
    """Return a JPEG of about a given size.

    The image itself is small. Comment segments fill the file, as previews and maker notes do in photos.

    Args:
        eval_id: the evaluation it belongs to.
        subject: what it shows.
        size: bytes; the file has 80 to 120 % of it, but never less than the sample needs.
        take: 1 for the first capture, 2 for the second.
    """
    note = _note(eval_id, f"{subject.value} {take}")
    comment, sample = _segment(note), _sample(f"{subject.value}.jpg")
    percent = 80 + hashlib.blake2b(note, digest_size=1).digest()[0] % 41
    padding = _padding(size * percent // 100 - len(comment) - len(sample))
    # Viewers that show one comment show the last.
    return _START_OF_IMAGE + padding + comment + sample.removeprefix(_START_OF_IMAGE)


def png(eval_id: str, label: str) -> bytes:
    """Return a page as PNG; the label sets it apart from other pages of the evaluation."""
    text = b"tEXtComment\0" + _note(eval_id, label)
    length = len(text) - len(b"tEXt")
    chunk = length.to_bytes(4, "big") + text + zlib.crc32(text).to_bytes(4, "big")
    return _sample("page.png").replace(_END_OF_PNG, chunk + _END_OF_PNG)


def tiff(eval_id: str, label: str) -> bytes:
    """Return a page as TIFF, in black and white as a fax or a scanner makes it; the label is as for ``png``."""
    # Readers follow offsets, so they ignore bytes at the end.
    return _sample("page.tiff") + _note(eval_id, label)


def pdf(eval_id: str, label: str) -> bytes:
    """Return a page as PDF; the label is as for ``png``."""
    # The comment comes after the table of offsets, so every offset in the table stays right.
    return _sample("page.pdf").replace(_END_OF_PDF, b"%% %b\n%b" % (_note(eval_id, label), _END_OF_PDF))


def _note(eval_id: str, label: str) -> bytes:
    return f"{eval_id} {label}".encode()


def _segment(comment: bytes) -> bytes:
    return _COMMENT + (len(comment) + _LENGTH_BYTES).to_bytes(_LENGTH_BYTES, "big") + comment


def _padding(size: int) -> bytes:
    """Return comment segments of together about ``size`` bytes; none if there is no room."""
    segments = []
    while (room := size - len(_segment(b""))) > 0:
        segments.append(_segment(_noise()[:room]))
        size -= len(segments[-1])
    return b"".join(segments)


@cache
def _sample(name: str) -> bytes:
    return importlib.resources.files("scripts.simulator").joinpath("samples", name).read_bytes()


@cache
def _noise() -> bytes:
    """Return bytes that do not compress and are the same in every process.

    They are longer than the window of deflate, so repeating them does not compress either.
    """
    return hashlib.shake_128(b"docv-archive").digest(_LONGEST_COMMENT)
