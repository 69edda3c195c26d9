"""Read the evaluation IDs of a CSV with any delimiter.

A quote that is never closed would make the rest of the file one cell. So a record is limited to the length of a line,
and after a broken one reading continues with its second line, so that no readable ID is lost.
"""

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from scripts.ids.candidate import BLANKS, BadCandidate, Candidates, is_id
from scripts.ids.columns import DETECTION_ROWS, choose, is_known
from scripts.ids.errors import BadSource
from scripts.ids.facts import RowColumns, RowReader
from scripts.ids.lines import LONGEST, TOO_LONG, Lines

_DELIMITERS = ",;\t|"
# A first line that names the delimiter for Excel.
_SEPARATOR_LINE = re.compile(r'("?)sep=([^" \n])\1\n?', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CsvLayout:
    """How to read a CSV.

    Attributes:
        delimiter: the character between cells.
        header: whether the first row names the columns.
        column: position of the evaluation IDs, from 0.
        facts: reads the other columns, or None if the file has no other columns.
    """

    delimiter: str
    header: bool
    column: int
    facts: RowReader | None = None


def is_delimited(line: str) -> bool:
    """Return whether a file with this first line is a CSV: it has cells, or is the header of a single column."""
    return any(delimiter in line for delimiter in _DELIMITERS) or is_known(line)


def find_separator(line: str) -> str | None:
    """Return the delimiter of a first line such as ``sep=;``; None for any other line."""
    found = _SEPARATOR_LINE.fullmatch(line)
    return found[2] if found else None


def find_layout(
    numbered: Iterable[tuple[int, str]],
    column: str | None,
    facts: RowColumns | None = None,
    delimiters: str = _DELIMITERS,
) -> CsvLayout:
    """Return how to read a CSV, from its first lines.

    Raises:
        BadSource: there is no such column, or more than one is possible, or no row can be read.
    """
    beginning = list(numbered)
    tried = [(delimiter, _first_rows(beginning, delimiter)) for delimiter in delimiters]
    delimiter, rows = max(tried, key=lambda each: _likelihood(each[1]))
    if not rows:
        raise BadSource("it looks like a CSV, but none of its first rows can be read: check its quotes")
    header = not any(map(is_id, rows[0]))
    names = rows[0] if header else []
    numbers = [str(number) for number in range(1, max(map(len, rows)) + 1)]
    names += numbers[len(names) :]
    return CsvLayout(delimiter, header, choose(names, rows, column), facts.find(names) if facts else None)


def read_delimited(numbered: Lines, layout: CsvLayout) -> Candidates:
    """Yield the cells of the column; an empty text for a row without such a cell."""
    header, column = layout.header, layout.column
    for number, row in _records(numbered, layout.delimiter):
        if isinstance(row, BadCandidate):
            yield number, row
        elif header:
            header = False
        else:
            text = row[column].strip(BLANKS) if column < len(row) else ""
            yield number, layout.facts.read(text, row) if layout.facts else text


def _first_rows(beginning: list[tuple[int, str]], delimiter: str) -> list[list[str]]:
    rows = (row for _, row in _records(iter(beginning), delimiter) if not isinstance(row, BadCandidate))
    return list(islice(rows, DETECTION_ROWS))


def _likelihood(rows: list[list[str]]) -> tuple[int, int, int]:
    """Rank a delimiter by the rows with an ID as a cell, then by the rows of the largest width, then by that width."""
    with_id = sum(any(is_id(cell) and "\t" not in cell for cell in row) for row in rows)
    widths = [len(row) for row in rows]
    return with_id, widths.count(max(widths, default=0)), max(widths, default=0)


def _records(numbered: Lines, delimiter: str) -> Iterator[tuple[int, list[str] | BadCandidate]]:
    """Yield each record with the number of its first line, but skip empty lines."""
    csv.field_size_limit(2 * LONGEST)  # for the whole process; the feed limits a record
    feed = _Feed(numbered)
    reader = csv.reader(feed, delimiter=delimiter, strict=True, skipinitialspace=True)
    while True:
        feed.begin_record()
        try:
            row = next(reader)
        except StopIteration:
            return
        except (_Broken, csv.Error) as error:
            number, line = feed.first
            yield number, BadCandidate(line, str(error) if isinstance(error, _Broken) else "its quotes do not match")
            feed.go_back()
        else:
            number, line = feed.first
            if len(row) > 1 or not line.isspace():
                yield number, row


class _Broken(Exception):  # named for what happened
    """A record cannot be read to its end; the message says why."""


class _Feed(Iterator[str]):
    """Passes lines to the standard reader, keeps those of the current record, and can go back."""

    def __init__(self, numbered: Lines) -> None:
        self._numbered = numbered
        self._again: deque[tuple[int, str]] = deque()
        self._given: list[tuple[int, str]] = []
        self._size = 0

    def begin_record(self) -> None:
        self._given.clear()
        self._size = 0

    @property
    def first(self) -> tuple[int, str]:
        """The first line of the record, after its number."""
        return self._given[0]

    def go_back(self) -> None:
        """Pass the lines after the first one of the record again."""
        self._again.extendleft(reversed(self._given[1:]))

    def __next__(self) -> str:
        numbered = self._again.popleft() if self._again else next(self._numbered, None)
        if numbered is None:
            if self._given:  # the reader continues a record only while a quote is open
                raise _Broken("a quote in it is never closed")
            raise StopIteration
        self._given.append(numbered)
        self._size += len(numbered[1])
        if self._size > LONGEST:
            raise _Broken(TOO_LONG if len(self._given) == 1 else "a quote in it is not closed within 1 MiB")
        return numbered[1]
