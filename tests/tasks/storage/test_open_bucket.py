from pathlib import Path

from obstore.store import MemoryStore

from tasks.storage.bucket import S3Bucket
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.open_bucket import open_bucket


def test_open_bucket_opens_a_folder_or_an_s3_bucket(tmp_path: Path) -> None:
    assert isinstance(open_bucket(tmp_path), LocalBucket)
    assert isinstance(open_bucket(MemoryStore()), S3Bucket)
