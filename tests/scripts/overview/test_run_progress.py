"""The progress that a run prints."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.console import Console

from scripts.overview.run_progress import open_progress
from scripts.overview.run_snapshot import RunSnapshot
from tasks.ledger.counters import LedgerStats, RunCounters
from tasks.model.job import Queue
from tasks.model.outcome import Outcome
from tasks.resilience.holds import ARCHIVE, Hold, Reason, backfill_of

NOTHING = dict.fromkeys(Queue, 0)


def snapshot(
    *, total: int = 10, holds: Sequence[Hold] = (), parked: int = 0, leased: int = 0, **outcomes: int
) -> RunSnapshot:
    counts = {outcome: outcomes.get(outcome.value, 0) for outcome in Outcome}
    due, cause = (90.0, "service_failed") if parked else (None, None)
    why = "RiskOS answered with status 503" if parked else ""
    stats = LedgerStats(NOTHING, NOTHING, leased, parked, NOTHING, due, cause, 0, next_why=why)
    return RunSnapshot(RunCounters(total, counts), stats, holds)


def test_a_run_waits_for_the_first_answer_before_its_first_outcome() -> None:
    assert snapshot().sentence() == "waiting for the first answer"


def test_the_sentence_counts_outcomes_and_leaves_out_zeros() -> None:
    assert snapshot(archived=3, no_documents=1).sentence() == "3 archived, 1 no_documents"


def test_the_sentence_begins_with_the_hold_or_the_parked_evaluations() -> None:
    unauthorized = Hold(
        "default", Reason.UNAUTHORIZED, "the API key is not accepted", age=3, remaining=27, needs_probe=True
    )
    assert snapshot(archived=3, holds=[unauthorized]).sentence() == (
        "account default is on hold (401: the API key is not accepted), next probe in 27 s, 3 archived"
    )
    quota = Hold(backfill_of("default"), Reason.QUOTA, "", age=3, remaining=7200, needs_probe=False)
    assert (
        snapshot(holds=[quota]).sentence()
        == "the backfill of account default is on hold (quota), continues in 2 h 0 min"
    )
    manual = Hold(ARCHIVE, Reason.BY_HAND, "", age=3, remaining=1e9, needs_probe=False)
    assert snapshot(holds=[manual]).sentence() == "the archive is on hold (by_hand), until `docv-archive resume`"
    parked = snapshot(archived=3, parked=2)
    assert parked.sentence() == (
        "2 parked (service_failed: RiskOS answered with status 503), next attempt in 1 min 30 s, 3 archived"
    )
    assert snapshot(archived=3, parked=2, leased=1).sentence() == "3 archived"


def test_progress_without_a_terminal_prints_one_line_at_the_start_and_one_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with open_progress("q3", 10) as progress:
        for done in range(11):
            progress.update(snapshot(archived=done))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["q3: 0 of 10: waiting for the first answer", "q3: 10 of 10: 10 archived"]


def test_progress_without_a_terminal_prints_one_line_per_minute_while_nothing_changes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with open_progress("q3", 10) as progress:
        for now in range(0, 121, 4):  # the clock
            progress.update(snapshot(archived=1 + (now >= 100), parked=1))
    assert len(capsys.readouterr().err.splitlines()) == 3  # at 0 and 60 seconds, and when another evaluation ended


def test_progress_on_a_terminal_shows_the_counter_even_if_the_sentence_is_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    assert Console(stderr=True).is_terminal
    with open_progress("q3", 1000) as progress:
        progress.update(snapshot(total=1000, **{outcome.value: 100 for outcome in Outcome}))
    assert f"{100 * len(Outcome)}/1000" in capsys.readouterr().err


def test_the_sentence_ends_with_the_speed_and_the_time_left() -> None:
    in_progress = replace(snapshot(total=100, archived=40), per_second=2.0)
    assert in_progress.sentence() == "40 archived, 2 per second, 30 s left"
    assert replace(snapshot(total=40, archived=40), per_second=2.0).sentence() == "40 archived"


def test_the_sentence_of_a_run_without_workers_names_the_command_that_starts_one() -> None:
    assert "start one with `docv-archive worker`" in replace(snapshot(), served=False).sentence()


def test_the_sentence_reports_that_the_worker_of_the_command_is_starting() -> None:
    assert replace(snapshot(), served=False, is_worker_starting=True).sentence() == "the worker is starting"
    again = replace(snapshot(archived=3), served=False, is_worker_starting=True)
    assert again.sentence() == "the worker is starting, 3 archived"
