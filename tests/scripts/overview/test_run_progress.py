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


def seen(
    *, total: int = 10, holds: Sequence[Hold] = (), parked: int = 0, leased: int = 0, **outcomes: int
) -> RunSnapshot:
    counted = {outcome: outcomes.get(outcome.value, 0) for outcome in Outcome}
    due, cause = (90.0, "service_failed") if parked else (None, None)
    why = "RiskOS answered with status 503" if parked else ""
    census = LedgerStats(NOTHING, NOTHING, leased, parked, NOTHING, due, cause, 0, next_why=why)
    return RunSnapshot(RunCounters(total, counted), census, holds)


def test_before_the_first_answer_it_says_so() -> None:
    assert seen().sentence() == "waiting for the first answer"


def test_what_has_ended_is_counted_and_what_is_nought_is_left_out() -> None:
    assert seen(archived=3, no_documents=1).sentence() == "3 archived, 1 no_documents"


def test_what_it_waits_for_comes_first() -> None:
    refused = Hold("default", Reason.UNAUTHORIZED, "the API key is not accepted", age=3, remaining=27, needs_probe=True)
    assert seen(archived=3, holds=[refused]).sentence() == (
        "account default is on hold (401: the API key is not accepted), next probe in 27 s, 3 archived"
    )
    spent = Hold(backfill_of("default"), Reason.QUOTA, "", age=3, remaining=7200, needs_probe=False)
    assert (
        seen(holds=[spent]).sentence() == "the backfill of account default is on hold (quota), continues in 2 h 0 min"
    )
    stopped = Hold(ARCHIVE, Reason.BY_HAND, "", age=3, remaining=1e9, needs_probe=False)
    assert seen(holds=[stopped]).sentence() == "the archive is on hold (by_hand), until `docv-archive resume`"
    parked = seen(archived=3, parked=2)
    assert parked.sentence() == (
        "2 parked (service_failed: RiskOS answered with status 503), next attempt in 1 min 30 s, 3 archived"
    )
    assert seen(archived=3, parked=2, leased=1).sentence() == "3 archived"


def test_without_a_terminal_the_first_and_the_last_look_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    with open_progress("q3", 10) as progress:
        for done in range(11):
            progress.update(seen(archived=done))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["q3: 0 of 10: waiting for the first answer", "q3: 10 of 10: 10 archived"]


def test_without_a_terminal_a_run_in_which_nothing_ends_is_a_line_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with open_progress("q3", 10) as progress:
        for now in range(0, 121, 4):  # the clock
            progress.update(seen(archived=1 + (now >= 100), parked=1))
    assert len(capsys.readouterr().err.splitlines()) == 3  # at 0 and 60 seconds, and when another one ended


def test_on_a_terminal_the_bar_and_the_figures_do_not_give_way(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    assert Console(stderr=True).is_terminal
    with open_progress("q3", 1000) as progress:
        progress.update(seen(total=1000, **{outcome.value: 100 for outcome in Outcome}))
    assert f"{100 * len(Outcome)}/1000" in capsys.readouterr().err


def test_how_fast_it_goes_and_how_long_it_will_take_come_last() -> None:
    going = replace(seen(total=100, archived=40), per_second=2.0)
    assert going.sentence() == "40 archived, 2 per second, 30 s left"
    assert replace(seen(total=40, archived=40), per_second=2.0).sentence() == "40 archived"


def test_a_run_without_workers_says_what_is_missing() -> None:
    assert "start one with `docv-archive worker`" in replace(seen(), served=False).sentence()


def test_a_run_says_that_its_own_worker_starts_until_it_serves_the_backfill() -> None:
    assert replace(seen(), served=False, is_worker_starting=True).sentence() == "the worker is starting"
    again = replace(seen(archived=3), served=False, is_worker_starting=True)
    assert again.sentence() == "the worker is starting, 3 archived"
