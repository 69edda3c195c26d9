"""The archive's bucket, wherever the archive is."""

from collections.abc import Callable
from pathlib import Path

from obstore.store import ObjectStore

from tasks.storage.bucket import Bucket, S3Bucket
from tasks.storage.local_bucket import LocalBucket


def open_bucket(
    archive: ObjectStore | Path, storage_class: str | None = None, write_client: Callable[[], ObjectStore] | None = None
) -> Bucket:
    """Return the bucket.

    Args:
        archive: the client of a bucket, or a folder.
        storage_class: S3 storage class of documents, or None for the bucket's own.
        write_client: what gives the client to write with, where that is another one.
    """
    return LocalBucket(archive) if isinstance(archive, Path) else S3Bucket(archive, storage_class, write_client)
