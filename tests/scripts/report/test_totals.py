from datetime import UTC, datetime, timedelta

from scripts.archive_access.evaluation_rows import EvaluationRow
from scripts.report import totals as module
from scripts.report.totals import ReportTotals
from tasks.model.outcome import SourceStatus

BEGUN = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)


def row(outcome: str = "archived", seconds: float | None = 0, **other: object) -> EvaluationRow:
    at = None if seconds is None else (BEGUN + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
    return EvaluationRow("an ID", outcome, archived_at=at, **other)  # type: ignore[arg-type]


def test_outcomes_documents_and_bytes_are_added_up() -> None:
    totals = ReportTotals(BEGUN)
    totals.add([row(documents=3, bytes=100), row("no_documents")])
    totals.add([row(documents=1, bytes=1)])
    assert (totals.count, totals.documents, totals.bytes, totals.errors) == (3, 4, 101, 0)
    assert totals.outcomes == {"archived": 2, "no_documents": 1}


def test_disposed_documents_need_no_attention() -> None:
    totals = ReportTotals(BEGUN)
    totals.add([row(documents=2, disposed=1), row("disposed", disposed=3, at_source=SourceStatus.GONE)])
    assert (totals.documents, totals.disposed, totals.errors, totals.only_here) == (2, 4, 0, 0)


def test_evaluations_that_need_attention_are_counted_by_cause_and_listed_in_order() -> None:
    totals, most = ReportTotals(BEGUN), module._NAMED
    totals.add([row("failed", None, cause="service_failed") for _ in range(most)])
    totals.add([row("not_found"), row("missing", None, cause="queued"), row("missing", None)])
    assert totals.causes == {"service_failed": most, "not_found": 1, "queued": 1, "missing": 1}
    assert (len(totals.named), totals.unnamed, totals.errors) == (most, 3, most + 3)


def test_evaluations_without_documents_are_counted_by_reason() -> None:
    totals = ReportTotals(BEGUN)
    totals.add([row(), row("no_documents", reason="military"), row("no_documents", reason="minor"), row("not_found")])
    totals.add([row("no_documents", reason="military")])
    assert totals.reasons == {"military": 2, "minor": 1}


def test_the_bars_count_all_evaluations_archived_since_the_run_began() -> None:
    totals = ReportTotals(BEGUN)
    totals.add([row(seconds=second) for second in range(0, 3600, 2)])
    totals.add([row(seconds=-5)])
    bars = totals.bars()
    assert (sum(bar.count for bar in bars), totals.before) == (1800, 1)
    assert len(bars) == 60
    assert (bars[0].since, bars[0].count, bars[0].share) == (BEGUN, 30, 1.0)


def test_a_run_of_a_few_seconds_has_one_bar_and_an_empty_run_has_none() -> None:
    totals = ReportTotals(BEGUN)
    assert totals.bars() == []
    totals.add([row(seconds=3), row(seconds=4)])
    assert [(bar.count, bar.share) for bar in totals.bars()] == [(2, 1.0)]


def test_a_run_of_ten_years_has_at_most_sixty_bars() -> None:
    totals = ReportTotals(BEGUN)
    totals.add([row(seconds=0), row(seconds=10 * 365 * 86_400)])
    assert len(totals.bars()) <= 60
    assert sum(bar.count for bar in totals.bars()) == 2
