from pathlib import Path

from obstore.store import MemoryStore

from tasks.bucket import ObjectBucket
from tasks.buckets import bucket_at
from tasks.folder import FolderBucket


def test_the_archive_is_in_a_folder_or_in_a_bucket(tmp_path: Path) -> None:
    assert isinstance(bucket_at(tmp_path), FolderBucket)
    assert isinstance(bucket_at(MemoryStore()), ObjectBucket)
