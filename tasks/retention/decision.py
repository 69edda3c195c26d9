"""Decide about one document: which rule applies, when its clock started and on which day it is due."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from tasks.bundle.documents import Kind, source_of
from tasks.retention.event import EventRecord
from tasks.retention.period import Period
from tasks.retention.schedule import ARCHIVED, CAPTURED, Action, DocumentFacts, Keep, Rule, Schedule
from tasks.storage.manifest import Manifest
from tasks.storage.manifest_records import DocumentRecord

_CAPTURED_ONCE = frozenset({Kind.DOCUMENT_FRONT, Kind.DOCUMENT_BACK, Kind.SELFIE, Kind.SECONDARY_DOCUMENT})
"""Kinds that an evaluation captures once: RiskOS may send them again with other bytes, which start no new clock."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """When the clocks of one document started.

    Attributes:
        archived: day on which it was archived; for a captured image, the first one of its kind.
        captured: day on which RiskOS captured it, according to an event or a producer; None if unknown.
        events: the record that counts for each event of its evaluation.
    """

    archived: date
    captured: date | None = None
    events: Mapping[str, EventRecord] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """The schedule's decision about one document.

    Attributes:
        rule: the rule that decides; None if no rule matches, so that the document is kept.
        started: day on which its clock started; None if it has not, so that the document is kept.
        ends: first day after its period; None if there is none.
        due: first day on which it may be disposed of: ``ends``, or later because of the grace period after a report.
    """

    rule: Rule | None = None
    started: date | None = None
    ends: date | None = None
    due: date | None = None

    def is_due(self, today: date) -> bool:
        """Return whether the document is to be disposed of."""
        return self._has_ended(today) and self.rule is not None and self.rule.then is Action.DISPOSE

    def needs_review(self, today: date) -> bool:
        """Return whether a person has to decide about the document."""
        return self._has_ended(today) and self.rule is not None and self.rule.then is Action.REVIEW

    def prevents_erasure(self, today: date) -> bool:
        """Return whether a duty to keep the document prevents its erasure."""
        if self.rule is None or self.rule.keep is Keep.MAY:
            return False
        return self.ends is None or today < self.ends

    def locked_until(self, usual: date) -> date:
        """Return the day on which Object Lock ends for the document; it may be past.

        Args:
            usual: the day on which a lock of the days in the settings ends.
        """
        if self.rule is None or self.ends is None:
            return usual
        return self.ends if self.rule.keep is Keep.MUST else min(usual, self.ends)

    def _has_ended(self, today: date) -> bool:
        return self.due is not None and self.due <= today


def decide(schedule: Schedule, facts: DocumentFacts, clocks: Clocks) -> Decision:
    """Return the schedule's decision about a document."""
    rule = schedule.find_rule(facts)
    if rule is None or rule.clock is None or not isinstance(rule.keep_for, Period):
        return Decision(rule)
    reported = None
    if rule.clock in {ARCHIVED, CAPTURED}:
        started = clocks.archived if rule.clock == ARCHIVED else clocks.captured
    else:
        reported = clocks.events.get(rule.clock)
        started = reported.date if reported else None
    if started is None:
        return Decision(rule)
    due = ends = rule.keep_for.first_day_after(started)
    if reported:
        due = max(ends, schedule.grace.first_day_after(reported.received))
    return Decision(rule, started, ends, due)


def decide_held(
    schedule: Schedule, manifest: Manifest, document: DocumentRecord, events: Mapping[str, EventRecord]
) -> Decision:
    """Return the schedule's decision about a document that the archive holds."""
    archived_at = document.archived_at or manifest.archived_at
    return decide(
        schedule,
        make_facts(manifest, document.kind, document.name),
        make_clocks(manifest, document.kind, archived_at, events),
    )


def make_facts(manifest: Manifest, kind: str, name: str) -> DocumentFacts:
    """Return the facts that rules may match, for a document with this kind and name in its bundle."""
    restricted = {"restricted": manifest.restricted.reason.value} if manifest.restricted else {}
    return DocumentFacts(
        kind=kind,
        environment=manifest.environment,
        account=manifest.account,
        run=manifest.trigger.run,
        evidence=manifest.evidence,
        tags={
            **manifest.tags,
            **restricted,
            "environment": manifest.environment,
            "document-kind": kind,
            "source": source_of(name).value,
        },
    )


def make_clocks(manifest: Manifest, kind: str, archived_at: str, events: Mapping[str, EventRecord]) -> Clocks:
    """Return when the clocks of a document with this kind started.

    Args:
        archived_at: when it was archived, or is about to be.
        events: the record that counts for each event of the evaluation.
    """
    moments = [archived_at]
    if kind in _CAPTURED_ONCE:
        moments += [each.archived_at for each in manifest.documents if each.kind == kind and each.archived_at]
        moments += [each.archived_at for each in manifest.disposed if each.kind == kind and each.archived_at]
    captured = manifest.event_at and parse_day(manifest.event_at)
    return Clocks(min(map(parse_day, moments)), captured or None, events)


def parse_day(moment: str) -> date:
    """Return the day of a time in the format of manifests, UTC."""
    return datetime.fromisoformat(moment).astimezone(UTC).date()
