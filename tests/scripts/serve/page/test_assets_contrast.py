"""Every page has enough contrast in both schemes and widths, and axe finds no violation in it."""

from pathlib import Path

import pytest
from playwright.async_api import Page, expect
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.ledger.rejected_messages import RejectedMessages
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tests.archives import eval_ids
from tests.browser import axe_findings, low_contrasts, open_browser
from tests.scripts.serve.conftest import OPERATOR, running_client, settings_for
from tests.scripts.serve.page.conftest import archive_revisions, fill_redis
from tests.scripts.serve.page.test_quarantine_view import quarantine
from tests.scripts.serve.page.test_run_view import begin_run

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(400)]


async def test_every_page_has_enough_contrast_and_no_axe_violation(
    redis: Redis, redis_url: str, tmp_path: Path, eval_id: str
) -> None:
    ids = eval_ids(20)
    await fill_redis(redis, ids)
    await begin_run(redis, tmp_path, eval_ids(5, seed=4), 3)
    await quarantine(tmp_path, ids[:3])
    await RejectedMessages(redis).add(cause="bad_message", why="it is not JSON", source="live", message=ids[0])
    await Ledger(redis).accept([eval_id], EnqueueOptions(Queue.LIVE, "default", Trigger("webhook")))
    await archive_revisions(tmp_path, eval_id, revisions=2)
    accounts = tmp_path / "accounts.toml"
    accounts.write_text('[kyb]\napi_key = "key-of-kyb"\nenvironment = "production"\nrate = 3\n')
    found: list[str] = []
    async with (
        running_client(settings_for(redis_url, tmp_path, accounts=accounts, api_key="key-of-ours")) as client,
        open_browser() as browser,
    ):
        name, _, password = OPERATOR.partition(":")
        login = {"username": name, "password": password}
        context = await browser.new_context(base_url=client.url, http_credentials=login)  # type: ignore[arg-type]
        page = await context.new_page()
        for path in _pages(ids, eval_id):
            await page.goto(path)
            found += await low_contrasts(page)
            found += await axe_findings(page)
        found += await _after_an_action(page)
    assert not found, "\n".join(found)


def _pages(ids: list[str], eval_id: str) -> list[str]:
    """Return the address of each page, in each of its states."""
    evaluation = f"/page/evaluation?id={eval_id}&account=default"
    return [
        *("/", "/?still", "/page/runs", "/page/run?run=2026-q3", "/page/run?run=q3", "/page/run?run=q4"),
        *("/page/dead-letters", "/page/dead-letters?cause=service_failed", "/page/rejected", "/page/quarantine"),
        *("/page/evaluation", evaluation, f"{evaluation}&pictures", f"{evaluation}&revision=1"),
        *(f"/page/evaluation?id={ids[10]}", f"/page/evaluation?id={ids[0]}", "/page/evaluation?id=nonsense"),
        f"/page/evaluation?id={eval_id}+{ids[1]}+{ids[10]}+nonsense",
        *("/page/resume?scope=default", "/page/resume?scope=nobody"),
        *("/page/cancel?run=2026-q3", f"/page/cancel?eval_id={eval_id}", "/page/cancel?run=nobody"),
        *("/page/redrive?cause=service_failed", f"/page/redrive?eval_id={ids[10]}", "/page/redrive?cause=nobody"),
        *("/page/drop?cause=service_failed", f"/page/drop?eval_id={ids[10]}"),
    ]


async def _after_an_action(page: Page) -> list[str]:
    await page.goto("/page/drop?cause=service_failed")
    await page.get_by_role("button", name="Drop").click()
    await expect(page.get_by_role("status").first).to_contain_text("dropped")
    return await low_contrasts(page) + await axe_findings(page)
