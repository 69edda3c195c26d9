import re
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from scripts.cli import main
from scripts.console.lazy_group import LazyCommand


def lazy_commands(group: click.Group) -> Iterator[LazyCommand]:
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from lazy_commands(command)
        else:
            assert isinstance(command, LazyCommand)
            yield command


@pytest.mark.parametrize("command", list(lazy_commands(main)), ids=lambda command: command.path)
def test_the_table_has_the_name_and_a_short_sentence_for_each_command(command: LazyCommand) -> None:
    loaded = command.load()
    assert loaded.help
    assert command.name == loaded.name
    assert command.help
    assert len(command.help) <= 55
    assert command.help.endswith(".")


@pytest.mark.parametrize("group", [main, *(each for each in main.commands.values() if isinstance(each, click.Group))])
def test_help_shows_every_command_once_and_cuts_no_sentence_at_80_columns(group: click.Group) -> None:
    shown = CliRunner().invoke(group, ["--help"], terminal_width=80).output
    for name, command in group.commands.items():
        assert len(re.findall(rf"^  {name} +\S.*[^.]\.$", shown, re.MULTILINE)) == 1
        assert command.get_short_help_str(80) in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_help_groups_commands_under_titles() -> None:
    titles = re.findall(r"^(\w.*):$", CliRunner().invoke(main, ["--help"]).output, re.MULTILINE)
    assert titles[1:4] == ["Archive", "Inspect", "Control"]


@pytest.mark.parametrize("arguments", [["statsu"], ["dead-letters", "redirve"]])
def test_an_unknown_command_is_a_usage_error_that_suggests_a_known_one(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert f"No such command '{arguments[-1]}'" in result.output
    assert {"statsu": "status", "redirve": "redrive"}[arguments[-1]] in result.output
