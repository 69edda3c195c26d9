"""The interface for listing the archive and reading the attributes of its objects."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tasks.storage.bucket import ListedObject

IRREGULAR = -1
"""Size of a link, a device or a pipe, which docv-archive never writes and verification does not read."""


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """The attributes of an object in S3.

    Attributes:
        sha256: S3's own checksum of the whole object; None if it has none, or only one of its parts.
        metadata: user metadata.
        tags: object tags.
        lock: mode of its Object Lock; None if it has none.
        content: SHA-256 of its bytes, read back; None if they were not read.
    """

    sha256: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    lock: str | None = None
    content: str | None = None


class ObjectLister(Protocol):
    """Lists objects and reads their attributes. Every method may raise StorageError."""

    def walk(self, prefix: str) -> AsyncIterator[list[ListedObject]]:
        """Yield pages of the objects with a prefix, ordered by key."""

    def list_folders(self, prefix: str) -> AsyncIterator[list[str]]:
        """Yield the names between a prefix that ends with a slash and the next slash of keys, some at a time, ordered.

        This is much faster than ``walk`` if there are many objects below each name.
        """

    async def head(self, key: str) -> ObjectHead | None:
        """Return the attributes of an object; None in a folder, or if the object is gone."""

    async def get(self, key: str) -> ObjectHead | None:
        """Return the attributes with the hash of the bytes, in one request; for small objects."""
