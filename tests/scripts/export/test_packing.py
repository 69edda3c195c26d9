import stat
import zipfile
from pathlib import Path

import pytest

from scripts.export.packing import pack
from scripts.export.staging import make_folders
from tasks.bundle.unpack import unpack
from tasks.bundle.zip import Limits


def test_every_file_is_in_the_zip_and_no_longer_in_the_folder(tmp_path: Path) -> None:
    files = {"id/a.jpg": b"picture", "id/user_uploaded/日本.jpg": b"", "id/manifest.json": b"{}"}
    for name, content in files.items():
        make_folders((tmp_path / "tree" / name).parent)
        (tmp_path / "tree" / name).write_bytes(content)
    pack(tmp_path / "tree", tmp_path / "packed", "cases")
    with zipfile.ZipFile(tmp_path / "packed") as archive:
        assert {name.removeprefix("cases/"): archive.read(name) for name in archive.namelist()} == files
        assert all(name.startswith("cases/") for name in archive.namelist())
    # The reader of docv-archive is stricter than that of the standard library.
    found = unpack((tmp_path / "packed").read_bytes(), Limits())
    assert {member.name.removeprefix("cases/"): bytes(member.data) for member in found.members} == files
    assert [path for path in (tmp_path / "tree").rglob("*") if path.is_file()] == []
    assert stat.S_IMODE((tmp_path / "packed").stat().st_mode) == 0o600


def test_a_large_export_is_a_zip64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)  # instead of 4 GiB, which would be slow
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "large").write_bytes(bytes(1000))
    pack(tmp_path / "tree", tmp_path / "packed", "cases")
    assert b"PK\6\6" in (tmp_path / "packed").read_bytes()
    with zipfile.ZipFile(tmp_path / "packed") as archive:
        assert archive.read("cases/large") == bytes(1000)
