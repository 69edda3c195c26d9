import json
import math

import pytest

from tasks.ledger.serialization import (
    format_ending,
    format_failure,
    options_as_json,
    parse_dead_letter,
    parse_jobs,
    read_count,
    read_score,
    select_published,
)
from tasks.model.evidence import EvaluationFacts
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.model.outcome import Evidence, ManifestOutcome, Outcome

A, B = (f"0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a{number:02x}" for number in range(2))
ENTRY = {
    "queue": "backfill",
    "account": "default",
    "refresh": False,
    "attempts": 2,
    "lost": 1,
    "trigger": {"source": "backfill", "run": "q3"},
    "runs": ["q3"],
    "accepted": 5_000,
}
LETTER = {
    "cause": "service_failed",
    "why": "RiskOS answered 500",
    "status": 500,
    "attempts": 6,
    "account": "default",
    "queue": "live",
    "runs": ["q3"],
    "accepted": 1_000,
    "first": 2_000,
    "last": 3_000,
}


def test_options_as_json_omits_facts_of_other_evaluations_and_options_without_effect() -> None:
    options = EnqueueOptions(Queue.LIVE, "default", Trigger("webhook"), facts={B: EvaluationFacts()}, delay=1.5)
    order = json.loads(options_as_json(options, [A], listed=False))
    assert (order["trigger"], order["run"], order["delay"]) == ({"source": "webhook"}, "", 1_500)
    assert not order.keys() & {"facts", "without_request", "refresh_outcomes", "trace"}


@pytest.mark.parametrize(
    ("even_if_erased", "ordered_at", "written"), [(False, 2.0, False), (True, None, True), (True, 2.0, 2_000)]
)
def test_options_as_json_has_the_time_of_an_order_even_if_erased(
    *, even_if_erased: bool, ordered_at: float | None, written: object
) -> None:
    options = EnqueueOptions(
        Queue.LIVE, "default", Trigger("enqueue"), even_if_erased=even_if_erased, ordered_at=ordered_at
    )
    assert json.loads(options_as_json(options, [A], listed=False))["even_if_erased"] == written


@pytest.mark.parametrize("event_at", [None, 1.5])
def test_options_as_json_has_the_time_of_an_event_only_if_it_is_known(event_at: float | None) -> None:
    facts = EvaluationFacts(evidence=(Evidence.NO_DOCV_STEP,), event_at=event_at)
    options = EnqueueOptions(Queue.LIVE, "default", Trigger("webhook"), facts={A: facts})
    written = {"evidence": ["no_docv_step"]} | ({"event_at": 1_500} if event_at else {})
    assert json.loads(options_as_json(options, [A], listed=False))["facts"] == {A: written}


@pytest.mark.parametrize(
    ("outcome", "unchanged", "answer", "ending"),
    [
        (Outcome.ARCHIVED, None, Outcome.ARCHIVED, "archived"),
        (Outcome.UNCHANGED, ManifestOutcome.ARCHIVED, None, "unchanged:archived"),
        (Outcome.UNCHANGED, ManifestOutcome.ARCHIVED, Outcome.ARCHIVED, "unchanged:archived"),
        (Outcome.UNCHANGED, ManifestOutcome.ARCHIVED, Outcome.NOT_FOUND, "unchanged:archived:not_found"),
    ],
)
def test_format_ending_names_the_answer_only_if_it_differs_from_the_manifest(
    outcome: Outcome, unchanged: ManifestOutcome | None, answer: Outcome | None, ending: str
) -> None:
    assert format_ending(outcome, unchanged, answer) == ending


def test_select_published_returns_only_evaluations_to_publish_now() -> None:
    assert select_published("abc", [0, 1, 2]) == ["b"]


def test_parse_jobs_gives_jobs_with_the_same_text_their_own_ids() -> None:
    text = json.dumps(ENTRY)
    jobs = list(parse_jobs([(A, text), ("missing", ""), (B, text)], "token"))
    assert [(job.eval_id, job.token, job.attempts, job.lost) for job in jobs] == [
        (A, "token", 2, 1),
        (B, "token", 2, 1),
    ]


def test_parse_jobs_leaves_out_unknown_times() -> None:
    (job,) = parse_jobs([(A, json.dumps(ENTRY))], "token")
    assert (job.event_at, job.ordered_at, job.excused_at, job.forbidden_since) == (None,) * 4


def test_parse_jobs_returns_times_in_seconds() -> None:
    times = {"event_at": 1_500, "even_if_erased": 2_500, "excused": 3_500, "forbidden": 4_500}
    (job,) = parse_jobs([(A, json.dumps(ENTRY | times))], "token")
    assert (job.event_at, job.ordered_at, job.excused_at, job.forbidden_since) == (1.5, 2.5, 3.5, 4.5)


@pytest.mark.parametrize(
    ("fields", "only_run"),
    [
        ({}, "q3"),
        ({"queue": "live"}, ""),
        ({"unnamed": True}, ""),
        ({"runs": ["q3", "q4"]}, ""),
        ({"runs": {}}, ""),
    ],
)
def test_parse_jobs_finds_the_only_run_that_wants_an_evaluation(fields: dict[str, object], only_run: str) -> None:
    (job,) = parse_jobs([(A, json.dumps(ENTRY | fields))], "token")
    assert job.only_run == only_run


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (None, 0),
        ("", 0),
        ("7", 7),
        ("-7", -7),
        ("7.0", 7),
        ("7e3", 0),
        ("many", 0),
        ("1" * 15, int("1" * 15)),
        ("1" * 16, 0),
    ],
)
def test_read_count_returns_zero_if_the_counter_is_missing_or_damaged(text: str | None, count: int) -> None:
    assert read_count(text) == count


@pytest.mark.parametrize(
    ("score", "count"), [(None, 0), (7.0, 7), (math.inf, 0), (math.nan, 0), (1e15, 10**15 - 1), (1e300, 10**15 - 1)]
)
def test_read_score_returns_zero_if_the_score_is_missing_or_not_finite(score: float | None, count: int) -> None:
    assert read_score(score) == count


def test_format_failure_writes_missing_facts_as_empty_texts() -> None:
    assert format_failure(Failure("timeout")) == ("timeout", "", "", "")
    assert format_failure(Failure("service_failed", "it failed", 500, "r1")) == (
        "service_failed",
        "it failed",
        500,
        "r1",
    )


def test_parse_dead_letter_returns_times_in_seconds_and_runs() -> None:
    letter = parse_dead_letter(A, json.dumps(LETTER))
    assert (letter.accepted, letter.first, letter.last, letter.runs) == (1.0, 2.0, 3.0, ("q3",))
    assert (letter.failure.status, letter.attempts, letter.queue) == (500, 6, Queue.LIVE)


@pytest.mark.parametrize("fields", [{"status": None}, {"runs": {}}, {"attempts": 0}, {"first": 0}])
def test_parse_dead_letter_accepts_values_at_their_limits(fields: dict[str, object]) -> None:
    letter = parse_dead_letter(A, json.dumps(LETTER | fields))
    assert letter.failure.cause == "service_failed"
    assert (letter.failure.status is None) == ("status" in fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"why": 5},
        {"request_id": 5},
        {"runs": [True]},
        {"attempts": -1},
        {"status": 10**15},
        {"first": -1},
        {"last": 253_402_300_800_000},
    ],
)
def test_parse_dead_letter_returns_a_stand_in_if_a_value_is_not_valid(fields: dict[str, object]) -> None:
    assert parse_dead_letter(A, json.dumps(LETTER | fields)).failure.cause == "damaged_entry"
