"""The page in a real browser: it loads, updates by itself, keeps its own policy, and every button works."""

import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.resilience.holds import Holds
from tests.archives import eval_ids
from tests.scripts.serve.conftest import OPERATOR, Client
from tests.scripts.serve.page.conftest import HTML, keep, some_of_every_sort

QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
pytestmark = pytest.mark.needs("chromium")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=[*QUIET])
        yield browser
        await browser.close()


@pytest.fixture
async def page(browser: Browser, client: Client) -> AsyncIterator[Page]:
    """A page of an operator; whatever its console complains of is an error."""
    name, _, password = OPERATOR.partition(":")
    login = {"username": name, "password": password}
    context = await browser.new_context(base_url=client.url, http_credentials=login)  # type: ignore[arg-type]
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    yield page
    await context.close()
    assert complaints == []


async def test_every_button_works_and_the_numbers_update_by_themselves(
    page: Page, redis: Redis, tmp_path: Path, eval_id: str
) -> None:
    ids = eval_ids(20)
    await some_of_every_sort(redis, ids)
    await keep(tmp_path, eval_id)
    await page.goto("/")
    await expect(page.locator("#summary")).to_have_text(re.compile("10 dead letters, 1 on hold"))
    await expect(page.locator(".chart canvas")).to_be_visible()
    await expect(page.locator(".hold")).to_contain_text(HTML)
    [await _see_that_it_fits(page, width) for width in (1280, 390)]

    # The focus stays while the numbers change below it.
    await page.locator("#resume-default").focus()
    await Ledger(redis).accept(eval_ids(5, seed=2), EnqueueOptions(Queue.LIVE, "default", Trigger("run", run="today")))
    await expect(page.locator("#summary")).to_have_text(re.compile("^9 evaluations"), timeout=15_000)
    assert await page.evaluate("document.activeElement.id") == "resume-default"
    await expect(page.locator("#said")).to_have_text(re.compile("^9 evaluations"))

    # Without a mouse.
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Resume").press("Enter")
    await expect(page.get_by_role("status").first).to_have_text("It goes on.")
    assert await Holds(redis).list_all() == []

    await _redrive_and_drop(page, redis, ids)
    await _look_up(page, eval_id)


async def _redrive_and_drop(page: Page, redis: Redis, ids: list[str]) -> None:
    await page.get_by_role("link", name="Redrive all of service_failed").click()
    await page.get_by_role("link", name="Leave them").click()
    await page.get_by_role("link", name="service_failed", exact=True).click()
    await page.get_by_role("link", name=f"Drop {ids[10]}").click()
    await page.get_by_role("button", name="Drop").click()
    await expect(page.get_by_role("status")).to_have_text("1 dropped.")
    await page.get_by_role("link", name="Redrive all of service_failed").click()
    await page.get_by_role("button", name="Redrive").click()
    await expect(page.get_by_role("status")).to_contain_text("5 tried anew")
    assert await Ledger(redis).count_causes() == {HTML: 4}
    await page.get_by_role("link", name="Drop all of").click()
    await page.get_by_role("button", name="Drop").click()
    await expect(page.get_by_role("status")).to_have_text("4 dropped.")
    assert await Ledger(redis).count_causes() == {}
    for name in ("Runs", "Overview"):
        await page.get_by_role("link", name=name, exact=True).click()
        await expect(page.get_by_role("heading", level=1)).to_have_text(name)
    await page.locator("#still").click()
    await expect(page.locator("#still")).to_have_text("Update by itself")


async def _look_up(page: Page, eval_id: str) -> None:
    await page.get_by_role("link", name="Look up").click()
    await page.get_by_label("Evaluation ID").fill(eval_id)
    await page.keyboard.press("Enter")
    await page.get_by_role("link", name="Show the documents").click()
    await expect(page.locator(".pictures img")).to_have_count(3)


async def _see_that_it_fits(page: Page, width: int) -> None:
    """Nothing stands out at the side, on a desk and on a phone."""
    await page.set_viewport_size({"width": width, "height": 844})
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.set_viewport_size({"width": 1280, "height": 900})


async def test_without_javascript_it_can_be_read_and_used(browser: Browser, client: Client, redis: Redis) -> None:
    await some_of_every_sort(redis, eval_ids(20))
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
    await expect(page.get_by_role("status").first).to_have_text("It goes on.")
    assert await Holds(redis).list_all() == []
    await context.close()
