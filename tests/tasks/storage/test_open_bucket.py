from pathlib import Path

from obstore.store import MemoryStore

from tasks.storage.bucket import ObjectBucket
from tasks.storage.local_bucket import FolderBucket
from tasks.storage.open_bucket import bucket_at


def test_the_archive_is_in_a_folder_or_in_a_bucket(tmp_path: Path) -> None:
    assert isinstance(bucket_at(tmp_path), FolderBucket)
    assert isinstance(bucket_at(MemoryStore()), ObjectBucket)
