"""Commands that are imported when they are used: their names and short help need nothing but a table."""

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyCommand(click.Command):
    """The name and short help of a command, for `--help` and completion.

    Attributes:
        path: where the command is, such as ``scripts.commands.run:run``.
    """

    def __init__(self, name: str, path: str, sentence: str) -> None:
        super().__init__(name, help=sentence)
        self.path = path

    def load(self) -> click.Command:
        """Import the command."""
        module, _, name = self.path.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


class LazyGroup(click.Group):
    """A group of lazy commands.

    Args:
        table: path and short help by name.
        attributes: those of any group.
    """

    def __init__(self, name: str, table: Mapping[str, tuple[str, str]], **attributes: Any) -> None:
        commands = [LazyCommand(command, path, sentence) for command, (path, sentence) in table.items()]
        super().__init__(name, commands=commands, **attributes)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Import the command that the arguments name."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, LazyCommand) else command, rest
