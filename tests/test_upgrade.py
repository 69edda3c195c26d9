"""The commands of docs/upgrade.md exist, and its names for the parts of an installation are right."""

import re
import shlex
from pathlib import Path

import pytest

from tests.command_line import parse
from tests.test_deploy import COMPOSE
from tests.test_kubernetes import DEPLOYMENTS
from tests.test_operations import anchors
from tests.test_systemd import SERVICES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "upgrade.md").read_text("utf-8")
TYPED = [line.strip() for block in re.findall(r"(?ms)^ *```\n(.*?)^ *```$", PAGE) for line in block.splitlines()]


OURS = sorted(
    {line[found.end() :] for line in TYPED if (found := re.search(r"(?:^|-- |live )(?=docv-archive )", line))}
)


@pytest.mark.parametrize("line", OURS)
def test_the_command_line_accepts_every_command_of_the_page(line: str) -> None:
    parse(shlex.split(line)[1:])


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


def test_the_page_is_linked_and_its_links_work() -> None:
    for page in ("README.md", "docs/operations.md"):
        assert "upgrade.md)" in (ROOT / page).read_text("utf-8")
    assert set(re.findall(r"\]\(operations\.md#([\w-]+)\)", PAGE)) <= anchors()
    for path in re.findall(r"\]\((\.\./[^)#]+)\)", PAGE):
        assert (ROOT / "docs" / path).exists()
