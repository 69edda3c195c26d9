"""A model of an archive under a retention schedule, written from docs/retention.md alone.

It imports nothing of the product. An evaluation has documents, each with a kind and a hash, and reports and matters.
`RetentionWorld` calls the model for everything that it does to the product, and compares the two.
"""

import calendar
import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

GRACE_DAYS = 30
_CAPTURED_ONCE = frozenset({"document_front", "document_back", "selfie", "secondary_document"})
_MONTHS = {"y": 12, "mo": 1}

Document = tuple[str, str]
"""Kind and SHA-256 of a document."""
Named = Mapping[str, Collection[tuple[str, str, str]]]
"""The documents that a plan names, by evaluation: kind, hash and rule of each."""


@dataclass(frozen=True)
class ModelRule:
    """A rule of the schedule.

    Attributes:
        name: its name.
        kinds: the kinds that it matches.
        period: how long documents are kept, such as ``5y``; None for ``forever``.
        clock: ``archived``, ``captured`` or an event; None for ``forever``.
        account: the only account that it matches, or None.
        run: the only run that it matches, or None.
        must: whether it is a duty to keep.
        review: whether a person decides at the end.
    """

    name: str
    kinds: tuple[str, ...]
    period: str | None
    clock: str | None
    account: str | None = None
    run: str | None = None
    must: bool = False
    review: bool = False

    def table(self) -> dict[str, object]:
        """Return the rule as a table of the schedule's file."""
        table = {
            "name": self.name,
            "kind": list(self.kinds),
            "keep_for": self.period or "forever",
            "clock": self.clock,
            "account": self.account,
            "run": self.run,
            "keep": "must" if self.must else None,
            "then": "review" if self.review else None,
        }
        return {key: value for key, value in table.items() if value is not None}


RULES = (
    ModelRule("disputed", ("document_front", "selfie"), None, None, run="disputed"),
    ModelRule("short-selfies", ("selfie",), "18mo", "captured", account="us"),
    ModelRule("identification", ("document_front", "document_back"), "5y", "relationship_ended", must=True),
    ModelRule("selfies", ("selfie",), "3y", "last_contact"),
    ModelRule("statements", ("secondary_document",), "2y", "archived", must=True),
    ModelRule("attachments", ("attachment",), "400d", "archived"),
    ModelRule("others", ("other",), "90d", "archived", account="eu", review=True),
)
EVENTS = ("relationship_ended", "last_contact")


def first_free_day(start: date, period: str) -> date:
    """Return the first day that lies wholly after a period that begins on a day."""
    if period.endswith("d"):
        return start + timedelta(days=int(period[:-1]) + 1)
    unit = "mo" if period.endswith("mo") else "y"
    months = int(period.removesuffix(unit)) * _MONTHS[unit] + start.month - 1
    year, month = start.year + months // 12, months % 12 + 1
    last = calendar.monthrange(year, month)[1]
    # The 30th of February is its last day and one more: March 1.
    ends = date(year, month, min(start.day, last)) + timedelta(days=start.day > last)
    return ends + timedelta(days=1)


@dataclass(frozen=True)
class ModelDecision:
    """The decision of the schedule about a document.

    Attributes:
        rule: the rule that decides, or None.
        ends: first day after its period; None if there is none.
        due: first day on which it is disposed of; None if that is not known, or never.
    """

    rule: ModelRule | None = None
    ends: date | None = None
    due: date | None = None


@dataclass(frozen=True)
class ModelDisposal:
    """A document that was disposed of, and that a certificate has to list.

    Attributes:
        kind: its kind.
        sha256: its hash.
        size: its bytes.
        rule: name of the rule.
        due: first day on which it was due.
        day: day on which it was disposed of.
    """

    kind: str
    sha256: str
    size: int
    rule: str
    due: date
    day: date


