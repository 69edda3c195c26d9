"""The name of the command in texts for users to type."""

from pathlib import Path

import pytest

from scripts.console.program_name import get_command_name, path_command


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command in a virtual environment, which is not on PATH."""
    program = tmp_path / ".venv" / "bin" / "docv-archive"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return program


def test_a_program_that_is_not_on_path_is_called_by_its_path(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert get_command_name(".venv/bin/docv-archive") == ".venv/bin/docv-archive"
    assert path_command(".venv/bin/docv-archive") == f"export PATH={program.parent}:$PATH\n"
    monkeypatch.chdir("/usr")
    assert get_command_name(str(program)) == str(program)


def test_an_installed_program_is_called_by_its_name(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert get_command_name("/anywhere/cli.py") == "docv-archive"
    monkeypatch.setenv("PATH", f"/usr/bin:{program.parent}")
    assert (get_command_name(str(program)), path_command(str(program))) == ("docv-archive", "")
