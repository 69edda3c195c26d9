"""CSV, with whatever stands between its cells: its records, and the column of them that holds evaluation IDs.

A quote that is never closed would take the rest of the file for one cell. So a record may not be longer than a line
may, and after one that is broken reading goes on with the line after its first: no ID that could be read is lost with
it.
"""

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from scripts.ids.candidate import BLANKS, BadCandidate, Candidates, is_id
from scripts.ids.columns import ROWS_LOOKED_AT, choose, is_known
from scripts.ids.errors import BadSource
from scripts.ids.facts import FactColumns, FactPositions
from scripts.ids.lines import LONGEST, TOO_LONG, Lines

_DELIMITERS = ",;\t|"


@dataclass(frozen=True, slots=True)
class CsvLayout:
    """How to read a CSV.

    Attributes:
        delimiter: what stands between cells.
        header: whether the first row names the columns.
        column: position of the evaluation IDs, from 0.
        facts: positions of what is known of them, None if there are no such columns.
    """

    delimiter: str
    header: bool
    column: int
    facts: FactPositions | None = None


def is_delimited(line: str) -> bool:
    """Whether a file that begins with this line is a CSV: it has cells, or is the header of a single column."""
    return any(delimiter in line for delimiter in _DELIMITERS) or is_known(line)


def find_layout(numbered: Iterable[tuple[int, str]], column: str | None, facts: FactColumns | None = None) -> CsvLayout:
    """Return how to read a CSV, from its first lines.

    Raises:
        BadSource: there is no such column, or it is not clear which one it is, or no row can be read.
    """
    beginning = list(numbered)
    tried = [(delimiter, _first_rows(beginning, delimiter)) for delimiter in _DELIMITERS]
    delimiter, rows = max(tried, key=lambda each: _likelihood(each[1]))
    if not rows:
        raise BadSource("it looks like a CSV, but none of its first rows can be read: look at its quotes")
    header = not any(map(is_id, rows[0]))
    names = rows[0] if header else []
    numbers = [str(number) for number in range(1, max(map(len, rows)) + 1)]
    names += numbers[len(names) :]
    return CsvLayout(delimiter, header, choose(names, rows, column), facts.find(names) if facts else None)


def read_delimited(numbered: Lines, layout: CsvLayout) -> Candidates:
    """Yield what stands in the column; where a row has no such cell, the empty text."""
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
    return list(islice(rows, ROWS_LOOKED_AT))


def _likelihood(rows: list[list[str]]) -> tuple[int, int, int]:
    """A delimiter is the more likely the more rows have an ID between two of it, then the more even they are."""
    with_id = sum(any(is_id(cell) and "\t" not in cell for cell in row) for row in rows)
    widths = [len(row) for row in rows]
    return with_id, widths.count(max(widths, default=0)), max(widths, default=0)


def _records(numbered: Lines, delimiter: str) -> Iterator[tuple[int, list[str] | BadCandidate]]:
    """Yield each record with the number of its first line; an empty line is none."""
    csv.field_size_limit(2 * LONGEST)  # for the whole process; what bounds a record is the feed
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


class _Broken(Exception):  # the name says it
    """A record cannot be read to its end; the text says why."""


class _Feed(Iterator[str]):
    """Hands lines to the standard reader, remembers those of the record it reads, and can go back."""

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
        """Hand out again what came after the first line of the record."""
        self._again.extendleft(reversed(self._given[1:]))

    def __next__(self) -> str:
        numbered = self._again.popleft() if self._again else next(self._numbered, None)
        if numbered is None:
            if self._given:  # the reader asks for another line only while a quote is open
                raise _Broken("a quote in it is never closed")
            raise StopIteration
        self._given.append(numbered)
        self._size += len(numbered[1])
        if self._size > LONGEST:
            raise _Broken(TOO_LONG if len(self._given) == 1 else "a quote in it is not closed within 1 MiB")
        return numbered[1]
