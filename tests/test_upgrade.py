"""docs/upgrade.md has the right order, and the right names for the parts of an installation."""

import re
from pathlib import Path

from tests.test_deploy import COMPOSE
from tests.test_kubernetes import DEPLOYMENTS
from tests.test_systemd import SERVICES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "upgrade.md").read_text("utf-8")
TYPED = [line.strip() for block in re.findall(r"(?ms)^ *```\n(.*?)^ *```$", PAGE) for line in block.splitlines()]


def test_workers_are_upgraded_before_serve_everywhere() -> None:
    composed = [line for line in TYPED if line.startswith("docker compose") and " up " in line]
    assert [line.split()[-2:] for line in composed] == [["live", "backfill"], ["-d", "serve"]]
    assert {"live", "backfill", "serve"} <= COMPOSE["services"].keys()
    rolled = re.findall(r"rollout status deploy/docv-archive-(\w+)", PAGE)
    assert rolled[-1] == "serve"
    assert set(rolled) == DEPLOYMENTS.keys()
    restarted = re.findall(r"docv-archive-(\w+)(?:@1)?", " ".join(line for line in TYPED if "systemctl" in line))
    assert restarted[-1] == "serve"
    assert set(restarted) == set(SERVICES)


def test_the_page_is_linked() -> None:
    for page in ("README.md", "docs/operations.md"):
        assert "upgrade.md)" in (ROOT / page).read_text("utf-8")
