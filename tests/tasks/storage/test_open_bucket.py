from pathlib import Path

from obstore.store import MemoryStore

from tasks.storage.bucket import S3Bucket
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.open_bucket import open_bucket


def test_the_archive_is_in_a_folder_or_in_a_bucket(tmp_path: Path) -> None:
    assert isinstance(open_bucket(tmp_path), LocalBucket)
    assert isinstance(open_bucket(MemoryStore()), S3Bucket)