@dataclass
class EvaluationModel:
    """The archive's contents for one evaluation.

    Attributes:
        eval_id: its ID.
        account: its account.
        environment: the environment of the account.
        run: the run that archives it.
        captured: day of the evaluation; None if it is not known.
        held: size and first day in the archive of each document.
        gone: hashes that never come back.
        disposals: the documents that were disposed of.
        refused: the documents that were due when they arrived.
        reports: the valid report of each event, as its day and the day on which it was received.
        matters: the legal holds.
        is_known: whether it has a manifest.
        is_archived: whether its documents were requested from RiskOS.
        is_erased: whether it is erased.
        is_waiting: whether a request for its erasure waits.
        locks: the first day on which S3 allows deleting the objects with a hash, if it locks them.
        erasable_from: the first day on which S3 allows deleting all objects.
        history: everything that happened to it.
    """

    eval_id: str
    account: str
    environment: str
    run: str
    captured: date | None
    held: dict[Document, tuple[int, date]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    disposals: list[ModelDisposal] = field(default_factory=list)
    refused: set[Document] = field(default_factory=set)
    reports: dict[str, tuple[date | None, date]] = field(default_factory=dict)
    matters: set[str] = field(default_factory=set)
    is_known: bool = False
    is_archived: bool = False
    is_erased: bool = False
    is_waiting: bool = False
    locks: dict[str, date] = field(default_factory=dict)
    erasable_from: date = date.min
    history: list[str] = field(default_factory=list)
    _first: dict[str, date] = field(default_factory=dict)

    def decide(self, kind: str, since: date) -> ModelDecision:
        """Return the decision about a document that was archived on a day."""
        rule = next((each for each in RULES if self._matches(each, kind)), None)
        if rule is None or rule.period is None:
            return ModelDecision(rule)
        received = None
        match rule.clock:
            case "archived":
                started = min(since, self._first.get(kind, since))
            case "captured":
                started = self.captured
            case event:
                started, received = self.reports.get(str(event), (None, None))
        if started is None:
            return ModelDecision(rule)
        due = ends = first_free_day(started, rule.period)
        if received:
            due = max(ends, received + timedelta(days=GRACE_DAYS + 1))
        return ModelDecision(rule, ends, None if rule.review else due)

    def _matches(self, rule: ModelRule, kind: str) -> bool:
        return kind in rule.kinds and rule.account in {None, self.account} and rule.run in {None, self.run}

    def decisions(self) -> dict[Document, ModelDecision]:
        """Return the decision about each held document."""
        return {each: self.decide(each[0], since) for each, (_, since) in self.held.items()}

    def due_on(self, today: date) -> dict[Document, ModelDecision]:
        """Return the held documents to dispose of on a day; all documents with the same bytes, or none of them."""
        decided = self.decisions()
        going = {sha256 for sha256, day in self._last_days(decided).items() if day <= today}
        return {} if self.matters else {document: each for document, each in decided.items() if document[1] in going}

    def next_day(self) -> date | None:
        """Return the next day on which an application has something to do; None if there is none."""
        if self.matters:
            return None
        decided = self.decisions()
        days = [day for day in self._last_days(decided).values() if day != date.max]
        if self.is_waiting:
            ends = [each.ends or date.max for each in decided.values() if each.rule and each.rule.must]
            days.append(max([*ends, self.erasable_from]))
        return min(days, default=None)

    def _last_days(self, decided: Mapping[Document, ModelDecision]) -> dict[str, date]:
        """Return for each hash the first day on which every rule and S3 allow its disposal."""
        last: dict[str, date] = {}
        for (_, sha256), each in decided.items():
            days = each.due or date.max, last.get(sha256, date.min), self.locks.get(sha256, date.min)
            last[sha256] = max(days)
        return last

    def deliver(self, documents: Mapping[Document, int], today: date, stored: Collection[Document] = ()) -> None:
        """Record that RiskOS delivered documents.

        Args:
            documents: their sizes.
            stored: documents that an interrupted attempt has already stored; they are kept until a command disposes
                of them.
        """
        self.is_known, self.is_archived, self.is_erased = True, True, False
        new = {each: size for each, size in documents.items() if each[1] not in self.gone}
        staying = {sha256 for _, sha256 in self.held}
        for kind, sha256 in new:
            due = self.decide(kind, today).due
            if self.matters or due is None or due > today or (kind, sha256) in stored:
                staying.add(sha256)
        for (kind, sha256), size in new.items():
            if sha256 not in staying:
                self.gone.add(sha256)
                self.refused.add((kind, sha256))
            elif (kind, sha256) not in self.held:
                self.held[kind, sha256] = size, today
                if kind in _CAPTURED_ONCE:
                    self._first.setdefault(kind, today)

    def report(self, event: str, day: date | None, today: date) -> None:
        """Record a report of an event; a repeated report changes nothing."""
        if self.is_known and not self.is_erased and self.reports.get(event, (None, today))[0] != day:
            self.reports[event] = day, today

    def select_disposals(
        self, today: date, named: Collection[tuple[str, str, str]] | None = None
    ) -> dict[Document, ModelDecision]:
        """Return the documents that an application disposes of on a day; with a plan, only those that it names."""
        due = self.due_on(today)
        if named is None:
            return due
        rules = {each: decision.rule and decision.rule.name for each, decision in due.items()}
        staying = {each[1] for each in due if (*each, rules[each]) not in named}
        return {each: decision for each, decision in due.items() if each[1] not in staying}

    def dispose(self, going: Mapping[Document, ModelDecision], today: date) -> None:
        """Record that documents were disposed of."""
        for (kind, sha256), decision in going.items():
            size, _ = self.held.pop((kind, sha256))
            assert decision.rule
            assert decision.due
            self.gone.add(sha256)
            self.disposals.append(ModelDisposal(kind, sha256, size, decision.rule.name, decision.due, today))

    def has_duty(self, today: date) -> bool:
        """Return whether a duty to keep prevents an erasure."""
        return any(
            each.rule and each.rule.must and (each.ends is None or today < each.ends)
            for each in self.decisions().values()
        )

    def erase(self) -> None:
        """Record an erasure, after which only the list of disposals is left."""
        self.held.clear()
        self.reports.clear()
        self._first.clear()
        self.locks.clear()
        self.is_known, self.is_erased, self.is_waiting = True, True, False

    @contextlib.contextmanager
    def with_history(self) -> Iterator[None]:
        """Add the history of the evaluation to a failure."""
        try:
            yield
        except Exception as error:
            if not getattr(error, "__notes__", None):
                error.add_note("\n".join([self.eval_id, *self.history]))
            raise
