"""Check reports of events against the archive, and record them there."""

import datetime as dt
import enum
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from scripts.retention.event_rows import RefusedRow, ReportRow
from tasks.errors import IntegrityError
from tasks.model.evaluation import Evaluation
from tasks.retention.event import EventReport, record_event
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import read_manifest


class ReportResult(enum.StrEnum):
    """The result of a valid report."""

    RECORDED = enum.auto()
    UNCHANGED = enum.auto()
    """The archive already had the same report."""
    WITHDRAWN = enum.auto()


@dataclass(frozen=True, slots=True)
class EventRecorder:
    """Records events of evaluations that are in the archive.

    Attributes:
        environment: environment of the evaluations.
        by: the login or user that reports the events.
    """

    bucket: Bucket
    environment: str
    by: str

    async def check(self, rows: Sequence[ReportRow]) -> list[tuple[ReportRow, RefusedRow]]:
        """Return the reports of one evaluation that cannot be recorded, each with the reason.

        Raises:
            StorageError: the archive does not answer.
        """
        if why := await self._find_problem(rows[0].eval_id):
            return [(row, RefusedRow(row.place, f"{row.eval_id} {why}")) for row in rows]
        by_event = defaultdict[str, list[ReportRow]](list)
        for row in rows:
            by_event[row.event].append(row)
        return [
            (row, RefusedRow(row.place, f"{other.place} has another date for this event of {row.eval_id}"))
            for same in by_event.values()
            if len(same) > 1
            for row, other in zip(same, [*same[1:], same[0]], strict=True)
        ]

    async def record(self, rows: Sequence[ReportRow]) -> list[ReportResult | RefusedRow]:
        """Record the reports of one evaluation; return the result of each.

        Raises:
            StorageError: the archive does not answer; a report may have been recorded.
        """
        # The evaluation may have been erased since the check; an erased one gets no more events.
        if why := await self._find_problem(rows[0].eval_id):
            return [RefusedRow(row.place, f"{row.eval_id} {why}") for row in rows]
        return [await self._record_one(row) for row in rows]

    async def _record_one(self, row: ReportRow) -> ReportResult | RefusedRow:
        evaluation, report = Evaluation(row.eval_id, self.environment), EventReport(row.event, row.day, self.by)
        try:
            recorded = await record_event(self.bucket, evaluation, report, dt.datetime.now(dt.UTC))
        except IntegrityError as error:
            return RefusedRow(row.place, f"{row.eval_id}: {error}")
        if recorded is None:
            return ReportResult.UNCHANGED
        return ReportResult.RECORDED if row.day else ReportResult.WITHDRAWN

    async def _find_problem(self, eval_id: str) -> str | None:
        """Return why an evaluation can have no events, or None if it can."""
        try:
            stored = await read_manifest(self.bucket, Evaluation(eval_id, self.environment))
        except IntegrityError as error:
            return f"cannot be read: {error}"
        if stored is None:
            return "is not in the archive"
        return "was erased" if stored.manifest.erased else None
