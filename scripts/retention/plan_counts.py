"""Count documents that are due by a day and those that wait, by rule, kind and month, in little memory."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields

from scripts.console.formatting import format_bytes, format_count
from scripts.retention.assessment import AssessedDocument, DocumentState

_WAITS_FOR = {
    DocumentState.CLOCK: "their clock to start",
    DocumentState.GRACE: "the grace after the report of an event",
    DocumentState.REVIEW: "a review",
    DocumentState.HOLD: "the release of a legal hold",
    DocumentState.COMPLIANCE_LOCK: "a COMPLIANCE lock, which nothing shortens",
    DocumentState.GOVERNANCE_LOCK: "a GOVERNANCE lock",
}


@dataclass(frozen=True, slots=True)
class PlanRow:
    """Documents that are counted together.

    Attributes:
        state: whether they are due, or what they wait for.
        rule: name of the rule that decides; empty if none matches.
        kind: their kind.
        month: month in which they are disposed of; empty if that is not known.
        documents: number of documents.
        bytes: their total size.
    """

    state: DocumentState
    rule: str
    kind: str
    month: str
    documents: int
    bytes: int

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of the columns, in order."""
        return [each.name for each in fields(cls)]

    def as_json(self) -> dict[str, object]:
        """Return the row as a JSON object."""
        return asdict(self)


@dataclass(slots=True)
class PlanCounts:
    """The counts of a plan.

    Attributes:
        evaluations: evaluations with a manifest.
        by_state: evaluations with documents in each state.
        damaged: evaluations whose manifest or events cannot be read; all their documents are kept.
        unfinished: documents of interrupted applications, which no certificate lists yet.
        unchecked: due documents whose locks were not looked up.
        in_quarantine: bundles in quarantine, which no rule covers.
        deferred: evaluations with a request for erasure that waits for the end of a duty to keep.
    """

    evaluations: int = 0
    by_state: Counter[DocumentState] = field(default_factory=Counter)
    damaged: int = 0
    unfinished: int = 0
    unchecked: int = 0
    in_quarantine: int = 0
    deferred: int = 0
    _documents: Counter[tuple[DocumentState, str, str, str]] = field(default_factory=Counter)
    _bytes: Counter[tuple[DocumentState, str, str, str]] = field(default_factory=Counter)

    def add(self, documents: Iterable[AssessedDocument]) -> None:
        """Count the documents of an evaluation."""
        self.evaluations += 1
        states = set()
        for each in documents:
            month = f"{each.disposable_from:%Y-%m}" if each.disposable_from else ""
            place = (each.state, each.rule, each.document.kind, month)
            self._documents[place] += 1
            self._bytes[place] += each.document.size
            states.add(each.state)
        self.by_state.update(states)

    def rows(self) -> list[PlanRow]:
        """Return the counts: due documents first, by month."""
        order = {state: number for number, state in enumerate(DocumentState)}
        places = sorted(self._documents, key=lambda place: (order[place[0]], place[3], place[1], place[2]))
        return [PlanRow(*place, self._documents[place], self._bytes[place]) for place in places]

    def total(self, state: DocumentState) -> tuple[int, int]:
        """Return the number of documents in a state, and their bytes."""
        rows = [row for row in self.rows() if row.state is state]
        return sum(row.documents for row in rows), sum(row.bytes for row in rows)

    def as_json(self) -> dict[str, object]:
        """Return the counts as a JSON object."""
        states = {}
        for state in DocumentState:
            documents, size = self.total(state)
            states[state.value] = {"evaluations": self.by_state[state], "documents": documents, "bytes": size}
        return {
            "evaluations": self.evaluations,
            "states": states,
            "rows": [row.as_json() for row in self.rows()],
            "unfinished": self.unfinished,
            "unchecked_locks": self.unchecked,
            "in_quarantine": self.in_quarantine,
            "deferred_erasures": self.deferred,
            "damaged": self.damaged,
        }

    def sentences(self) -> Iterator[str]:
        """Yield a sentence for the due documents, and one for each thing that documents wait for."""
        total = format_count(self.evaluations, "evaluation")
        yield f"{self._amount(DocumentState.DUE)} are due; the archive has {total}"
        for state, awaited in _WAITS_FOR.items():
            if self.by_state[state]:
                yield f"{self._amount(state)} wait for {awaited}"
        if self.unfinished:
            yield (
                f"{format_count(self.unfinished, 'document')} of an interrupted application, which the next "
                "`retention apply` completes"
            )
        if self.in_quarantine:
            yield (
                f"{format_count(self.in_quarantine, 'bundle')} in quarantine, kept because no rule covers bundles: "
                "`quarantine list --all` names them, and `erase` removes them with their evaluation"
            )
        if self.deferred:
            yield f"{format_count(self.deferred, 'evaluation')} with a deferred request for erasure"

    def _amount(self, state: DocumentState) -> str:
        documents, size = self.total(state)
        count = format_count(documents, "document")
        return f"{count} ({format_bytes(size)}) of {format_count(self.by_state[state], 'evaluation')}"

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each reason why the counts are incomplete."""
        if self.damaged:
            yield (
                f"{format_count(self.damaged, 'evaluation')} with a damaged manifest or event; their documents are "
                "kept, and `verify` names them"
            )
        if self.unchecked:
            yield (
                f"the locks of {format_count(self.unchecked, 'document')} were not looked up, so more may be held back"
            )
