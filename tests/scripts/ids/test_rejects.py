"""The file with the bad lines."""

import csv
import stat
from pathlib import Path

import pytest

from scripts.ids.rejects import Rejects
from tasks.errors import BadEvalId
from worker.clients.errors import ServiceUnavailable


def _rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file, strict=True))


def test_rejects_has_a_row_for_each_bad_line_and_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rejects.csv"
    with Rejects(path) as rejects:
        rejects.add(3, BadEvalId('a "b", c', "it is empty"))
        rejects.add(5, BadEvalId("d", "expected a UUID"))
        assert (rejects.count, rejects.path) == (2, path)
    assert _rows(path) == [["line", "why", "text"], ["3", "it is empty", 'a "b", c'], ["5", "expected a UUID", "d"]]
    assert path.read_bytes().startswith(b"\xef\xbb\xbfline,why,text\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\n=1", "\uff1d1+1"])
def test_rejects_escapes_formulas(tmp_path: Path, text: str) -> None:
    with Rejects(tmp_path / "rejects.csv") as rejects:
        rejects.add(1, BadEvalId(text, "why"))
    assert _rows(tmp_path / "rejects.csv")[1][2] == "'" + text


def test_rejects_removes_an_earlier_file_when_no_line_is_bad(tmp_path: Path) -> None:
    path = tmp_path / "rejects.csv"
    path.write_text("from an earlier run")
    with Rejects(path) as rejects:
        assert rejects.path is None
    assert not path.exists()


def test_rejects_replaces_a_link_and_does_not_follow_it(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "rejects.csv").symlink_to(tmp_path / "precious")
    with Rejects(tmp_path / "rejects.csv") as rejects:
        rejects.add(1, BadEvalId("x", "why"))
    assert (tmp_path / "precious").read_text() == "precious"
    assert len(_rows(tmp_path / "rejects.csv")) == 2


def test_rejects_raises_service_unavailable_when_the_path_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with (
        pytest.raises(ServiceUnavailable, match="the invalid lines cannot be written there: Not a directory"),
        Rejects(tmp_path / "file" / "rejects.csv"),
    ):
        pass
