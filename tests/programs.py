"""A pytest plugin for tests that need a program: they are skipped without it, or fail if CI is true.

A test names its programs in ``@pytest.mark.needs("promtool")``; programs.txt lists them with their Debian packages.
"""

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

_LINES = Path(__file__).with_name("programs.txt").read_text("utf-8").splitlines()
PACKAGES = dict(line.split(maxsplit=1) for line in _LINES if not line.startswith("#"))
_MISSING_PROGRAM = "missing program"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*programs): skip the test if one of these programs is missing")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip or fail a test before its fixtures start a service that it cannot use."""
    needed = {program: PACKAGES[program] for marker in item.iter_markers("needs") for program in marker.args}
    missing = [program for program in needed if shutil.which(program) is None]
    if not missing:
        return
    # Reports carry user_properties from the workers of pytest-xdist to the process that prints the summary.
    item.user_properties += [(_MISSING_PROGRAM, program) for program in missing]
    sentence = f"{', '.join(missing)} not found: apt-get install {' '.join(needed[program] for program in missing)}"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{sentence} (with CI=true, every test must run)", pytrace=False)
    pytest.skip(sentence)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many tests each missing program kept from running."""
    missing_by_test = [
        [program for name, program in getattr(report, "user_properties", ()) if name == _MISSING_PROGRAM]
        for report in terminalreporter.stats.get("skipped", ())
    ]
    tests = sum(map(bool, missing_by_test))
    if not tests:
        return
    counts = Counter(program for missing in missing_by_test for program in missing).most_common()
    programs = ", ".join(f"{program}: {count}" for program, count in counts)
    packages = " ".join(sorted({PACKAGES[program] for program, _ in counts}))
    terminalreporter.write_line(f"tests not run: {tests} ({programs}); `apt-get install {packages}` brings them")
