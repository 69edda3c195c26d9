"""Open the archive's bucket, in S3 or in a folder."""

from pathlib import Path
from typing import Any

from obstore.store import ObjectStore, S3Store

from tasks.storage.bucket import Bucket, S3Bucket
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.object_tagger import ObjectTagger
from worker.clients.object_lock import LockingClient


def open_bucket(
    archive: ObjectStore | Path,
    storage_class: str | None = None,
    write_client: LockingClient | None = None,
    tag_client: Any = None,
) -> Bucket:
    """Return the archive's bucket.

    Args:
        archive: the client of a bucket, or a folder.
        storage_class: S3 storage class of documents, or None for the bucket's default.
        write_client: returns the client for a write; None if ``archive`` also writes, without locks and legal holds.
        tag_client: boto3's client that sets tags after each write; None to send tags with the write.
    """
    if isinstance(archive, Path):
        return LocalBucket(archive)
    tagger = ObjectTagger(tag_client, archive) if tag_client and isinstance(archive, S3Store) else None
    return S3Bucket(archive, storage_class, write_client, tagger)
