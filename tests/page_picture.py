"""Draw docs/page.png, the operations page during a run against the simulator: ``python -m tests.page_picture``."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.async_api import expect

from scripts.local.machine import local_workers
from scripts.simulator.expected import demo_ids
from tests.browser import open_browser
from worker.config.settings import Settings, load_settings

PICTURE = Path(__file__).parents[1] / "docs" / "page.png"
OPERATOR, PASSWORD = "operations", "a-password-for-the-picture"
RUN = "2026-q3"
_IDS, _SECONDS = 3_000, 40
_COMMAND = (sys.executable, "-P", "-m", "scripts.cli")


@contextmanager
def _serving(*arguments: str, **variables: str) -> Iterator[str]:
    """Run a command that prints its URL as the last word of a line; yield the URL."""
    with subprocess.Popen([*_COMMAND, *arguments], env=os.environ | variables, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().decode().split()[-1]
        finally:
            process.terminate()


def _settings(folder: Path, url: str) -> Settings:
    return load_settings(
        api_key="simulated-key",
        riskos_url=url,
        archive_url=(folder / "archive").as_uri(),
        state_dir=folder / "state",
        rate=25,
        daily_quota=1_000_000,
        drain_seconds=1,
        operators=f"{OPERATOR}:{PASSWORD}",
    )


async def _draw(url: str) -> None:
    async with open_browser() as browser:
        login = {"username": OPERATOR, "password": PASSWORD}
        context = await browser.new_context(base_url=url, http_credentials=login)  # type: ignore[arg-type]
        page = await context.new_page()
        await page.set_viewport_size({"width": 1100, "height": 660})
        await page.goto("/")
        await expect(page.get_by_text(RUN).first).to_be_visible()
        # A 429 of the simulator holds the account for a second or two.
        await expect(page.get_by_role("button", name="Resume")).to_have_count(0, timeout=60_000)
        await page.screenshot(path=PICTURE)


def main() -> None:
    """Archive evaluations for a while, and draw the page."""
    with tempfile.TemporaryDirectory() as name, _serving("simulate", "--port=0", "--key=simulated-key") as riskos:
        folder = Path(name)
        (folder / "archive").mkdir()
        with local_workers(_settings(folder, riskos)) as machine:
            variables = machine.settings.as_environment()
            ids = "\n".join(demo_ids(_IDS))
            command = [*_COMMAND, "enqueue", "--run", RUN, "--queue", "backfill", "-"]
            subprocess.run(command, env=os.environ | variables, input=ids, text=True, check=True)
            with _serving("serve", "--port=0", **variables) as url:
                time.sleep(_SECONDS)
                asyncio.run(_draw(url))


if __name__ == "__main__":
    main()
