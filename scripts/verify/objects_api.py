"""What the archive has, as it is found by listing, and what it says of itself beside its bytes."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

IRREGULAR = -1
"""In the place of a size: a link, a device, a pipe; nothing that we wrote, and nothing to be read."""


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object as a listing shows it.

    Attributes:
        key: below the archive's prefix.
        size: bytes.
        modified: when it was written, in seconds since 1970.
    """

    key: str
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """What S3 keeps beside the bytes of an object.

    Attributes:
        sha256: S3's own checksum of the whole; None where it has none, or only one of its parts.
        metadata: user metadata.
        tags: object tags.
        lock: mode of its Object Lock; None where it has none.
        content: SHA-256 of its bytes, read back; None where they were not read.
    """

    sha256: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    lock: str | None = None
    content: str | None = None


class ObjectLister(Protocol):
    """What verifying asks of the archive apart from bytes. Every method raises StorageError."""

    def walk(self, prefix: str) -> AsyncIterator[list[ListedObject]]:
        """Yield everything whose key begins so, some at a time, in the order of the keys."""

    async def head(self, key: str) -> ObjectHead | None:
        """Return what is kept beside an object; None where nothing is: in a folder, or when it is gone."""

    async def get(self, key: str) -> ObjectHead | None:
        """Return the same with the hash of its bytes, in one request; for what is small."""
