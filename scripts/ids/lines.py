"""Read lines of limited length, and texts with one evaluation ID per line."""

import io
from collections.abc import Iterator
from functools import partial
from typing import IO, TextIO

from scripts.ids.candidate import BLANKS, BadCandidate, Candidates

LONGEST = 1 << 20
"""Maximum number of characters in a line, or in a record of several lines."""
TOO_LONG = "it is longer than 1 MiB"

Lines = Iterator[tuple[int, str]]
"""Lines that end with ``\\n``, with their numbers from 1."""


def decode_lines(file: IO[bytes], encoding: str) -> TextIO:
    """Return a file as text: with the line ends of any system, and with bytes that do not fit the encoding replaced."""
    return io.TextIOWrapper(file, encoding=encoding, errors="replace", newline=None)


def bounded_lines(file: TextIO) -> Lines:
    """Yield the lines, but only the beginning of a line that is too long, without its line end."""
    for number, line in enumerate(iter(partial(file.readline, LONGEST + 1), ""), 1):
        if is_too_long(line):
            while (rest := file.readline(LONGEST)) and rest[-1] != "\n":
                pass
        yield number, line


def is_too_long(line: str) -> bool:
    """Return whether this is only the beginning of a line."""
    return len(line) > LONGEST and line[-1] != "\n"


def read_text(numbered: Lines) -> Candidates:
    """Yield the text of each line that is not empty."""
    for number, line in numbered:
        if is_too_long(line):
            yield number, BadCandidate(line, TOO_LONG)
        elif text := line.strip(BLANKS + "\n"):
            yield number, text
