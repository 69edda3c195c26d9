"""The generated parts of docs/configuration.md and docs/commands.md are up to date and complete."""

import re

import click
import pytest

from scripts.cli import main
from tests import reference
from tests.command_line import load
from worker.config.settings import Settings

REGENERATE = "run `make reference` and commit the result"


def command_names() -> set[str]:
    """Return the names of all commands that are not groups."""
    commands = {name: load(name) for name in main.commands}
    groups = {name: command for name, command in commands.items() if isinstance(command, click.Group)}
    return (commands.keys() - groups) | {f"{name} {each}" for name, group in groups.items() for each in group.commands}


@pytest.mark.parametrize("page", ["configuration.md", "commands.md"])
def test_the_generated_part_of_a_page_is_up_to_date(page: str) -> None:
    assert reference.read(page)[1] == reference.generate(page), REGENERATE


def test_every_setting_has_a_row() -> None:
    rows = re.findall(r"(?m)^\| `DOCV_(\w+)` \|", reference.generate("configuration.md"))
    assert rows == [name.upper() for name in Settings.model_fields]


def test_every_command_has_its_help() -> None:
    headings = set(re.findall(r"(?m)^### (.*)$", reference.generate("commands.md")))
    assert headings == command_names() | main.commands.keys()


def test_the_index_of_questions_lists_every_command_and_no_other() -> None:
    index = reference.read("commands.md")[0].split("| question | command |")[1].split("\n\n")[0]
    answers = re.findall(r"(?m)^\| .* \| `([a-z -]+?)(?: --[a-z-]+)?`[^|]*\|$", index)
    assert len(answers) == len(index.splitlines()) - 2
    assert set(answers) == command_names()
