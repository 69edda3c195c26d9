"""Every text of a report is readable, in the light scheme and in the dark one."""

import pytest

from scripts.archive_access.evaluation_rows import EvaluationRow
from tests.browser import low_contrasts, open_browser
from tests.scripts.report.test_page import render


@pytest.mark.needs("chromium")
async def test_every_text_of_a_report_has_enough_contrast() -> None:
    failed = EvaluationRow("an ID", "failed", cause="service_failed")
    archived = EvaluationRow("an ID", "archived", documents=3, bytes=7, archived_at="2026-11-23T04:00:00.000Z")
    empty = EvaluationRow("an ID", "no_documents", reason="minor")
    async with open_browser() as browser:
        page = await browser.new_page()
        for rows in ((failed, archived, empty), (archived,)):
            await page.set_content(render(*rows))
            found = await low_contrasts(page)
            assert not found, "\n".join(found)
