"""A document is never due too early, and only after the grace of an event that was reported late."""

from datetime import date

import pytest

from tasks.retention.decision import Clocks, decide, decide_held, make_facts
from tasks.retention.event import EventRecord
from tasks.retention.schedule import DocumentFacts, Schedule
from tests.tasks.storage.test_manifest import EVALUATION, disposed, manifest, record

FACTS = DocumentFacts("selfie", "production", "default")
ARCHIVED = date(2026, 1, 31)


def schedule(**rule: object) -> Schedule:
    usual = {"name": "selfies", "kind": "selfie", "keep_for": "3y", "clock": "archived"}
    return Schedule.model_validate({"grace": "30d", "rule": [usual | rule]})


def closed(day: date | None, received: str = "2026-11-29T23:59:59.999Z") -> dict[str, EventRecord]:
    facts = {"eval_id": EVALUATION.eval_id, "environment": EVALUATION.environment, "by": "records"}
    return {"account_closed": EventRecord(**facts, event="account_closed", date=day, received_at=received)}


def test_a_document_is_due_when_its_period_has_ended() -> None:
    decision = decide(schedule(), FACTS, Clocks(ARCHIVED))

    assert (decision.started, decision.ends, decision.due) == (ARCHIVED, date(2029, 2, 1), date(2029, 2, 1))
    assert not decision.is_due(date(2029, 1, 31))
    assert decision.is_due(date(2029, 2, 1))


@pytest.mark.parametrize(
    "rule", [{"clock": "captured"}, {"clock": "account_closed"}, {"clock": None, "keep_for": "forever"}]
)
def test_a_document_is_kept_while_its_clock_has_not_started(rule: dict[str, object]) -> None:
    decision = decide(schedule(**rule), FACTS, Clocks(ARCHIVED))

    assert decision.rule is not None
    assert decision.due is None
    assert not decision.is_due(date(9999, 1, 1))


def test_a_withdrawn_event_starts_no_clock() -> None:
    assert decide(schedule(clock="account_closed"), FACTS, Clocks(ARCHIVED, events=closed(None))).due is None


@pytest.mark.parametrize(
    ("day", "ends", "due"),
    [
        (date(2026, 11, 29), date(2029, 11, 30), date(2029, 11, 30)),
        (date(2020, 2, 29), date(2023, 3, 2), date(2026, 12, 30)),
    ],
)
def test_a_document_is_due_only_after_the_grace_when_its_event_is_reported_late(
    day: date, ends: date, due: date
) -> None:
    decision = decide(schedule(clock="account_closed"), FACTS, Clocks(ARCHIVED, events=closed(day)))

    assert (decision.ends, decision.due) == (ends, due)


def test_a_rule_that_requires_a_review_disposes_of_nothing() -> None:
    decision = decide(schedule(then="review"), FACTS, Clocks(ARCHIVED))

    assert decision.needs_review(date(2029, 2, 1))
    assert not decision.needs_review(date(2029, 1, 31))
    assert not decision.is_due(date(9999, 1, 1))


@pytest.mark.parametrize(
    ("rule", "clocks", "today", "is_prevented"),
    [
        ({"keep": "must"}, Clocks(ARCHIVED), date(2029, 1, 31), True),
        ({"keep": "must"}, Clocks(ARCHIVED), date(2029, 2, 1), False),
        ({"keep": "must", "clock": "captured"}, Clocks(ARCHIVED), date(9999, 1, 1), True),
        ({"keep": "must", "clock": None, "keep_for": "forever"}, Clocks(ARCHIVED), date(9999, 1, 1), True),
        ({}, Clocks(ARCHIVED), date(2026, 2, 1), False),
        ({"keep": "must", "kind": "attachment"}, Clocks(ARCHIVED), date(2026, 2, 1), False),
    ],
)
def test_only_a_duty_to_keep_prevents_an_erasure(
    rule: dict[str, object], clocks: Clocks, today: date, *, is_prevented: bool
) -> None:
    assert decide(schedule(**rule), FACTS, clocks).prevents_erasure(today) is is_prevented


@pytest.mark.parametrize(
    ("rule", "usual", "until"),
    [
        ({"keep": "must"}, date(2026, 3, 1), date(2029, 2, 1)),
        ({"keep": "must"}, date(2036, 3, 1), date(2029, 2, 1)),
        ({"keep": "must", "clock": "captured"}, date(2026, 3, 1), date(2026, 3, 1)),
        ({"keep": "must", "clock": None, "keep_for": "forever"}, date(2026, 3, 1), date(2026, 3, 1)),
        ({}, date(2026, 3, 1), date(2026, 3, 1)),
        ({}, date(2036, 3, 1), date(2029, 2, 1)),
        ({"clock": "captured"}, date(2026, 3, 1), date(2026, 3, 1)),
        ({"keep": "must", "kind": "attachment"}, date(2036, 3, 1), date(2036, 3, 1)),
    ],
)
def test_a_lock_ends_with_a_duty_to_keep_and_never_after_the_period(
    rule: dict[str, object], usual: date, until: date
) -> None:
    assert decide(schedule(**rule), FACTS, Clocks(ARCHIVED)).locked_until(usual) == until


def test_a_captured_image_that_arrives_again_does_not_start_its_clock_again() -> None:
    late = record("other bytes", archived_at="2029-06-01T00:00:00.000Z")
    once = manifest(documents=(late,), disposed=(disposed("front"),))

    assert decide_held(schedule(), once, late, {}).due == date(2029, 2, 1)


def test_each_attachment_has_its_own_clock() -> None:
    late = record("second", kind="attachment", archived_at="2029-06-01T00:00:00.000Z")
    both = manifest(documents=(record("first", kind="attachment"), late))

    assert decide_held(schedule(kind="attachment"), both, late, {}).due == date(2032, 6, 2)


def test_a_document_of_an_older_version_has_the_time_of_its_manifest() -> None:
    old = record("front", archived_at=None)

    assert decide_held(schedule(), manifest(documents=(old,)), old, {}).due == date(2029, 2, 1)


def test_the_captured_clock_starts_at_the_time_of_the_event() -> None:
    old = manifest("front", event_at="2020-02-28T23:30:00.000Z")

    assert decide_held(schedule(clock="captured"), old, old.documents[0], {}).due == date(2023, 3, 1)


def test_rules_match_the_tags_of_the_objects() -> None:
    facts = make_facts(manifest("front", tags={"team": "kyc"}), "attachment", "case_attachments/a.png")

    assert facts.tags == {
        "team": "kyc",
        "environment": EVALUATION.environment,
        "document-kind": "attachment",
        "source": "case_attachments",
    }
    assert facts.run == "2026-q3"
