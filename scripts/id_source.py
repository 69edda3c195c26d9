"""Where evaluation IDs come from: arguments, files, standard input; every bad one is named with its line."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import click

from tasks.errors import BadEvalId
from tasks.evaluation import parse_eval_id, shown

_MAX_LINE = 4096
_NAMED = 20


@dataclass(frozen=True, slots=True)
class Sorted:
    """What the sources held.

    Attributes:
        eval_ids: canonical IDs, each once, in the order they came.
        bad: one sentence for each that is none.
        repeated: how many came more than once.
    """

    eval_ids: tuple[str, ...]
    bad: tuple[str, ...]
    repeated: int


def read_ids(sources: Sequence[str]) -> Sorted:
    """Return the IDs that the sources name, and tell which are bad on standard error.

    A source is an ID, a file with one ID a line, or ``-`` for standard input.

    Raises:
        click.UsageError: a source is neither, or cannot be read, or no source has an ID.
    """
    ids = _sort_out(sources)
    _tell(ids)
    if not ids.eval_ids:
        raise click.UsageError("there is no evaluation ID in it")
    return ids


def _sort_out(sources: Sequence[str]) -> Sorted:
    eval_ids: dict[str, None] = {}
    bad: list[str] = []
    repeated = 0
    for where, text in _texts(sources):
        try:
            eval_id = parse_eval_id(text)
        except BadEvalId as error:
            bad.append(f"{where}: {error}")
        else:
            repeated += eval_id in eval_ids
            eval_ids[eval_id] = None
    return Sorted(tuple(eval_ids), tuple(bad), repeated)


def _tell(ids: Sorted) -> None:
    """Name the bad IDs, the first ones each, the others as a count."""
    for sentence in ids.bad[:_NAMED]:
        click.echo(sentence, err=True)
    if len(ids.bad) > _NAMED:
        click.echo(f"... and {len(ids.bad) - _NAMED} more", err=True)
    if ids.bad:
        click.echo(f"{len(ids.bad)} refused; the other {len(ids.eval_ids)} go on", err=True)
    if ids.repeated:
        click.echo(f"{ids.repeated} named more than once; each is archived once", err=True)


def _texts(sources: Sequence[str]) -> Iterator[tuple[str, str]]:
    for source in sources:
        if source == "-":
            yield from _lines("standard input", sys.stdin.buffer)
        elif _is_file(source):
            with _opened(source) as file:
                yield from _lines(source, file)
        elif len(sources) == 1 and not _looks_like_id(source):
            raise click.UsageError(f"{shown(source)!r} is neither a file nor an evaluation ID")
        else:
            yield "argument", source


@contextmanager
def _opened(source: str) -> Iterator[IO[bytes]]:
    try:
        with Path(source).open("rb") as file:
            yield file
    except OSError as error:
        raise click.UsageError(f"{shown(source)}: it cannot be read: {error.strerror}") from None


def _lines(where: str, file: IO[bytes]) -> Iterator[tuple[str, str]]:
    """Yield each line that is not empty; of a longer one than any ID only its beginning is kept."""
    number = 0
    while line := file.readline(_MAX_LINE):
        number += 1
        rest = line
        while not rest.endswith(b"\n") and (rest := file.readline(_MAX_LINE)):
            pass
        text = line.rstrip(b"\r\n").decode("utf-8-sig" if number == 1 else "utf-8", errors="replace")
        if text:
            yield f"{where}, line {number}", text


def _is_file(source: str) -> bool:
    try:
        return Path(source).is_file()
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def _looks_like_id(source: str) -> bool:
    try:
        parse_eval_id(source)
    except BadEvalId:
        return False
    return True
