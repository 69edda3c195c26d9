"""Keep reports of events by evaluation while they are checked and recorded, in memory that does not grow."""

import datetime as dt
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import groupby
from operator import itemgetter

from scripts.retention.event_rows import ReportRow

# SQLite removes this database when it is closed, so it need not survive a crash. The cache takes 64 MiB.
_PREPARE = (
    "PRAGMA journal_mode = OFF",
    "PRAGMA cache_size = -65536",
    "CREATE TABLE reports (id TEXT, event TEXT, day TEXT, place TEXT, PRIMARY KEY (id, event, day)) WITHOUT ROWID",
    "CREATE TABLE refused (id TEXT, event TEXT, PRIMARY KEY (id, event)) WITHOUT ROWID",
    # Without an open transaction, each statement would be one of its own.
    "BEGIN",
)
_SELECT = """
SELECT id, event, day, place FROM reports
WHERE NOT EXISTS (SELECT 1 FROM refused WHERE refused.id = reports.id AND refused.event = reports.event)
ORDER BY id, event, day
"""


class ReportStore(AbstractContextManager["ReportStore"]):
    """Reports of events, each once.

    Attributes:
        repeated: the number of reports that repeat another one.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self.repeated = 0
        for statement in _PREPARE:
            self._database.execute(statement)

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add(self, row: ReportRow) -> None:
        """Add a report, unless it is there already."""
        day = row.day.isoformat() if row.day else ""
        values = row.eval_id, row.event, day, row.place
        self.repeated += not self._database.execute(
            "INSERT OR IGNORE INTO reports VALUES (?, ?, ?, ?)", values
        ).rowcount

    def count(self) -> int:
        """Return the number of evaluations."""
        return int(self._database.execute("SELECT COUNT(DISTINCT id) FROM reports").fetchone()[0])

    def refuse(self, row: ReportRow) -> None:
        """Leave out the reports of an event of an evaluation from now on."""
        self._database.execute("INSERT OR IGNORE INTO refused VALUES (?, ?)", (row.eval_id, row.event))

    def evaluations(self) -> Iterator[list[ReportRow]]:
        """Yield the reports of each evaluation; reports that are added or refused meanwhile may be among them."""
        for _, rows in groupby(self._database.execute(_SELECT), itemgetter(0)):
            yield [
                ReportRow(place, eval_id, event, dt.date.fromisoformat(day) if day else None)
                for eval_id, event, day, place in rows
            ]
