"""CSV that a person can open in any spreadsheet: no cell is a formula (OWASP, "CSV Injection")."""

import csv
import io
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import IO

import click
import orjson

BYTE_ORDER_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
"""The first character of a file that Excel is to read as UTF-8."""
# Signs that begin formulas, their full-width forms included, after characters that some spreadsheets ignore.
_SIGNS = r"=+\-@\u2212\u207a\u207b\u207c\ufe62\ufe63\ufe66\ufe6b\uff0b\uff0d\uff1d\uff20"
_IGNORED = r"\s\x00-\x1f\x7f-\x9f\"\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"
_LIVE = re.compile(rf"[\t\r\n]|[{_IGNORED}]*[{_SIGNS}]")
# Excel in many languages separates cells at semicolons, and then ignores quotes within a cell.
_LIVE_INSIDE = re.compile(rf"(?<=[;\r\n])(?![\r\n])(?=[{_IGNORED}]*[{_SIGNS}])")

_quoting_writer = partial(csv.writer, quoting=csv.QUOTE_ALL)

Record = Mapping[str, object]
RecordWriter = Callable[[Sequence[Record]], None]


def make_inert(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: an apostrophe precedes each sign that could begin one."""
    text = cell.lstrip()
    blanks = cell[: len(cell) - len(text)]
    return ("'" if _LIVE.match(cell) else "") + blanks + _LIVE_INSIDE.sub("'", text)


def write_row(file: IO[str], cells: Iterable[object]) -> None:
    """Write one row; None is an empty cell."""
    texts = ["" if cell is None else make_inert(str(cell)) for cell in cells]
    # Python 3.11 does not quote a carriage return, so a row would end in the middle of a cell.
    make_writer = _quoting_writer if any("\r" in text for text in texts) else csv.writer
    make_writer(file, lineterminator="\n").writerow(texts)


def choose_writer(names: Sequence[str], *, as_json: bool, excel: bool) -> RecordWriter:
    """Return a function that prints records with these names; call it without records first, for the header.

    Raises:
        click.UsageError: both options are given.
    """
    if as_json and excel:
        raise click.UsageError("--excel is for CSV: leave out --json")
    return _print_json_lines if as_json else partial(_print_csv, names, excel=excel)


def _print_json_lines(some: Sequence[Record]) -> None:
    sys.stdout.buffer.writelines(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in some)


def _print_csv(names: Sequence[str], some: Sequence[Record], *, excel: bool) -> None:
    text = io.StringIO()
    if not some:
        text.write(BYTE_ORDER_MARK if excel else "")
        write_row(text, names)
    for record in some:
        write_row(text, (record[name] for name in names))
    sys.stdout.buffer.write(text.getvalue().encode())
