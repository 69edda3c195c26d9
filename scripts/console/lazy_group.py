"""Commands that are imported when they are used; `--help` needs only a table of names and sentences."""

import importlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import click

_WIDEST = 80


class LazyCommand(click.Command):
    """The name and short help of a command, for `--help` and completion.

    Attributes:
        path: module and name of the command, such as ``scripts.commands.run:run``.
    """

    def __init__(self, name: str, path: str, sentence: str) -> None:
        super().__init__(name, help=sentence, short_help=sentence)
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
        sections: names of commands under the titles that `--help` has for them; the others come last.
        attributes: those of any group.
    """

    def __init__(
        self,
        name: str,
        table: Mapping[str, tuple[str, str]],
        sections: Mapping[str, Sequence[str]] = MappingProxyType({}),
        **attributes: Any,
    ) -> None:
        commands = [LazyCommand(command, path, sentence) for command, (path, sentence) in table.items()]
        super().__init__(name, commands=commands, **attributes)
        self._sections = sections

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands of each section, none of which is cut."""
        named = {name for names in self._sections.values() for name in names}
        others = [name for name in self.list_commands(ctx) if name not in named]
        width = max(map(len, self.commands))
        for title, names in {**self._sections, "Other commands" if named else "Commands": others}.items():
            known = [self.commands[name] for name in names if name in self.commands]
            if known:
                with formatter.section(title):
                    formatter.write_dl([(f"{each.name:{width}}", each.get_short_help_str(_WIDEST)) for each in known])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Import the command that the arguments name."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, LazyCommand) else command, rest
