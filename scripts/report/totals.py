"""The figures of a report, added up row by row in memory that does not grow with them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from scripts.archive_access.evaluation_rows import ONLY_HELD_HERE, EvaluationRow

_NAMED = 1_000
_BARS = 60
_SECONDS = 10


@dataclass(frozen=True, slots=True)
class HistogramBar:
    """Some of the time of a run.

    Attributes:
        since: its beginning.
        count: manifests made in it.
        share: that, as a part of the highest bar.
    """

    since: datetime
    count: int
    share: float


@dataclass(slots=True)
class ReportTotals:
    """What all rows say together.

    Attributes:
        begun: when the run began.
        outcomes: how many of each, ``missing`` included.
        causes: why those that nobody may pass over have no documents in the archive.
        reasons: why RiskOS has no documents of those that are ``no_documents``.
        documents: how many.
        bytes: of them.
        only_here: evaluations of which only the archive has documents.
        before: manifests that were there before the run began.
        named: the first rows that somebody has to look at.
        unnamed: how many more of them there are.
    """

    begun: datetime
    outcomes: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    documents: int = 0
    bytes: int = 0
    only_here: int = 0
    before: int = 0
    named: list[EvaluationRow] = field(default_factory=list)
    unnamed: int = 0
    _moments: Counter[int] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """All rows."""
        return self.outcomes.total()

    @property
    def errors(self) -> int:
        """Rows that somebody has to look at."""
        return len(self.named) + self.unnamed

    def add(self, rows: Sequence[EvaluationRow]) -> None:
        """Add some rows."""
        for row in rows:
            self.outcomes[row.outcome] += 1
            if row.reason:
                self.reasons[row.reason] += 1
            self.documents += row.documents
            self.bytes += row.bytes
            self.only_here += row.at_source in ONLY_HELD_HERE
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
        """Return when the manifests were made, in at most 60 bars of ten seconds or more; none without a time."""
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
