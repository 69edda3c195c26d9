"""The page is one file that loads nothing else, and shows all values as text."""

import re
from datetime import UTC, datetime
from html.parser import HTMLParser

from scripts.archive_access.evaluation_rows import EvaluationRow
from scripts.report.page import render_page
from scripts.report.totals import ReportTotals
from tasks.model.outcome import NoDocumentsReason
from tasks.storage.run_list import RunList, RunSource

HOSTILE = "<script>alert(1)</script>"


class PageParser(HTMLParser):
    """The elements and addresses of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.addresses += [str(value) for name, value in attrs if name in {"src", "href", "action"}]
        if tag not in {"meta", "rect"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "rect":
            assert self.open.pop() == tag


def render(*rows: EvaluationRow) -> str:
    totals = ReportTotals(datetime(2026, 11, 23, tzinfo=UTC))
    totals.add(rows)
    source = RunSource(name=HOSTILE, fingerprint="a" * 64, ids=1234567, repeated=0, bad=1)
    run = RunList(
        schema=1,
        run="q3",
        environment="sandbox",
        account="default",
        refresh=False,
        source=source,
        pieces=(),
        begun_at="2026-11-23T04:00:00.000Z",
        archiver="docv-archive 0.1.0",
    )
    return render_page(run, totals, "2026-11-23T05:00:00.000Z")


def test_the_page_loads_no_files_and_runs_no_scripts() -> None:
    html = render(EvaluationRow(HOSTILE, "failed", cause=HOSTILE))
    parsed = PageParser(html)
    assert parsed.open == []
    assert "script" not in parsed.elements
    assert parsed.addresses == []
    assert html.count("&lt;script&gt;") == 4  # the file, the list of causes, and the ID and cause of the row


def test_the_page_reports_a_complete_run_when_nothing_needs_attention() -> None:
    html = render(
        EvaluationRow("an ID", "archived", documents=3, bytes=750_000, archived_at="2026-11-23T04:00:00.000Z")
    )
    assert "Complete. The only evaluation is archived" in html
    assert "3 documents, 750 kB" in html
    assert "1,234,567 evaluations" in html
    assert "<rect" in html


def test_disposed_documents_are_counted_and_their_evaluations_explained() -> None:
    html = render(EvaluationRow("an ID", "archived", documents=3), EvaluationRow("another", "disposed", disposed=3))
    assert "3 documents disposed of by the retention schedule" in html
    assert '<td>disposed</td><td class="figure">1</td>' in html
    assert "disposed of by" not in render(EvaluationRow("an ID", "archived", documents=3))


def test_the_page_lists_every_reason_only_when_an_evaluation_has_no_documents() -> None:
    assert "Why there are no documents" not in render(EvaluationRow("an ID", "archived", documents=3))
    html = render(*[EvaluationRow("an ID", "no_documents", reason="minor") for _ in range(3)])
    assert '<td>minor</td><td class="figure">3</td>' in html
    for reason in NoDocumentsReason:
        assert f"<td>{reason.value}</td>" in html


def test_evaluations_that_need_attention_are_listed_with_an_explanation() -> None:
    html = render(EvaluationRow("its ID", "failed", cause="service_failed"))
    assert "1 of 1 evaluation needs attention" in html
    assert "its ID" in html
    assert "No manifest was written since the run started" in html


def test_many_rows_are_shown_fifty_per_page_and_printed_in_full() -> None:
    html = render(*[EvaluationRow(f"ID {number}", "failed", cause="service_failed") for number in range(120)])
    sections = html.split('<section class="page"')[1:]
    assert [section.count("<code>") for section in sections] == [50, 50, 20]
    assert [re.findall(r'href="(#page-\d)" aria-current', section) for section in sections] == [
        ["#page-1"],
        ["#page-2"],
        ["#page-3"],
    ]
    assert set(PageParser(html).addresses) == {"#page-1", "#page-2", "#page-3"}
    assert ".pages .page.page { display: block; }" in html.split("@media print")[1]


def test_fifty_rows_need_no_links() -> None:
    html = render(*[EvaluationRow(f"ID {number}", "failed", cause="service_failed") for number in range(50)])
    assert (html.count('<section class="page"'), "<nav" in html) == (1, False)
