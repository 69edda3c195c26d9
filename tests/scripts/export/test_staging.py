import stat
from pathlib import Path

import click
import pytest

from scripts.export.staging import (
    check_target_absent,
    files_below,
    make_folders,
    open_for_owner,
    put_in_place,
    staging_folder,
)
from worker.clients.errors import ServiceUnavailable


def test_an_export_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with staging_folder(target) as folder:
        make_folders(folder / "tree" / "a")
        (folder / "tree" / "a" / "b").write_text("content")
        assert not target.exists()
        put_in_place(folder / "tree", target)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (target / "a" / "b").read_text() == "content"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_of_an_unfinished_export(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with staging_folder(tmp_path / "out") as folder:
            (folder / "half").write_text("content")
            raise error

    with pytest.raises(error):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_be_written_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(ServiceUnavailable, match="out cannot be written: No space left"),
        staging_folder(tmp_path / "out"),
    ):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", ["file", "folder", "link"])
def test_an_existing_file_is_never_overwritten(tmp_path: Path, existing: str) -> None:
    target = tmp_path / "out"
    with staging_folder(target) as folder:
        for name in ("tree", "packed"):
            (folder / name).mkdir() if name == "tree" else (folder / name).touch()
        check_target_absent(target)
        match existing:
            case "file":
                target.write_text("mine")
            case "folder":
                target.mkdir()
            case _:
                target.symlink_to(tmp_path / "nowhere")
        with pytest.raises(click.UsageError, match="already exists"):
            check_target_absent(target)
        for name in ("tree", "packed"):
            with pytest.raises(click.UsageError, match="already exists"):
                put_in_place(folder / name, target)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_leftover_is_reported_when_it_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".docv-export-0.part").mkdir()
    (tmp_path / ".docv-export-1.part").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()

    def flock(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with staging_folder(tmp_path / "out"):
        pass
    err = capsys.readouterr().err
    assert ".docv-export-0.part may hold opened documents of a killed export and cannot be removed: No locks" in err
    assert (tmp_path / ".docv-export-0.part").is_dir()
    assert (tmp_path / "elsewhere").is_dir()


def test_a_path_is_refused_when_its_folder_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="is not a folder"):
        check_target_absent(tmp_path / "nowhere" / "out")


def test_only_the_owner_may_read_an_export(tmp_path: Path) -> None:
    make_folders(tmp_path / "a" / "b")
    with open(tmp_path / "a" / "b" / "c", "x", opener=open_for_owner):
        pass
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/c")]
    assert modes == [0o700, 0o700, 0o600]


def test_files_are_listed_before_folders_and_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b/2", "a/1", "c", "b/1"):
        make_folders((tmp_path / name).parent)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)] == ["c", "a/1", "b/1", "b/2"]
