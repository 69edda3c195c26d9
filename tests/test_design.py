"""The walk in docs/design.md uses the names of the code."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from tests import repository

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "design.md").read_text("utf-8")
WALK = PAGE.split("## A walk through one evaluation\n")[1].split("\n## ")[0]
NAMES = sorted(set(re.findall(r"`([^`]+)`", WALK)))


def definitions() -> dict[str, set[str]]:
    """Return the names that modules of tasks define, and for each class the names of its members."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in repository.modules(ROOT):
        if path.relative_to(ROOT).parts[0] == "tasks":
            for node in ast.parse(path.read_text("utf-8")).body:
                found[_name(node)] |= {_name(each) for each in node.body} if isinstance(node, ast.ClassDef) else set()
    return found


def _name(node: ast.stmt) -> str:
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return ""


DEFINITIONS = definitions()


@pytest.mark.parametrize("name", NAMES)
def test_every_name_in_the_walk_exists_in_the_code(name: str) -> None:
    if "/" in name:
        assert (ROOT / name).exists()
        return
    owner, _, member = name.partition(".")
    assert owner in DEFINITIONS
    assert not member or member in DEFINITIONS[owner]


def test_every_step_of_the_walk_is_one_sentence_with_a_name() -> None:
    steps = re.findall(r"(?m)^\d+\. (.*(?:\n {3,}.*)*)$", WALK)
    assert len(steps) == 30
    for step in steps:
        assert re.search(r"`\w+", step)
        assert len(re.findall(r"[.!?](?=\s|$)", step)) == 1
