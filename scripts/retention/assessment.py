"""Decide about all documents of an evaluation: which are due by a day, and what the others wait for."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date

from scripts.erase.stock import VersionLock
from tasks.retention.decision import Decision, decide_held
from tasks.retention.event import EventRecord
from tasks.retention.schedule import Schedule
from tasks.storage.manifest import Manifest
from tasks.storage.manifest_records import DocumentRecord


class DocumentState(enum.StrEnum):
    """Whether a document is due by a day, or what it waits for."""

    DUE = "due"
    HOLD = "hold"
    """It is due, but under a legal hold."""
    COMPLIANCE_LOCK = "compliance_lock"
    """It is due, but S3 keeps it: nothing shortens this lock."""
    GOVERNANCE_LOCK = "governance_lock"
    """It is due, but S3 keeps it."""
    REVIEW = "review"
    """Its period has ended, and its rule requires a review."""
    GRACE = "grace"
    """Its period has ended, but the grace after the report of its event has not."""
    CLOCK = "clock"
    """The clock of its rule has not started."""
    KEPT = "kept"
    """Its period has not ended, its rule keeps it forever, or no rule matches."""


def state_of_lock(lock: VersionLock) -> DocumentState:
    """Return the state of a document that a lock holds back."""
    locked = {"HOLD": DocumentState.HOLD, "COMPLIANCE": DocumentState.COMPLIANCE_LOCK}
    return locked.get(lock.mode, DocumentState.GOVERNANCE_LOCK)


@dataclass(frozen=True, slots=True)
class AssessedDocument:
    """A document that the archive holds, with what the schedule says about it.

    Attributes:
        document: the document.
        decision: which rule decides, and from when.
        state: whether it is due, or what it waits for.
        disposable_from: day from which it may be disposed of, if it is due or S3 keeps it.
    """

    document: DocumentRecord
    decision: Decision
    state: DocumentState
    disposable_from: date | None = None

    @property
    def rule(self) -> str:
        """Name of the rule that decides; empty if none matches."""
        return self.decision.rule.name if self.decision.rule else ""


def assess(
    schedule: Schedule, manifest: Manifest, events: Mapping[str, EventRecord], until: date
) -> list[AssessedDocument]:
    """Return the state of each document of a manifest on a day, according to the schedule, without locks of S3.

    Documents with the same bytes are disposed of together: the archive never stores disposed bytes again.
    """
    found = [_assess(schedule, manifest, document, events, until) for document in manifest.documents]
    if not any(each.state is DocumentState.DUE for each in found):
        return found
    staying = {each.document.sha256 for each in found if each.state is not DocumentState.DUE}
    return [
        replace(each, state=DocumentState.KEPT, disposable_from=None)
        if each.state is DocumentState.DUE and each.document.sha256 in staying
        else each
        for each in found
    ]


def _assess(
    schedule: Schedule,
    manifest: Manifest,
    document: DocumentRecord,
    events: Mapping[str, EventRecord],
    until: date,
) -> AssessedDocument:
    decision = decide_held(schedule, manifest, document, events)
    state = _state_of(decision, until, is_held=manifest.is_held(document.kind))
    return AssessedDocument(document, decision, state, decision.due if state is DocumentState.DUE else None)


def _state_of(decision: Decision, until: date, *, is_held: bool) -> DocumentState:
    if decision.due is None or decision.ends is None:
        has_clock = decision.rule is not None and decision.rule.clock is not None
        return DocumentState.CLOCK if has_clock else DocumentState.KEPT
    if decision.is_due(until):
        return DocumentState.HOLD if is_held else DocumentState.DUE
    if decision.needs_review(until):
        return DocumentState.REVIEW
    return DocumentState.GRACE if decision.ends <= until else DocumentState.KEPT
