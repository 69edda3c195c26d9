"""The check of a disk: write access and free space."""

import os
from pathlib import Path

import pytest

from scripts.doctor.disk import GiB, check_free_space, check_state_folder, judge_free_space
from scripts.doctor.finding import State


def test_a_state_directory_is_judged_by_its_parent_when_it_does_not_exist(tmp_path: Path) -> None:
    found = check_state_folder(tmp_path / "not" / "yet")
    assert found == check_free_space(found.subject, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_state_directory_is_wrong_when_it_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        found = check_state_folder(folder)
        assert (found.state, "is not a folder" in found.message, "DOCV_STATE_DIR" in found.fix) == (
            State.WRONG,
            True,
            True,
        )


def test_a_read_only_file_system_is_wrong() -> None:
    found = check_state_folder(Path("/proc"))
    assert (found.state, "cannot be written to" in found.message) == (State.WRONG, True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any folder")
def test_a_folder_of_another_user_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o500)
    assert check_state_folder(tmp_path / "theirs").state is State.WRONG


@pytest.mark.parametrize(
    ("free", "expected"), [(11 * GiB, State.FINE), (9 * GiB, State.WARNING), (GiB // 4, State.WRONG)]
)
def test_a_disk_is_reported_when_nearly_full(free: int, expected: State) -> None:
    assert judge_free_space("disk", free).state is expected
