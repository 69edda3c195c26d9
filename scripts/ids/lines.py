"""Lines of a file, none of which is longer than memory allows."""

import io
from collections.abc import Iterator
from functools import partial
from typing import IO, TextIO

LONGEST = 1 << 20
"""Characters that a line, or a record of several lines, may have."""
TOO_LONG = "it is longer than 1 MiB"

Lines = Iterator[tuple[int, str]]
"""Each line with its end as ``\\n``, and its number, counted from 1."""


def decode_lines(file: IO[bytes], encoding: str) -> TextIO:
    """Return a file as text: its lines may end as on any system, and what is not in its encoding is replaced."""
    return io.TextIOWrapper(file, encoding=encoding, errors="replace", newline=None)


def bounded_lines(file: TextIO) -> Lines:
    """Yield the lines; of one that is too long only its beginning, which has no end of line."""
    for number, line in enumerate(iter(partial(file.readline, LONGEST + 1), ""), 1):
        if is_too_long(line):
            _skip_rest(file)
        yield number, line


def is_too_long(line: str) -> bool:
    """Whether this is only the beginning of a line."""
    return len(line) > LONGEST and line[-1] != "\n"


def _skip_rest(file: TextIO) -> None:
    while (rest := file.readline(LONGEST)) and rest[-1] != "\n":
        pass
