"""The evaluations of a bench: a few bundles, always the same, and which of them belongs to an ID."""

import io
import random
import zipfile
from collections.abc import Iterator
from functools import cache
from uuid import UUID

_BUNDLES = 8
_IMAGE = 250_000
_PDF = 60_000
_NAMES = (
    "user_uploaded/document_verification/documentfrontDoc_Front_1_blob.jpg",
    "user_uploaded/document_verification/documentbackDoc_Back_1_blob.jpg",
    "user_uploaded/vouched_id_verification/Doc_Selfie_1_blob.jpg",
)
_ATTACHED = "case_attachments/identity.pdf"
_JPEG, _PDF_MARK = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", b"%PDF-1.7\n"
# A photograph is not quite noise: what Deflate makes of it is Huffman codes, which have to be decoded, and not a copy.
_SKEW = [1.0 + 5 * byte / 255 for byte in range(256)]


@cache
def bundles() -> tuple[bytes, ...]:
    """Return the bundles: two images of an ID and a selfie, 0.75 MB; one in eight has a PDF as well."""
    return tuple(_bundle(number) for number in range(_BUNDLES))


def documents_of(eval_id: str) -> int:
    """Return how many documents the bundle of an evaluation holds."""
    return len(_NAMES) + (number_of(eval_id) == 0)


def number_of(eval_id: str) -> int:
    """Return which of the bundles belongs to an evaluation."""
    return int(eval_id[:8], 16) % _BUNDLES


def eval_ids(count: int, seed: int) -> Iterator[str]:
    """Yield IDs, always the same for a seed."""
    chance = random.Random(seed)  # noqa: S311  # no secret
    return (str(UUID(int=chance.getrandbits(128), version=4)) for _ in range(count))


def _bundle(number: int) -> bytes:
    chance = random.Random(number)  # noqa: S311  # no secret
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name in _NAMES:
            file.writestr(name, _JPEG + _noise(chance, _IMAGE))
        if number == 0:
            file.writestr(_ATTACHED, _PDF_MARK + _noise(chance, _PDF))
    return buffer.getvalue()


def _noise(chance: random.Random, size: int) -> bytes:
    return bytes(chance.choices(range(256), _SKEW, k=size))
