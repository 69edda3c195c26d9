"""Lines of a file, none of which is longer than memory allows, and a text with an evaluation ID a line."""

import io
from collections.abc import Iterator
from functools import partial
from typing import IO, TextIO

from scripts.ids.candidate import BLANKS, BadCandidate, Candidates

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
            while (rest := file.readline(LONGEST)) and rest[-1] != "\n":
                pass
        yield number, line


def is_too_long(line: str) -> bool:
    """Whether this is only the beginning of a line."""
    return len(line) > LONGEST and line[-1] != "\n"


def read_text(numbered: Lines) -> Candidates:
    """Yield what stands on each line that is not empty."""
    for number, line in numbered:
        if is_too_long(line):
            yield number, BadCandidate(line, TOO_LONG)
        elif text := line.strip(BLANKS + "\n"):
            yield number, text
