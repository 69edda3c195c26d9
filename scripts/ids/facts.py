"""Read other columns of a list: evidence for missing documents, and the times of evaluations."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from scripts.ids.candidate import BLANKS, KnownCandidate, RowCandidate
from scripts.ids.columns import find_known, find_named
from tasks.model.evidence import EvaluationFacts, find_evidence, parse_event_at

EVIDENCE_OPTION, EVENT_AT_OPTION = "--evidence-columns", "--event-at-column"
# A cell may also be the text of a JSON array, or of one of PostgreSQL.
_BETWEEN_CODES = re.compile(r"[,;|\s\[\]{}\"']+")


class RowReader(Protocol):
    """Reads further values from a row."""

    @property
    def columns(self) -> Sequence[int | None]:
        """The positions, from 0, of the columns that it reads."""

    def read(self, eval_id: str, row: Sequence[object]) -> RowCandidate:
        """Return the ID with the values of its row, which may be too short."""

    def narrow(self) -> "RowReader":
        """Return a reader for rows that hold only these columns."""


class RowColumns(Protocol):
    """The columns that are read besides the column of the IDs."""

    @property
    def are_requested(self) -> bool:
        """Whether any column was requested."""

    def find(self, names: Sequence[str], nested: Sequence[str] = ()) -> RowReader | None:
        """Return a reader of the columns, nested ones after the others; None if there are no such columns."""


@dataclass(frozen=True, slots=True)
class FactPositions:
    """The positions, from 0, of the columns with facts; None for missing ones."""

    document_type: int | None
    reason_codes: int | None
    event_at: int | None

    @property
    def columns(self) -> tuple[int | None, int | None, int | None]:
        """The three positions."""
        return self.document_type, self.reason_codes, self.event_at

    def read(self, eval_id: str, row: Sequence[object]) -> KnownCandidate:
        """Return the ID with the facts of its row, which may be too short."""
        document_type, codes, moment = (row[at] if at is not None and at < len(row) else None for at in self.columns)
        text = _moment(moment)
        event_at = parse_event_at(text)
        facts = EvaluationFacts(find_evidence(_document_type(document_type), _reason_codes(codes)), event_at)
        return KnownCandidate(eval_id, facts, has_bad_time=event_at is None and text != "")

    def narrow(self) -> "FactPositions":
        """Return a reader for rows that hold only these columns."""
        return FactPositions(0, 1, 2)


@dataclass(frozen=True, slots=True)
class FactColumns:
    """The requested columns with facts, by name or by number from 1.

    Attributes:
        document_type: column of the document types.
        reason_codes: column of the reason codes.
        event_at: column of the times.
        by_name: detect the first two by their names instead.
    """

    document_type: str | None = None
    reason_codes: str | None = None
    event_at: str | None = None
    by_name: bool = False

    @property
    def are_requested(self) -> bool:
        """Whether any column was requested."""
        return (self.document_type or self.reason_codes or self.event_at) is not None

    def find(self, names: Sequence[str], nested: Sequence[str] = ()) -> FactPositions | None:
        """Return the positions of the columns, nested ones after the others; None if there are no such columns.

        Raises:
            BadSource: a requested column is missing, or more than one is possible.
        """
        if self.by_name:
            document_type = find_known(names, {"documenttype"}, f"{EVIDENCE_OPTION} document_type=")
            reason_codes = find_known(names, {"reasoncode", "reasoncodes"}, f"{EVIDENCE_OPTION} reason_codes=")
        else:
            document_type = _find([*names, *nested], self.document_type, EVIDENCE_OPTION)
            reason_codes = _find([*names, *nested], self.reason_codes, EVIDENCE_OPTION)
        event_at = _find([*names, *nested], self.event_at, EVENT_AT_OPTION)
        found = FactPositions(document_type, reason_codes, event_at)
        return None if found == FactPositions(None, None, None) else found


def _find(names: Sequence[str], column: str | None, option: str) -> int | None:
    return None if column is None else find_named(names, column, option)


def _document_type(value: object) -> object:
    """Return the type in a cell; in JSON and Parquet it may be an object, as in RiskOS's answers."""
    return _text(value.get("type") if isinstance(value, Mapping) else value)


def _reason_codes(value: object) -> Sequence[object]:
    if isinstance(value, list):
        return [_text(code) for code in value]
    text = _text(value)
    return _BETWEEN_CODES.split(text) if isinstance(text, str) else ()


def _moment(value: object) -> str:
    text = value.isoformat() if isinstance(value, datetime) else _text(value)
    return "" if text is None else str(text).strip(BLANKS)


def _text(value: object) -> object:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
