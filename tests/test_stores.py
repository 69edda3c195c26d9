"""Workers and commands that write refuse an S3 without conditional writes, and `doctor` gives the reason."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.archive_access.open_bucket import open_archive_bucket
from scripts.archive_access.s3_client import open_s3_archive
from scripts.doctor.bucket import examine
from scripts.doctor.finding import State
from tests.commands import Shell
from tests.stores import PROGRAMS, rclone
from worker.config.settings import Settings, SettingsError

pytestmark = pytest.mark.skipif(not (PROGRAMS / "rclone").exists(), reason="`make stores` installs rclone")

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
ID = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with rclone("archive") as url:
        yield url


def test_doctor_reports_an_s3_that_overwrites_objects(endpoint: str) -> None:
    settings = Settings(archive_url="s3://archive/kept", s3_endpoint=endpoint)
    archive = open_s3_archive(settings)
    assert archive
    found = {each.subject: each for each in examine(archive, settings)}
    for what in ("create only", "compare-and-swap"):
        assert (found[what].state, "conditional writes" in found[what].fix) == (State.WRONG, True)


async def test_commands_refuse_to_write_to_an_s3_that_overwrites_objects(endpoint: str, tmp_path: Path) -> None:
    settings = Settings(archive_url="s3://archive/kept", s3_endpoint=endpoint)
    with pytest.raises(SettingsError, match="no conditional writes"):
        async with open_archive_bucket(settings):
            pytest.fail("it was opened")
    variables = {"DOCV_ARCHIVE_URL": "s3://archive/kept", "DOCV_S3_ENDPOINT": endpoint, "DOCV_API_KEY": "a-key"}
    finished = await Shell(tmp_path, KEYS | variables).run("run", ID)
    assert finished.code == 2
    assert "no conditional writes" in finished.err
