"""Read reports of events: from the columns of a list, or for many evaluations at once."""

import datetime as dt
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from scripts.ids.arguments import iterate_candidates
from scripts.ids.candidate import BLANKS, Candidate, RowCandidate, parse_candidate
from scripts.ids.columns import find_known
from scripts.ids.errors import BadSource, named
from scripts.ids.source import open_source
from tasks.errors import BadEvalId
from tasks.retention.event import parse_event, parse_event_day
from worker.config.settings import Settings

_NO_COLUMNS = "it has no column {name}: expected a header with the names of three columns, such as eval_id,event,date"


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A valid report.

    Attributes:
        place: phrase that says where it comes from, such as ``events.csv, line 7``.
        eval_id: the evaluation.
        event: name of the event.
        day: day of the event; None withdraws an earlier report.
    """

    place: str
    eval_id: str
    event: str
    day: dt.date | None


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A report that is not recorded.

    Attributes:
        place: as in ``ReportRow``.
        why: one sentence.
    """

    place: str
    why: str


@dataclass(frozen=True, slots=True)
class ReportCandidate(RowCandidate):
    """A text that should be an evaluation ID, with the event of its row.

    Attributes:
        event: text that should be the name of an event.
        day: text that should be a day; None if the row ends before it.
    """

    event: str
    day: str | None


@dataclass(frozen=True, slots=True)
class EventPositions:
    """The positions, from 0, of the columns of the event and its date."""

    event: int
    day: int

    @property
    def columns(self) -> tuple[int, int]:
        """Both positions."""
        return self.event, self.day

    def read(self, eval_id: str, row: Sequence[object]) -> ReportCandidate:
        """Return the ID with the event of its row, which may be too short."""
        event, day = (_text(row[at]) if at < len(row) else None for at in self.columns)
        return ReportCandidate(eval_id, event or "", day)

    def narrow(self) -> "EventPositions":
        """Return the positions in rows that hold only these columns."""
        return EventPositions(0, 1)


class EventColumns:
    """The columns ``event`` and ``date``, which a list of events must have."""

    are_requested = True

    def find(self, names: Sequence[str], nested: Sequence[str] = ()) -> EventPositions:  # noqa: ARG002  # as RowColumns has it
        """Return the positions of the columns.

        Raises:
            BadSource: one of them is missing, or more than one has its name.
        """
        found = []
        for name in ("event", "date"):
            at = find_known(names, {name}, "one column of this name")
            if at is None:
                raise BadSource(_NO_COLUMNS.format(name=name))
            found.append(at)
        return EventPositions(*found)


def read_table(
    source: str, column: str | None, settings: Settings, events: Collection[str], today: dt.date
) -> Iterator[ReportRow | RefusedRow]:
    """Yield the rows of a list of events.

    Args:
        source: see ``open_source``.
        column: column of the evaluation IDs; see ``open_source``.
        events: events that the schedule knows.
        today: the day, UTC.

    Raises:
        BadSource: the list cannot be read, or has no such columns.
        ServiceUnavailable: S3, or this machine's disk, fails.
        SettingsError: there are no credentials for S3.
    """
    shown = named(source)
    with open_source(source, column=column, settings=settings, facts=EventColumns()) as candidates:
        for number, candidate in candidates:
            place = f"{shown}, line {number}"
            try:
                yield ReportRow(place, parse_candidate(candidate), *_parse_report(candidate, events, today))
            except (BadEvalId, ValueError) as error:
                yield RefusedRow(place, str(error))


def _parse_report(candidate: Candidate, events: Collection[str], today: dt.date) -> tuple[str, dt.date | None]:
    if not isinstance(candidate, ReportCandidate):
        raise ValueError("it names no event: expected an ID, an event and a date")  # noqa: TRY004  # caught as others
    event = parse_event(candidate.event, events)
    if candidate.day is None:
        raise ValueError("it has no date; an empty one would withdraw the event")
    return event, parse_event_day(candidate.day, today) if candidate.day else None


def read_evaluations(
    sources: Sequence[str], settings: Settings, event: str, day: dt.date | None
) -> Iterator[ReportRow | RefusedRow]:
    """Yield a report of the same event for each evaluation; ``read_ids`` documents sources and errors."""
    for place, candidate in iterate_candidates(sources, settings):
        try:
            yield ReportRow(place, parse_candidate(candidate), event, day)
        except BadEvalId as error:
            yield RefusedRow(place, str(error))


def _text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return "" if value is None else str(value).strip(BLANKS)
