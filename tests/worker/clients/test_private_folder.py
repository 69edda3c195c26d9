"""Only its user can enter a private folder, and the folder of another user is refused."""

import os
import stat
from pathlib import Path

import pytest

from worker.clients.private_folder import make_private


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "private"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode) & 0o777


def test_a_folder_is_created_for_its_user_only_with_any_umask(folder: Path) -> None:
    before = os.umask(0)
    try:
        make_private(folder)
    finally:
        os.umask(before)
    assert mode_of(folder) == 0o700
    make_private(folder)


def test_a_folder_in_a_kubernetes_emptydir_with_setgid_is_accepted(folder: Path) -> None:
    folder.parent.mkdir()
    folder.parent.chmod(0o2777)  # the mode that kubelet gives an emptyDir with fsGroup
    make_private(folder)
    make_private(folder)
    assert mode_of(folder) == 0o700


def test_access_of_a_volume_s_group_is_revoked(folder: Path) -> None:
    make_private(folder)
    folder.chmod(0o2770)  # the mode that kubelet sets at the next mount of a volume with fsGroup
    make_private(folder)
    assert mode_of(folder) == 0o700


def test_a_folder_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_private(folder)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(PermissionError, match="another user owns it"):
        make_private(folder)


def test_a_world_writable_folder_is_refused(folder: Path) -> None:
    make_private(folder)
    folder.chmod(0o703)
    with pytest.raises(PermissionError, match="may write to it"):
        make_private(folder)


def test_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    folder.parent.mkdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(NotADirectoryError, match="not a folder"):
        make_private(folder)
