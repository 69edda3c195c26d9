"""The evaluations of a bench: a few bundles of each size, the same in every run, and the bundle of each ID."""

import io
import random
import zipfile
from collections.abc import Iterator
from functools import cache
from uuid import UUID

MB = 1_000_000
SIZES = (0.75, 1.1, 2.3, 4.6, 12.0)
"""Sizes of bundles, in MB."""
LARGE_MB = 200.0
LARGE_ID = "ffffffff-ffff-4fff-bfff-ffffffffffff"
"""The evaluation with a bundle of ``LARGE_MB``."""
DOCUMENTS = 3
"""Documents of each bundle."""
_BUNDLES_PER_SIZE = 4
# Sizes of the front, the back and the selfie in a bundle of a phone, in MB.
_PARTS = {
    "user_uploaded/document_verification/documentfrontDoc_Front_1_blob.jpg": 1.2,
    "user_uploaded/document_verification/documentbackDoc_Back_1_blob.jpg": 2.6,
    "user_uploaded/vouched_id_verification/Doc_Selfie_1_blob.jpg": 0.8,
}
_JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00"
_NOISE_BYTES = 1 << 20
# Deflate makes Huffman codes of a photograph, which have to be decoded. It would store plain noise, so this is skewed.
_SKEW = [1.0 + 5 * byte / 255 for byte in range(256)]


def make_bundles(megabytes: float) -> list[bytes]:
    """Return the bundles of a size: the front and the back of an ID, and a selfie."""
    return [_make_bundle(megabytes, number) for number in range(_BUNDLES_PER_SIZE)]


def make_large_bundle() -> bytes:
    """Return the bundle of ``LARGE_ID``."""
    return _make_bundle(LARGE_MB, 0)


def bundle_number(eval_id: str, bundles: int) -> int:
    """Return which of some bundles belongs to an evaluation."""
    return int(eval_id[:8], 16) % bundles


def eval_ids(count: int, seed: int) -> Iterator[str]:
    """Yield IDs, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311  # not a secret
    return (str(UUID(int=chance.getrandbits(128), version=4)) for _ in range(count))


def _make_bundle(megabytes: float, number: int) -> bytes:
    chance = random.Random(f"{megabytes} {number}")  # noqa: S311  # not a secret
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, part in _PARTS.items():
            content = _JPEG + _photograph(chance, round(megabytes * MB * part / sum(_PARTS.values())))
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _photograph(chance: random.Random, size: int) -> bytes:
    """Return noise from a random offset; it repeats after a distance that Deflate does not look back."""
    start = chance.randrange(_NOISE_BYTES)
    return (_noise() * (2 + size // _NOISE_BYTES))[start : start + size]


@cache
def _noise() -> bytes:
    return bytes(random.Random(0).choices(range(256), _SKEW, k=_NOISE_BYTES))  # noqa: S311  # not a secret
