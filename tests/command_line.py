"""Load commands, and parse the arguments of deployments and runbooks."""

import click

from scripts.cli import main


def load(name: str) -> click.Command:
    """Import a command."""
    _, command, _ = main.resolve_command(click.Context(main), [name])
    assert command is not None
    return command


def parse(arguments: list[str]) -> click.Context:
    """Parse arguments as the command line does, without running the command.

    Raises:
        click.UsageError: the arguments are not valid.
    """
    context = main.make_context("docv-archive", arguments[:])
    command: click.Command = main
    rest = arguments[:]
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        context, command = found.make_context(name, rest, parent=context), found
    return context
