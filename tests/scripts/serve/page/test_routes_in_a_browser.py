"""The page works in a real browser: it loads, updates, obeys its security policy, and every button works."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.resilience.holds import Holds
from tests.archives import eval_ids
from tests.browser import open_browser
from tests.scripts.serve.conftest import OPERATOR, Client
from tests.scripts.serve.page.conftest import HTML, archive_revisions, fill_redis

pytestmark = pytest.mark.needs("chromium")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with open_browser() as browser:
        yield browser


@pytest.fixture
async def page(browser: Browser, client: Client) -> AsyncIterator[Page]:
    """Yield a page of an operator. A console error, a page error or a dialog fails the test."""
    name, _, password = OPERATOR.partition(":")
    login = {"username": name, "password": password}
    context = await browser.new_context(base_url=client.url, http_credentials=login)  # type: ignore[arg-type]
    page = await context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    yield page
    await context.close()
    assert problems == []


async def test_every_button_works_and_the_numbers_update_automatically(
    page: Page, redis: Redis, tmp_path: Path, eval_id: str
) -> None:
    ids = eval_ids(20)
    await fill_redis(redis, ids)
    await archive_revisions(tmp_path, eval_id)
    await page.goto("/")
    await expect(page.locator("#summary")).to_have_text(re.compile("10 dead letters, 1 on hold"))
    await expect(page.locator(".chart svg")).to_be_visible()
    await expect(page.locator(".hold")).to_contain_text(HTML)
    [await _check_that_it_fits(page, width) for width in (1280, 390)]

    # The focus stays while the numbers below it change.
    await page.locator("#resume-default").focus()
    await Ledger(redis).accept(eval_ids(5, seed=2), EnqueueOptions(Queue.LIVE, "default", Trigger("run", run="today")))
    await expect(page.locator("#summary")).to_have_text(re.compile("^9 evaluations"), timeout=15_000)
    assert await page.evaluate("document.activeElement.id") == "resume-default"
    await expect(page.locator("#said")).to_have_text(re.compile("^9 evaluations"))

    # Resume with the keyboard only.
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Resume").press("Enter")
    await expect(page.get_by_role("status").first).to_have_text("Resumed.")
    assert await Holds(redis).list_all() == []

    await _redrive_and_drop(page, redis, ids)
    await _look_up(page, eval_id)


async def _redrive_and_drop(page: Page, redis: Redis, ids: list[str]) -> None:
    await page.get_by_role("link", name="Redrive all: RiskOS failed").click()
    await page.get_by_role("link", name="Do not redrive").click()
    await page.get_by_role("link", name="RiskOS failed", exact=True).click()
    await page.get_by_role("link", name=f"Drop {ids[10]}").click()
    await page.get_by_role("button", name="Drop").click()
    await expect(page.get_by_role("status")).to_have_text("1 dropped.")
    await page.get_by_role("link", name="Redrive all: RiskOS failed").click()
    await page.get_by_role("button", name="Redrive").click()
    await expect(page.get_by_role("status")).to_contain_text("5 redriven")
    assert await Ledger(redis).dead_letters.count_causes() == {HTML: 4}
    await page.get_by_role("link", name="Drop all:").click()
    await page.get_by_role("button", name="Drop").click()
    await expect(page.get_by_role("status")).to_have_text("4 dropped.")
    assert await Ledger(redis).dead_letters.count_causes() == {}
    for name in ("Runs", "Overview"):
        await page.get_by_role("link", name=name, exact=True).click()
        await expect(page.get_by_role("heading", level=1)).to_have_text(name)
    await page.locator("#still").click()
    await expect(page.locator("#still")).to_have_text("Resume updates")


async def _look_up(page: Page, eval_id: str) -> None:
    await page.get_by_role("link", name="Look up").click()
    await page.get_by_label("Evaluation IDs").fill(eval_id)
    await page.keyboard.press("Enter")
    await page.get_by_role("link", name="Show the documents").click()
    await expect(page.locator(".documents img")).to_have_count(3)


async def _check_that_it_fits(page: Page, width: int) -> None:
    """Check that the page does not overflow horizontally at a width, such as that of a desktop or a phone."""
    await page.set_viewport_size({"width": width, "height": 844})
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.set_viewport_size({"width": 1280, "height": 900})


async def test_the_page_works_without_javascript(browser: Browser, client: Client, redis: Redis) -> None:
    await fill_redis(redis, eval_ids(20))
    name, _, password = OPERATOR.partition(":")
    context = await browser.new_context(
        base_url=client.url,
        java_script_enabled=False,
        http_credentials={"username": name, "password": password},
    )
    page = await context.new_page()
    await page.goto("/")
    await page.get_by_role("link", name="Resume").click()
    await page.get_by_role("button", name="Resume").click()
    await expect(page.get_by_role("status").first).to_have_text("Resumed.")
    assert await Holds(redis).list_all() == []
    await context.close()
