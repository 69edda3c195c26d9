"""A full disk and a read-only disk are reported with the setting of the folder."""

import errno
import os
from pathlib import Path

import pytest

from worker.clients.disk_errors import explain_disk_error, find_disk_problem


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk of DOCV_ARCHIVE_URL is full; free some space"),
        (errno.EDQUOT, "the disk of DOCV_ARCHIVE_URL is full; free some space"),
        (errno.EROFS, "the disk of DOCV_ARCHIVE_URL is read-only; mount it"),
        (errno.EACCES, "Permission denied; fix its owner and mode, or use another one in DOCV_ARCHIVE_URL"),
        (errno.EIO, "Input/output error; check that folder, or use another one in DOCV_ARCHIVE_URL"),
    ],
)
def test_a_disk_error_is_reported_with_the_setting(number: int, message: str) -> None:
    assert explain_disk_error(OSError(number, os.strerror(number)), "DOCV_ARCHIVE_URL").startswith(message)


def test_a_writable_folder_has_no_problem_and_a_missing_one_does(tmp_path: Path) -> None:
    assert find_disk_problem(tmp_path) is None
    assert "No such file" in (find_disk_problem(tmp_path / "missing") or "")
