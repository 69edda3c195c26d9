from pathlib import Path

import pytest

from scripts.archive_access.open_bucket import open_archive_bucket, open_read_only_bucket
from tasks.errors import StorageError
from worker.clients.errors import ServiceUnavailable
from worker.config.settings import Settings


async def test_who_only_reads_makes_no_folder(tmp_path: Path) -> None:
    settings = Settings(archive_url=(tmp_path / "archive").as_uri())
    with pytest.raises(ServiceUnavailable, match="no archive here"):
        async with open_read_only_bucket(settings):
            pass
    assert not (tmp_path / "archive").exists()
    async with open_archive_bucket(settings):
        pass
    async with open_read_only_bucket(settings) as bucket:
        assert await bucket.read("x") is None


async def test_a_store_that_fails_is_a_sentence_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="could not read an object: gone; give the same command again"):
        async with open_archive_bucket(Settings(archive_url=tmp_path.as_uri())):
            raise StorageError("read", "gone")
