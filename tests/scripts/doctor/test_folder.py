"""An archive in a folder is examined by doing what workers do there."""

from pathlib import Path

from scripts.doctor.finding import State
from scripts.doctor.folder import examine


def test_a_folder_that_can_be_used_is_fine_and_nothing_stays_in_it(tmp_path: Path) -> None:
    found = {finding.subject: finding.state for finding in examine(tmp_path)}
    assert [found[what] for what in ("archive", "links", "files without a name")] == [State.FINE] * 3
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_yet_is_a_warning(tmp_path: Path) -> None:
    (found,) = examine(tmp_path / "not yet")
    assert (found.state, "is it the right one" in found.fix) == (State.WARNING, True)


def test_a_folder_that_takes_nothing_is_wrong() -> None:
    first, *_ = examine(Path("/proc"))
    assert (first.state, "cannot be written to" in first.message) == (State.WRONG, True)
