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
def test_the_table_has_the_name_and_the_first_sentence_of_each_command(command: LazyCommand) -> None:
    loaded = command.load()
    assert loaded.help
    assert (command.name, command.help) == (loaded.name, loaded.help.split("\n\n")[0])


@pytest.mark.parametrize("arguments", [["statsu"], ["dead-letters", "redirve"]])
def test_an_unknown_command_is_a_usage_error_that_suggests_a_known_one(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert f"No such command '{arguments[-1]}'" in result.output
    assert {"statsu": "status", "redirve": "redrive"}[arguments[-1]] in result.output
