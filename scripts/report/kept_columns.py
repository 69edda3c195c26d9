"""Columns of the customer's own file for a report: joined by evaluation, and stored nowhere."""

import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass

import orjson

from scripts.archive_access.evaluation_rows import EvaluationRow
from scripts.ids.candidate import BLANKS, RowCandidate, parse_candidate
from scripts.ids.columns import find_named
from scripts.ids.source import open_source
from tasks.errors import BadEvalId
from worker.config.settings import Settings

KEEP_OPTION = "--keep"


@dataclass(frozen=True, slots=True)
class KeptCandidate(RowCandidate):
    """A text that should be an evaluation ID, with the cells of its row that are kept."""

    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeptPositions:
    """The positions, from 0, of the columns that are kept."""

    columns: tuple[int, ...]

    def read(self, eval_id: str, row: Sequence[object]) -> KeptCandidate:
        """Return the ID with its cells; the row may be too short."""
        return KeptCandidate(eval_id, tuple(_text(row[at]) if at < len(row) else "" for at in self.columns))

    def narrow(self) -> "KeptPositions":
        """Return a reader for rows that hold only these columns."""
        return KeptPositions(tuple(range(len(self.columns))))


@dataclass(slots=True)
class KeptColumns:
    """The requested columns, by name or by number from 1.

    Attributes:
        names: names of the columns; those in the file once it has been opened.
    """

    names: tuple[str, ...]
    are_requested: bool = True

    def find(self, names: Sequence[str], nested: Sequence[str] = ()) -> KeptPositions:
        """Return the positions of the columns, nested ones after the others.

        Raises:
            BadSource: one of them is missing.
        """
        every = [*names, *nested]
        found = tuple(dict.fromkeys(find_named(every, name, KEEP_OPTION) for name in self.names))
        self.names = tuple(every[at] for at in found)
        return KeptPositions(found)


class KeptCells(AbstractContextManager["KeptCells"]):
    """The cells of each evaluation, in a temporary database that SQLite removes when it is closed.

    Attributes:
        names: names of the columns in a report; a name that every report has gets the prefix ``from.``.
    """

    def __init__(self, database: sqlite3.Connection, names: Sequence[str]) -> None:
        self._database = database
        taken = EvaluationRow.names()
        self.names = tuple(f"from.{name}" if name in taken else name for name in names)

    def get(self, eval_id: str) -> dict[str, str]:
        """Return the cells of an evaluation by column; empty ones if the file does not have it."""
        found = self._database.execute("SELECT cells FROM kept WHERE id = ?", (_key(eval_id),)).fetchone()
        return dict(zip(self.names, orjson.loads(found[0]) if found else [""] * len(self.names), strict=True))

    def __exit__(self, *_: object) -> None:
        self._database.close()


def read_kept_cells(source: str, names: Sequence[str], column: str | None, settings: Settings) -> KeptCells:
    """Read columns of a list; the first row of an evaluation counts, and rows without one are skipped.

    Args:
        source: see ``open_source``.
        names: names of the columns.
        column: column of the evaluation IDs; see ``open_source``.

    Raises:
        BadSource: the list cannot be read, or has no such column.
        ServiceUnavailable: S3, or this machine's disk, fails.
    """
    columns, database = KeptColumns(tuple(names)), sqlite3.connect("")
    try:
        database.execute("CREATE TABLE kept (id BLOB PRIMARY KEY, cells BLOB) WITHOUT ROWID")
        with (
            open_source(source, column=column, settings=settings, facts=columns) as candidates,
            closing(database.cursor()) as cursor,
        ):
            for _, candidate in candidates:
                if isinstance(candidate, KeptCandidate) and (key := _find_key(candidate)):
                    cells = orjson.dumps(candidate.cells)
                    cursor.execute("INSERT OR IGNORE INTO kept VALUES (?, ?)", (key, cells))
        return KeptCells(database, columns.names)
    except BaseException:
        database.close()
        raise


def _find_key(candidate: KeptCandidate) -> bytes | None:
    try:
        return _key(parse_candidate(candidate))
    except BadEvalId:
        return None


def _key(eval_id: str) -> bytes:
    return bytes.fromhex(eval_id.replace("-", ""))


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case str():
            return value.strip(BLANKS)
        case bytes():
            return value.decode(errors="replace")
        case bool() | dict() | list():
            return orjson.dumps(value, default=str).decode()
    return str(value)
