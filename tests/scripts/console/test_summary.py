"""The summary of a run, for people and for programs."""

import json

import pytest

from scripts.console.summary import MEANINGS, RunSummary, print_summary
from tasks.ledger.counters import RunCounters
from tasks.model.outcome import ManifestOutcome, Outcome


def summary(total: int, **outcomes: int) -> RunSummary:
    return RunSummary("q3", RunCounters(total, {outcome: outcomes.get(outcome.value, 0) for outcome in Outcome}), 1.5)


def unchanged(**outcomes: int) -> RunSummary:
    """Return the summary of a run that found only existing manifests."""
    found = {outcome: outcomes.get(outcome.value, 0) for outcome in ManifestOutcome}
    total = sum(outcomes.values())
    return RunSummary("q3", RunCounters(total, {Outcome.UNCHANGED: total}, unchanged_outcomes=found), 1.5)


def test_the_json_summary_has_the_documented_fields(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(summary(5, archived=3, failed=1), as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "run": "q3",
        "total": 5,
        "outcomes": {
            "archived": 3,
            "unchanged": 0,
            "no_documents": 0,
            "not_found": 0,
            "rejected": 0,
            "withheld": 0,
            "unreadable": 0,
            "failed": 1,
            "cancelled": 0,
        },
        "unchanged_outcomes": {
            "archived": 0,
            "no_documents": 0,
            "not_found": 0,
            "rejected": 0,
            "withheld": 0,
            "unreadable": 0,
            "erased": 0,
            "disposed": 0,
        },
        "pending": 1,
        "dead_letters": 1,
        "states": {"unfed": 0},
        "on_hold": None,
        "seconds": 1.5,
    }


def test_the_table_shows_every_outcome_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(summary(5, archived=3, failed=1), as_json=False)
    out = capsys.readouterr().out
    for outcome in Outcome:
        assert outcome.value in out
        assert MEANINGS[outcome][:20] in out
    assert "pending" in out


def test_the_table_shows_unchanged_evaluations(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(unchanged(no_documents=398, rejected=2), as_json=False)
    out = " ".join(capsys.readouterr().out.split())
    assert "unchanged 400 no_documents 398, rejected 2: these were in the archive before" in out


@pytest.mark.parametrize(
    ("run", "is_ok"),
    [
        (summary(3, archived=1, unchanged=1, no_documents=1), True),
        (summary(2, archived=1), False),
        (summary(1, not_found=1), False),
        (summary(1, rejected=1), False),
        (summary(1, unreadable=1), False),
        (summary(1, failed=1), False),
        (unchanged(archived=1, no_documents=1, erased=1), True),
        (unchanged(archived=1, not_found=1), False),
        (unchanged(rejected=1), False),
        (unchanged(unreadable=1), False),
    ],
)
def test_a_run_is_ok_when_nothing_needs_attention(run: RunSummary, *, is_ok: bool) -> None:
    assert run.is_ok is is_ok
