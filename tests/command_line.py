"""Load commands, and parse arguments that a deployment or a runbook has."""

import click

from scripts.cli import main


def load(name: str) -> click.Command:
    """Import a command."""
    _, command, _ = main.resolve_command(click.Context(main), [name])
    assert command is not None
    return command


def parse(arguments: list[str]) -> click.Context:
    """Let the command line read its arguments, as far as running them.

    Raises:
        click.UsageError: it does not know them.
    """
    context = main.make_context("docv-archive", arguments[:])
    command: click.Command = main
    rest = arguments[:]
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        context, command = found.make_context(name, rest, parent=context), found
    return context
