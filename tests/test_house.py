"""The rules of the house that a machine can check; CONTRIBUTING.md tells them to a person."""

import ast
import configparser
import os
import re
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("worker", "tasks", "scripts")
MODULES = sorted(path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*.py"))
FAULTS = ROOT / "tests" / "faults"
TESTS = sorted(
    path.relative_to(ROOT / "tests")
    for path in (ROOT / "tests").glob("*/**/test_*.py")
    if FAULTS not in path.parents  # they are about all modules together
)
PAGES = sorted(path.relative_to(ROOT) for folder in (ROOT, ROOT / "docs") for path in folder.glob("*.md"))

# Names that say nothing: whatever stands in such a module has a better home.
EMPTY_WORDS = {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
# Each pattern is written so that it does not find itself.
UNDONE = re.compile(r"\b(?:TO[D]O|FIX[M]E)\b")
REGISTRY = re.compile(
    r"\b(?:py[p]i\.org|pythonhos[t]ed\.org|docke[r]\.(?:io|com)|ghc[r]\.io|gc[r]\.io|qua[y]\.io|np[m]js\.(?:org|com))\b"
)
MACHINE = re.compile(r"(?<![\w.])/(?:root|home|work|Users)/[\w.]")
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)|(?:src|srcset|href)=\"([^\"]+)\"")


def _python(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text("utf-8"), str(path))


def _files() -> list[Path]:
    """Every file of the repository, also one that is not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607  # git, wherever it is
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def _places(pattern: re.Pattern[str]) -> list[str]:
    """Where a pattern is found in the repository, as ``file:line: text``."""
    return [
        f"{path}:{number}: {found.group()}"
        for path in _files()
        for number, line in enumerate((ROOT / path).read_text("utf-8", errors="replace").splitlines(), 1)
        for found in pattern.finditer(line)
    ]


def _targets(page: Path) -> Iterator[str]:
    """The files that a page links to, relative to the page."""
    for groups in LINK.findall((ROOT / page).read_text("utf-8")):
        target = unquote("".join(groups)).partition("#")[0]
        if target and not re.match(r"[a-z]+:", target):
            yield target


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_is_named_for_what_it_does(path: Path) -> None:
    assert EMPTY_WORDS.isdisjoint(word for part in path.with_suffix("").parts for word in part.split("_"))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_says_what_it_is_for_in_its_first_line(path: Path) -> None:
    assert ast.get_docstring(_python(path)), "a sentence is missing"


@pytest.mark.parametrize("path", TESTS, ids=str)
def test_a_test_stands_where_its_module_stands(path: Path) -> None:
    # test_ledger.py and test_ledger_laws.py are both about ledger.py; the suffix says which side of it.
    words = path.stem.removeprefix("test_").split("_")
    names = ["_".join(words[:length]) for length in range(1, len(words) + 1)]
    home = ROOT / path.parent
    assert any((home / f"{name}.py").is_file() or (home / name).is_dir() for name in names), f"no such module in {home}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    assert [target for target in _targets(page) if not (ROOT / page.parent / target).exists()] == []


def test_nothing_is_left_for_later() -> None:
    assert _places(UNDONE) == []


def test_no_registry_is_named() -> None:
    assert _places(REGISTRY) == []


def test_no_path_of_a_machine_is_named() -> None:
    assert _places(MACHINE) == []


@pytest.mark.parametrize("path", sorted((ROOT / "constraints").glob("*.txt")), ids=lambda path: path.name)
def test_every_pin_has_a_hash_and_no_address(path: Path) -> None:
    text = path.read_text("utf-8")
    pins = re.split(r"\n(?=[\w.-]+==)", "\n" + text)[1:]
    assert "://" not in text
    assert pins
    assert [pin.partition(" ")[0] for pin in pins if "--hash=sha256:" not in pin] == []


def test_every_package_of_tasks_has_its_place() -> None:
    rules = configparser.ConfigParser()
    rules.read(ROOT / ".importlinter")
    packages = {path.stem for path in (ROOT / "tasks").iterdir() if path.suffix in {"", ".py"}} - {
        "__init__",
        "__pycache__",
    }
    assert set(re.split(r"[|\s]+", rules["importlinter:contract:tasks"]["layers"].strip())) == packages


def test_functions_are_short() -> None:
    lengths = [
        node.end_lineno - node.lineno + 1
        for path in MODULES
        for node in ast.walk(_python(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    ]
    assert statistics.median(lengths) <= 10
    assert sum(length < 35 for length in lengths) >= 0.9 * len(lengths)


def test_continuous_integration_can_be_started() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
