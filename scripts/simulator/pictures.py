"""Pictures as files: JPEG of a wanted size, PNG, TIFF and PDF.

The same evaluation always gives the same bytes: nothing here reads a clock or throws dice.
"""

import enum
import hashlib
import io
import time
from functools import cache

from PIL import Image

from scripts.simulator import drawing

_QUALITY = 80
_START_OF_IMAGE = b"\xff\xd8"
_COMMENT = b"\xff\xfe"
_LENGTH_BYTES = 2
_LONGEST_COMMENT = 0xFFFF - _LENGTH_BYTES
_A_FIXED_DAY = time.gmtime(1_750_000_000)


class Subject(enum.Enum):
    """What a JPEG shows."""

    FRONT = "front"
    BACK = "back"
    SELFIE = "selfie"


_DRAW = {Subject.FRONT: drawing.front, Subject.BACK: drawing.back, Subject.SELFIE: drawing.selfie}


def jpeg(eval_id: str, subject: Subject, size: int, *, take: int = 1) -> bytes:
    """Return a JPEG of about a wanted size.

    The picture itself is small and quick to draw; what is missing in size is filled up with comment
    segments, as cameras fill theirs with previews and maker notes.

    Args:
        eval_id: the evaluation it belongs to.
        subject: what it shows.
        size: bytes; the file has 80 to 120 % of it, but never less than the drawing needs.
        take: 1 for the first capture, 2 for the second.
    """
    file = io.BytesIO()
    _DRAW[subject](eval_id).save(file, "JPEG", quality=_QUALITY - take)
    drawn = file.getvalue()
    dice = hashlib.blake2b(f"{eval_id}/{subject.value}/{take}".encode(), digest_size=1).digest()[0]
    wanted = size * (80 + dice % 41) // 100
    return _START_OF_IMAGE + _comments(wanted - len(drawn)) + drawn[len(_START_OF_IMAGE) :]


def png(eval_id: str, title: str) -> bytes:
    """Return a page as PNG."""
    return _saved(drawing.page(eval_id, title), "PNG")


def tiff(eval_id: str, title: str) -> bytes:
    """Return a page as TIFF, in black and white as a fax or a scanner makes it."""
    return _saved(drawing.page(eval_id, title).convert("1"), "TIFF")


def pdf(eval_id: str, title: str) -> bytes:
    """Return a page as PDF."""
    file = io.BytesIO()
    drawing.page(eval_id, title).save(file, "PDF", title=title, creationDate=_A_FIXED_DAY, modDate=_A_FIXED_DAY)
    return file.getvalue()


def _saved(image: Image.Image, form: str) -> bytes:
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def _comments(size: int) -> bytes:
    """Return comment segments of together about ``size`` bytes; none when there is no room."""
    segments = []
    while size > len(_COMMENT) + _LENGTH_BYTES:
        filling = _noise()[: min(size - len(_COMMENT) - _LENGTH_BYTES, _LONGEST_COMMENT)]
        segments.append(_COMMENT + (len(filling) + _LENGTH_BYTES).to_bytes(2, "big") + filling)
        size -= len(segments[-1])
    return b"".join(segments)


@cache
def _noise() -> bytes:
    """Return bytes that do not compress and are the same in every process.

    They are longer than the window of deflate, so repeating them does not compress either.
    """
    return hashlib.shake_128(b"docv-archive").digest(_LONGEST_COMMENT)
