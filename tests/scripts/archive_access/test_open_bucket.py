from pathlib import Path

import pytest

from scripts.archive_access.open_bucket import open_archive_bucket, open_read_only_bucket
from tasks.errors import StorageError
from worker.clients.errors import ServiceUnavailable
from worker.config.settings import Settings


async def test_a_reader_does_not_create_the_folder_when_it_is_missing(tmp_path: Path) -> None:
    settings = Settings(archive_url=(tmp_path / "archive").as_uri())
    with pytest.raises(ServiceUnavailable, match="no readable archive was found here"):
        async with open_read_only_bucket(settings):
            pass
    assert not (tmp_path / "archive").exists()
    async with open_archive_bucket(settings):
        pass
    async with open_read_only_bucket(settings) as bucket:
        assert await bucket.read("x") is None


async def test_a_storage_error_is_reported_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="could not read an object: gone; run the command again"):
        async with open_archive_bucket(Settings(archive_url=tmp_path.as_uri())):
            raise StorageError("read", "gone")
