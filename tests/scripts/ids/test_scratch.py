"""The folder for files that are too large for memory."""

import stat
from pathlib import Path

import pytest

from scripts.ids.scratch import scratch_file, scratch_folder, translate_disk_errors
from worker.clients.errors import ServiceUnavailable
from worker.config.settings import Settings


def test_scratch_folder_is_created_for_its_owner_only(tmp_path: Path) -> None:
    folder = scratch_folder(Settings(state_dir=tmp_path / "state"))
    assert folder == tmp_path / "state" / "private" / "spool"
    assert {stat.S_IMODE(each.stat().st_mode) for each in (folder, folder.parent)} == {0o700}


def test_scratch_folder_is_none_without_settings() -> None:
    assert scratch_folder(None) is None


def test_scratch_folder_raises_service_unavailable_when_it_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(ServiceUnavailable, match=r"cannot be kept there .*; check that folder, or use another"):
        scratch_folder(Settings(state_dir=tmp_path / "state"))


def test_scratch_file_has_no_name(tmp_path: Path) -> None:
    with scratch_file(tmp_path) as file:
        file.write(b"x")
        assert list(tmp_path.iterdir()) == []
    assert file.closed


def test_translate_disk_errors_raises_service_unavailable_when_the_disk_is_full() -> None:
    with (
        pytest.raises(ServiceUnavailable, match="the disk of DOCV_STATE_DIR is full"),
        translate_disk_errors(None),
        Path("/dev/full").open("wb") as full,
    ):
        full.write(b"x")
