"""The check of an archive folder does what workers do there."""

from pathlib import Path

import pytest

from scripts.doctor.finding import State
from scripts.doctor.folder import examine


def test_a_usable_folder_is_fine_and_stays_empty(tmp_path: Path) -> None:
    found = {finding.subject: finding.state for finding in examine(tmp_path)}
    assert [found[what] for what in ("archive", "links", "locks", "unnamed files")] == [State.FINE] * 4
    assert list(tmp_path.iterdir()) == []


def test_locks_are_wrong_when_they_have_no_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    found = {finding.subject: finding for finding in examine(tmp_path)}
    assert (found["locks"].state, found["links"].state) == (State.WRONG, State.FINE)
    assert "grants one lock twice" in found["locks"].message


def test_a_folder_is_a_warning_when_it_does_not_exist(tmp_path: Path) -> None:
    (found,) = examine(tmp_path / "not yet")
    assert (found.state, "check that the path is right" in found.fix) == (State.WARNING, True)


def test_a_read_only_folder_is_wrong() -> None:
    first, *_ = examine(Path("/proc"))
    assert (first.state, "cannot be written to" in first.message) == (State.WRONG, True)
