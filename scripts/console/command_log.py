"""The access log of the command line: who ran a command on evaluations, written before and after it.

A line has the same fields as those of `serve` and goes to standard error. On a terminal it is a short sentence. It
holds IDs and the name of a run, but no other argument, since reasons and file names may hold personal data.
"""

import contextlib
import json
import re
import secrets
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import click

from scripts.console.operator_name import actor_name

_MOST_IDS = 100
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


@contextlib.contextmanager
def logged_command(arguments: Sequence[str]) -> Iterator[dict[str, object]]:
    """Log a command before the block runs it, and again after it succeeded or failed.

    Args:
        arguments: of the command line, beginning with the command.

    Yields:
        A dict whose items the block adds to the last line.
    """
    found: dict[str, object] = {}
    known = _known(arguments)
    _write("access.begun", known)
    try:
        yield found
    except BaseException as error:
        _write("access.failed", known | found | {"error": type(error).__name__})
        raise
    _write("access.done", known | found)


def _known(arguments: Sequence[str]) -> dict[str, object]:
    has_verb = arguments[0] in {"dead-letters", "quarantine", "retention"} and len(arguments) > 1
    ids = [match.group() for match in map(_ID.fullmatch, map(str.lower, arguments)) if match]
    known: dict[str, object] = {
        "action": f"command.{' '.join(arguments[: 1 + has_verb])}",
        "actor": actor_name(),
        "role": "command_line",
        "request_id": secrets.token_hex(8),
        "evaluations": ids[:_MOST_IDS],
        "run": _run_of(arguments),
    }
    return known | {"more_evaluations": len(ids) - _MOST_IDS} if len(ids) > _MOST_IDS else known


def _run_of(arguments: Sequence[str]) -> str | None:
    for name, value in zip(arguments, [*arguments[1:], ""], strict=True):
        given = value if name == "--run" else name.removeprefix("--run=") if name.startswith("--run=") else ""
        if _RUN.fullmatch(given):
            return given
    return None


def _write(event: str, facts: dict[str, object]) -> None:
    if sys.stderr.isatty():
        click.secho(f"{event} {facts['action']} by {facts['actor']}, request {facts['request_id']}", dim=True, err=True)
        return
    level = "warning" if event == "access.failed" else "info"
    at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    line = {**facts, "event": event, "level": level, "logger": "docv.access", "timestamp": at}
    click.echo(json.dumps(line), err=True)
