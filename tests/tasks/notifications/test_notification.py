"""A notification has a sentence and counts, and never personal data."""

import json

from tasks.ledger.counters import RunCounters
from tasks.model.outcome import Outcome
from tasks.notifications.notification import counters_digest, dead_letters_appeared, differences_found, run_finished

COUNTERS = RunCounters(total=1_002, outcomes={Outcome.ARCHIVED: 1_000, Outcome.FAILED: 2, Outcome.WITHHELD: 0})
PERSON = "the name of a person <person@example.com>"


def test_a_finished_run_is_reported_with_a_sentence_and_counts() -> None:
    content = json.loads(run_finished("2026-q3", COUNTERS).as_json())
    assert content["text"] == (
        "docv-archive: run 2026-q3 finished. 1,002 evaluations: 1,000 archived, 2 failed; 2 need attention."
    )
    assert (content["event"], content["total"], content["errors"]) == ("run_finished", 1_002, 2)
    assert content["outcomes"] == {"archived": 1_000, "failed": 2}
    assert content["id"] == f"run:2026-q3:{counters_digest(COUNTERS)}"


def test_new_dead_letters_are_listed_by_cause_with_the_most_frequent_first() -> None:
    content = json.loads(dead_letters_appeared({"forbidden": 1, "service_failed": 4}, 9, 1_000).as_json())
    assert content["text"] == "docv-archive: 5 new dead letters (4 service_failed, 1 forbidden); 9 in all."
    assert (content["count"], content["causes"], content["total"]) == (5, {"service_failed": 4, "forbidden": 1}, 9)


def test_differences_are_listed_by_problem() -> None:
    content = json.loads(differences_found({"orphan": 1}, 7).as_json())
    assert content["text"] == "docv-archive: verify found 1 difference (1 orphan) in 7 evaluations."


def test_a_count_of_one_is_in_the_singular() -> None:
    counters = RunCounters(total=1, outcomes={Outcome.FAILED: 1})
    assert run_finished("one", counters).text == (
        "docv-archive: run one finished. 1 evaluation: 1 failed; 1 needs attention."
    )
    assert dead_letters_appeared({"forbidden": 1}, 1, 1_000).text.startswith("docv-archive: 1 new dead letter (")
    assert differences_found({"orphan": 2}, 1).text.endswith("2 differences (2 orphan) in 1 evaluation.")


def test_a_notification_is_bounded_and_contains_no_personal_data() -> None:
    counters = RunCounters(total=1, outcomes={Outcome.FAILED: 1}, account=PERSON)
    causes = {PERSON: 3, "x" * 1_000: 2, **{f"cause_{number}": 1 for number in range(500)}}
    for each in (
        run_finished(PERSON, counters),
        dead_letters_appeared(causes, 505, 1),
        differences_found(causes, 1),
    ):
        body = each.as_json().decode()
        assert "person@example" not in body
        assert len(body) < 2_000
