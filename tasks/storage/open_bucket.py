"""The archive's bucket, wherever the archive is."""

from collections.abc import Callable
from pathlib import Path

from obstore.store import ObjectStore

from tasks.storage.bucket import Bucket, ObjectBucket
from tasks.storage.local_bucket import FolderBucket


def bucket_at(
    archive: ObjectStore | Path, storage_class: str | None = None, writing: Callable[[], ObjectStore] | None = None
) -> Bucket:
    """Return the bucket.

    Args:
        archive: the client of a bucket, or a folder.
        storage_class: S3 storage class of documents, or None for the bucket's own.
        writing: what gives the client to write with, where that is another one.
    """
    return FolderBucket(archive) if isinstance(archive, Path) else ObjectBucket(archive, storage_class, writing)
