"""How a shell calls this program: by its name if that is on PATH, else by its path."""

import shlex
import shutil
from pathlib import Path

_PROGRAM = "docv-archive"


def get_command_name(path: str) -> str:
    """Return how a shell in this folder calls the command.

    Args:
        path: path of the running program; only one of this name is the installed command.
    """
    program, here = Path(path).absolute(), Path.cwd()
    if _is_found(program):
        return _PROGRAM
    return str(program.relative_to(here) if program.is_relative_to(here) else program)


def path_command(path: str) -> str:
    """Return a shell command, with its line end, that puts this program on PATH; empty if it is there already."""
    program = Path(path).absolute()
    return "" if _is_found(program) else f"export PATH={shlex.quote(str(program.parent))}:$PATH\n"


def _is_found(program: Path) -> bool:
    return program.name != _PROGRAM or shutil.which(_PROGRAM) == str(program)
