from pathlib import Path

import pytest

from scripts.local import log_file
from scripts.local.log_file import rotate_log


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(log_file, "LOG_BYTES", 10)
    return tmp_path / "worker.log"


def test_a_log_is_rotated_once_it_is_large_and_four_older_ones_are_kept(log: Path) -> None:
    rotate_log(log)  # there is no log yet
    with log.open("ab", buffering=0) as worker:
        for number in range(7):
            worker.write(b"%d: 7890" % number)
            rotate_log(log)
            assert log.stat().st_size == 7  # not large enough
            worker.write(b"\n\n\n")
            rotate_log(log)
            assert log.stat().st_size == 0
    names = [f"worker.log.{number}" for number in range(1, 5)]
    assert {path.name: path.read_bytes()[:1] for path in log.parent.iterdir()} == {
        "worker.log": b"",
        **dict(zip(names, (b"6", b"5", b"4", b"3"), strict=True)),
    }
    assert [path for path in log.parent.iterdir() if path != log and path.stat().st_mode & 0o077] == []


def test_a_log_that_cannot_be_copied_is_emptied(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("shutil.copyfile", refuse)
    log.write_bytes(bytes(10))
    rotate_log(log)
    assert (log.stat().st_size, list(log.parent.iterdir())) == (0, [log])
