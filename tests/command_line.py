"""Have the command line read arguments that are written somewhere: in a deployment, in a runbook."""

import click

from scripts.cli import main


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
