"""Write the generated parts of docs/configuration.md and docs/commands.md: ``python -m tests.reference``."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

import click
from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from scripts.cli import main
from scripts.console.lazy_group import LazyCommand
from worker.config import settings
from worker.config.settings import Settings

DOCS = Path(__file__).parents[1] / "docs"
MARK = "<!-- Generated from the code by `make reference`, down to the end. Edit the code instead. -->\n"
_WIDTH = 100
_BOUNDS = {Gt: ("gt", "more than"), Ge: ("ge", "at least"), Lt: ("lt", "less than"), Le: ("le", "at most")}


def generate(page: str) -> str:
    """Return the text of a page after its mark."""
    return {"configuration.md": _settings, "commands.md": _commands}[page]()


def read(page: str) -> tuple[str, str]:
    """Return the texts of a page before and after its mark."""
    before, _, after = (DOCS / page).read_text("utf-8").partition(MARK)
    return before, after


def _settings() -> str:
    """Return a table for each section of the class ``Settings``, with the docstring of each field."""
    source = inspect.getsource(settings)
    sections = {
        number: line.partition("# -- ")[2] for number, line in enumerate(source.splitlines(), 1) if "    # -- " in line
    }
    lines = []
    for number, name, docstring in _fields(source):
        for start in sorted(each for each in sections if each < number):
            lines += [
                "",
                f"## {sections.pop(start)}",
                "",
                "| setting | default | values | meaning |",
                "|---|---|---|---|",
            ]
        field = Settings.model_fields[name]
        meaning = _link(" ".join(docstring.split())).replace("``", "`").replace("|", r"\|")
        lines.append(f"| `DOCV_{name.upper()}` | {_default(name, field)} | {_values(field)} | {meaning} |")
    return "\n".join([*lines, ""])


def _fields(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, name and docstring of each field."""
    (definition,) = (
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == Settings.__name__
    )
    for field, following in zip(definition.body, definition.body[1:], strict=False):
        match field, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(docstring))):
                yield field.lineno, name, docstring


def _link(text: str) -> str:
    return re.sub(r"docs/([\w-]+\.md)(#[\w-]+)?", r"[\1](\1\2)", text)


def _default(name: str, field: FieldInfo) -> str:
    if name in {"archive_url", "no_documents_texts", "gateway_texts"}:  # a path of this machine; long texts
        return "built in"
    value = field.get_default(call_default_factory=True)
    if value in (None, (), {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _values(field: FieldInfo) -> str:
    """Return the values that a setting may have, or an empty text if its type does not restrict them."""
    if field.annotation is bool:
        return "`true`, `false`"
    for kind in (field.annotation, *get_args(field.annotation)):
        if get_origin(kind) is Literal:
            return ", ".join(f"`{value}`" for value in get_args(kind))
    bounds = {type(each): getattr(each, _BOUNDS[type(each)][0]) for each in field.metadata if type(each) in _BOUNDS}
    if bounds.keys() == {Ge, Le}:
        return f"{bounds[Ge]} to {bounds[Le]}"
    return ", ".join(f"{_BOUNDS[kind][1]} {bound}" for kind, bound in bounds.items())


def _commands() -> str:
    """Return the help of each command, subcommands included."""
    context = click.Context(main, info_name="docv-archive", terminal_width=_WIDTH, **main.context_settings)
    return "\n## Help\n\n" + "\n".join(_helps(context))


def _helps(context: click.Context) -> Iterator[str]:
    if context.parent is not None:
        yield f"### {context.command_path.removeprefix('docv-archive ')}\n"
    # click caches the names of this option, and a test that runs the command alone gives it fewer.
    context.command._help_option = None
    yield f"```text\n{context.command.get_help(context)}\n```\n"
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            assert command is not None
            found = command.load() if isinstance(command, LazyCommand) else command
            yield from _helps(click.Context(found, parent=context, info_name=name, **found.context_settings))


if __name__ == "__main__":
    for each in ("configuration.md", "commands.md"):
        (DOCS / each).write_text(read(each)[0] + MARK + generate(each), "utf-8")
