"""The plugin tests/programs.py: a missing program skips a test, or fails it if CI is true."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import PACKAGES

TESTS = Path(__file__).parent
SUITE = """
import pytest

@pytest.mark.needs("zip")
def test_with_an_existing_program(): pass

@pytest.mark.needs("jq")
def test_with_a_missing_program(): pass

@pytest.mark.needs("zip", "promtool")
@pytest.mark.needs("jq")
def test_with_two_missing_programs(): pass

def test_skipped_for_another_reason(): pytest.skip("not today")
"""


def run_suite(folder: Path, suite: str, *options: str, ci: str | None = None) -> tuple[int, str]:
    """Run tests in a separate pytest that finds no program but zip; return its exit code and its output."""
    (folder / "bin").mkdir()
    (folder / "bin" / "zip").touch(mode=0o755)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    (folder / "test_suite.py").write_text(suite)
    environment = {"PATH": str(folder / "bin"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # all plugins take a second
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "xdist", "-p", "tests.programs", *options],
        cwd=folder,
        env=environment | ({"CI": ci} if ci else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    return finished.returncode, finished.stdout + finished.stderr


@pytest.mark.parametrize("processes", ["0", "2"])
def test_tests_are_skipped_and_counted_when_programs_are_missing(tmp_path: Path, processes: str) -> None:
    code, output = run_suite(tmp_path, SUITE, "-n", processes)
    assert code == 0
    assert "1 passed, 3 skipped" in output
    summary = "tests not run: 2 (jq: 2, promtool: 1); `apt-get install jq prometheus` brings them"
    assert summary in output.splitlines()


@pytest.mark.parametrize("processes", ["0", "2"])
def test_tests_fail_when_programs_are_missing_and_ci_is_true(tmp_path: Path, processes: str) -> None:
    code, output = run_suite(tmp_path, SUITE, "-n", processes, ci="true")
    assert code == 1
    assert "1 passed, 1 skipped, 2 errors" in output
    assert "jq not found: apt-get install jq (" in output
    assert "jq, promtool not found: apt-get install jq prometheus (" in output
    assert "not run" not in output


def test_nothing_is_printed_when_no_program_is_missing(tmp_path: Path) -> None:
    suite = "def test_nothing(): pass"
    assert "not run" not in run_suite(tmp_path, suite, ci="false")[1]


def test_a_program_that_is_not_listed_is_an_error(tmp_path: Path) -> None:
    suite = 'import pytest\n@pytest.mark.needs("xyzzy")\ndef test_nothing(): pass'
    code, output = run_suite(tmp_path, suite)
    assert code == 1
    assert "KeyError: 'xyzzy'" in output


@pytest.mark.parametrize("program", PACKAGES)
def test_every_listed_program_is_used_by_a_test(program: str) -> None:
    texts = [path.read_text("utf-8") for path in TESTS.rglob("*.py") if path != Path(__file__)]
    assert any(re.search(rf'"{re.escape(program)}[" ]', text) for text in texts)
