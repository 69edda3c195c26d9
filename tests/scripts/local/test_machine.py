"""Checks of the machine by `run` and `backfill` before they start a worker."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import SecretStr

from scripts.local.machine import local_workers
from worker.clients.errors import ServiceUnavailable
from worker.config.settings import Settings


def test_no_worker_starts_if_the_archives_file_system_is_not_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    settings = Settings(redis_url=SecretStr(redis_url), archive_url=(tmp_path / "archive").as_uri())
    with pytest.raises(ServiceUnavailable, match="only 0 MiB are free"), local_workers(settings):
        pytest.fail("a worker started")
