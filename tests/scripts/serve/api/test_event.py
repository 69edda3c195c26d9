"""Parsing of webhook events."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from scripts.serve.api.event import IgnoredEvent, RequestedEvaluation, UnusableEvent, read_event
from scripts.serve.metrics import EventResult
from tasks.model.outcome import Evidence
from tests.scripts.serve.conftest import event

TYPES = {"evaluation_completed": False, "reevaluation": True, "case_attachment_added": True}


def read_requested(**changes: Any) -> RequestedEvaluation:
    found = read_event(event(**changes), "sandbox")
    assert isinstance(found, RequestedEvaluation)
    return found


@pytest.mark.parametrize(("event_type", "refresh"), TYPES.items())
def test_three_event_types_request_an_evaluation_and_two_request_a_refresh(event_type: str, *, refresh: bool) -> None:
    found = read_requested(event_type=event_type)
    assert (found.event_type, found.refresh) == (event_type, refresh)


@pytest.mark.parametrize(
    "event_type",
    ["evaluation_paused", "decision_update", "case_notes_added", "Evaluation_Completed", "unheard_of", "", None, 7, []],
)
def test_other_event_types_are_ignored(event_type: Any) -> None:
    assert read_event(event(event_type=event_type), "sandbox") == IgnoredEvent(EventResult.IGNORED_TYPE)


@pytest.mark.parametrize("name", ["", None])
def test_an_event_is_a_test_ping_when_its_environment_is_empty(name: Any) -> None:
    assert read_event(event(data={"environment_name": name}), "sandbox") == IgnoredEvent(EventResult.TEST_PING)


@pytest.mark.parametrize("name", ["Production", "production", "Sandbox 2"])
def test_an_event_of_another_environment_is_ignored(name: str) -> None:
    assert read_event(event(data={"environment_name": name}), "sandbox") == IgnoredEvent(EventResult.OTHER_ENVIRONMENT)


@pytest.mark.parametrize("name", ["Sandbox", "sandbox", " SANDBOX "])
def test_the_environment_is_compared_without_case_and_spaces(name: str) -> None:
    assert read_requested(data={"environment_name": name})


def test_an_event_of_a_case_need_not_name_its_environment() -> None:
    payload = event(event_type="case_attachment_added")
    del payload["data"]["environment_name"]
    assert isinstance(read_event(payload, "production"), RequestedEvaluation)


def test_an_id_is_converted_to_its_canonical_form() -> None:
    eval_id = str(uuid4())
    assert read_requested(eval_id=eval_id.upper()).eval_id == eval_id


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"data": {"eval_id": "no-id"}}, "bad_eval_id"),
        ({"data": {"eval_id": None}}, "bad_eval_id"),
        ({"data": {"eval_id": {"a": 1}}}, "bad_eval_id"),
        ({"data": {"environment_name": 7}}, "bad_environment"),
    ],
)
def test_an_event_is_unusable_when_it_names_no_evaluation(change: dict[str, Any], cause: str) -> None:
    found = read_event(event(**change), "sandbox")
    assert isinstance(found, UnusableEvent)
    assert (found.cause, found.event_type) == (cause, "evaluation_completed")
    assert "no-id" not in found.why


@pytest.mark.parametrize("data", [None, [], "text"])
def test_an_event_without_data_is_unusable(data: Any) -> None:
    found = read_event(event() | {"data": data}, "sandbox")
    assert isinstance(found, UnusableEvent)
    assert found.cause == "no_data"


@pytest.mark.parametrize(
    ("event_id", "kept"),
    [("e-1", "e-1"), ("x" * 129, None), ("jane@example.com", None), ("Jane Doe", None), ("a\nb", None), (7, None)],
)
@pytest.mark.parametrize("data", [None, {}, {"eval_id": "no-id"}, {"environment_name": 7}])
def test_an_unusable_event_keeps_its_id_when_safe(event_id: Any, kept: str | None, data: Any) -> None:
    found = read_event({"event_id": event_id, "event_type": "reevaluation", "data": data}, "sandbox")
    assert isinstance(found, UnusableEvent)
    assert (found.event_id, found.event_type) == (kept, "reevaluation")


def test_an_event_without_an_evaluation_id_is_unusable() -> None:
    payload = event()
    del payload["data"]["eval_id"]
    found = read_event(payload, "sandbox")
    assert isinstance(found, UnusableEvent)
    assert found.cause == "no_eval_id"


@pytest.mark.parametrize(
    ("event_id", "kept"),
    [
        ("e-1", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("two words", False),
        ("ümlaut", False),
        ("\ud800", False),
        ("a@b.c", False),
    ],
)
def test_an_event_id_is_stored_only_when_safe_and_always_part_of_the_key(event_id: str, *, kept: bool) -> None:
    found = read_requested(event_id=event_id)
    assert found.event_id == (event_id if kept else None)
    assert found.key is not None
    assert len(found.key) == 32


@pytest.mark.parametrize("event_id", ["", None, 7, ["e"]])
def test_an_event_has_no_key_when_its_id_is_not_valid(event_id: Any) -> None:
    assert (read_requested(event_id=event_id).key, read_requested(event_id=event_id).event_id) == (None, None)


def test_the_key_depends_on_event_id_type_and_evaluation() -> None:
    one, other = str(uuid4()), str(uuid4())
    same = [
        read_requested(eval_id=one, event_id="e").key,
        read_requested(eval_id=one.upper(), event_id="e", event_at=None).key,
    ]
    others = [
        read_requested(eval_id=one, event_id="f").key,
        read_requested(eval_id=other, event_id="e").key,
        read_requested(eval_id=one, event_id="e", event_type="reevaluation").key,
    ]
    assert len(set(same)) == 1
    assert len({*same, *others}) == 4


@pytest.mark.parametrize(
    ("event_at", "delay"),
    [
        ("1970-01-01T00:16:40Z", 15),
        ("1970-01-01T00:16:30Z", 5),
        ("1970-01-01T01:16:30+01:00", 5),
        ("1970-01-01T00:16:30.500Z", 5.5),
        ("1970-01-01T00:00:00Z", 0),
        ("2999-01-01T00:00:00Z", 15),
        ("1970-01-01T00:16:30", 15),
        ("0001-01-01T00:00:00+23:59", 0),
        ("yesterday", 15),
        ("", 15),
        (None, 15),
        (1000, 15),
    ],
)
def test_the_first_request_waits_until_the_event_has_settled(event_at: Any, delay: float) -> None:
    assert read_requested(event_at=event_at).settle_delay(15.0, now=1_000.0) == pytest.approx(delay)


def test_an_event_carries_the_facts_of_its_evaluation() -> None:
    found = read_requested(
        event_at="2026-01-31T12:00:00+01:00", **steps("SocureDocRequest", {"documentType": "Military"})
    )
    assert set(found.facts.evidence) == {Evidence.MILITARY_ID, Evidence.DOCV_STEP}
    assert found.facts.event_at == datetime(2026, 1, 31, 11, tzinfo=UTC).timestamp()
    assert not found.is_without_docv


@pytest.mark.parametrize(
    "event_at", ["1969-12-31T23:59:59Z", "9999-12-31T23:59:59.999Z", "0001-01-01T00:00:00+23:59", "yesterday", None]
)
def test_the_time_of_an_event_is_none_when_not_plausible(event_at: Any) -> None:
    assert read_requested(event_at=event_at).facts.event_at is None


@pytest.mark.parametrize(("event_type", "filtered"), [(each, each == "evaluation_completed") for each in TYPES])
def test_only_a_completed_evaluation_without_a_docv_step_has_nothing_to_archive(
    event_type: str, *, filtered: bool
) -> None:
    found = read_requested(event_type=event_type, **steps("SocureKYC"))
    assert (found.facts.evidence, found.is_without_docv) == ((Evidence.NO_DOCV_STEP,), filtered)


def steps(provider: str, response: Any = None) -> dict[str, Any]:
    return {"data": {"data_enrichments": [{"enrichment_provider": provider, "response": response}]}}
