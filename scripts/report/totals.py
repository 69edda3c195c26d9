"""Add up the rows of a report, in memory that does not grow with their number."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from scripts.archive_access.evaluation_rows import EvaluationRow
from tasks.model.outcome import Outcome

_NAMED = 1_000
_BARS = 60
_SECONDS = 10


@dataclass(frozen=True, slots=True)
class HistogramBar:
    """A bar of the histogram: an interval of the time of a run.

    Attributes:
        since: when the interval begins.
        count: manifests written in it.
        share: the count, as a fraction of the highest one.
    """

    since: datetime
    count: int
    share: float


@dataclass(slots=True)
class ReportTotals:
    """The totals of all rows.

    Attributes:
        begun: when the run began.
        outcomes: how many rows have each outcome, ``missing`` included.
        causes: how many of the rows that need attention have each cause.
        reasons: how many rows with ``no_documents`` have each reason.
        documents: how many the archive holds.
        bytes: their size.
        disposed: how many were disposed of.
        only_here: evaluations with documents that only the archive has.
        before: manifests that are older than the run.
        named: the first rows that need attention.
        unnamed: how many more rows need attention.
    """

    begun: datetime
    outcomes: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    documents: int = 0
    bytes: int = 0
    disposed: int = 0
    only_here: int = 0
    before: int = 0
    named: list[EvaluationRow] = field(default_factory=list)
    unnamed: int = 0
    _moments: Counter[int] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """The number of rows."""
        return self.outcomes.total()

    @property
    def errors(self) -> int:
        """The number of rows that need attention."""
        return len(self.named) + self.unnamed

    def add(self, rows: Sequence[EvaluationRow]) -> None:
        """Add some rows."""
        for row in rows:
            self.outcomes[row.outcome] += 1
            if row.reason and row.outcome == Outcome.NO_DOCUMENTS:
                self.reasons[row.reason] += 1
            self.documents += row.documents
            self.bytes += row.bytes
            self.disposed += row.disposed or 0
            self.only_here += row.is_only_held_here
            at = datetime.fromisoformat(row.archived_at) if row.archived_at else None
            if at and at < self.begun:
                self.before += 1
            elif at:
                self._moments[int(at.timestamp() // _SECONDS)] += 1
            if not row.is_ok:
                self.causes[row.cause or row.outcome] += 1
                if len(self.named) < _NAMED:
                    self.named.append(row)
                else:
                    self.unnamed += 1

    def bars(self) -> list[HistogramBar]:
        """Return a histogram of the times of the manifests: at most 60 bars of ten seconds or more."""
        if not self._moments:
            return []
        first, last = min(self._moments), max(self._moments)
        each = (last - first) // _BARS + 1
        counts = [0] * ((last - first) // each + 1)
        for moment, count in self._moments.items():
            counts[(moment - first) // each] += count
        highest = max(counts)
        return [
            HistogramBar(datetime.fromtimestamp((first + number * each) * _SECONDS, UTC), count, count / highest)
            for number, count in enumerate(counts)
        ]
