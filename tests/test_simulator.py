"""docs/simulator.md has every test ID, option and metric of the simulator, and its example runs."""

import ast
import dataclasses
import inspect
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.simulator import control, options, scenarios
from scripts.simulator.expected import expected_outcome
from scripts.simulator.options import SimulatorOptions
from scripts.simulator.scenarios import LAYOUTS, Scenario, eval_id_for
from scripts.simulator.stats import StatsSnapshot

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "simulator.md").read_text("utf-8")
BLOCKS = re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", PAGE)
DOCUMENTED = eval_id_for(Scenario.DOCUMENTED, 1)


def docstrings() -> dict[str, str]:
    """Return the docstring of each scenario by its name, as Markdown."""
    (defined,) = ast.parse(inspect.getsource(scenarios.Scenario)).body
    assert isinstance(defined, ast.ClassDef)
    found = {}
    for assigned, text in zip(defined.body, defined.body[1:], strict=False):
        if isinstance(assigned, ast.Assign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            (target,) = assigned.targets
            found[ast.unparse(target)] = str(text.value.value).replace("``", "`")
    return found


def expected_table() -> str:
    """Return the table of test IDs as the code defines it."""
    texts = docstrings()
    rows = [
        f"| `{eval_id_for(each, 1)}` | {texts[each.name]} | `{expected_outcome(each).value}` |" for each in Scenario
    ]
    return "\n".join(["| ID | RiskOS answers | outcome |", "|---|---|---|", *rows])


def test_the_page_lists_every_scenario_with_its_test_id_answer_and_outcome() -> None:
    table = re.search(r"(?ms)^\| ID \|.*?(?=\n\n)", PAGE)
    assert table
    assert table[0] == expected_table()
    assert f"{len(Scenario)} test IDs" in PAGE
    assert f"one of {len(LAYOUTS)} layouts" in PAGE


def test_the_page_documents_every_endpoint_of_the_control_api_and_its_fields() -> None:
    paths = re.findall(r'web\.(get|post)\("(/__\w+)"', inspect.getsource(control))
    assert {f"{method.upper()} {path}" for method, path in paths} == set(re.findall(r"`((?:GET|POST) /__\w+)`", PAGE))
    fields = {each.name for each in dataclasses.fields(SimulatorOptions)} - options._FIXED
    firsts = re.findall(r"(?m)^\| (`.*?) \|", PAGE.split("| option |")[1].split("\n\n")[0])
    assert {name for first in firsts for name in re.findall(r"`(\w+)`", first)} == fields
    assert {each.name for each in dataclasses.fields(StatsSnapshot)} <= set(re.findall(r"`(\w+)`", PAGE))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.timeout(300)
def test_the_fixture_on_the_page_runs_the_test_on_the_page(tmp_path: Path, redis_url: str) -> None:
    fixture, test = (code for language, code in BLOCKS if language == "python")
    ports = {"8400": str(free_port()), "8480": str(free_port())}
    for name, code in (("conftest.py", fixture), ("test_example.py", test)):
        (tmp_path / name).write_text(re.sub("8400|8480", lambda found: ports[found[0]], code), "utf-8")
    settings = {"DOCV_REDIS_URL": redis_url, "HOME": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "temporary")],
        cwd=tmp_path,
        env=settings | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert len(fixture.strip().splitlines()) <= 30


@pytest.mark.parametrize(
    ("typed", "expected"), [("docv-archive sim", "simulate"), ("docv-archive export --st", "--strict")]
)
def test_the_shell_completes_commands_and_options(typed: str, expected: str, tmp_path: Path) -> None:
    (variable,) = set(re.findall(r"_\w+_COMPLETE", (ROOT / "docs" / "commands.md").read_text("utf-8")))
    completed = subprocess.run(
        [Path(sys.executable).parent / "docv-archive"],
        cwd=tmp_path,
        env={
            variable: "bash_complete",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(typed.count(" ")),
            "HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.stdout.split() == [f"plain,{expected}"], completed.stderr
