"""docs/operations.md has a runbook for every alert, and every runbook has its parts."""

import re
from pathlib import Path

import pytest

from tests import repository

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")
ALERTS = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text("utf-8")
RUNBOOKS = set(re.findall(r"operations\.md#([\w-]+)", ALERTS))


def test_the_page_shows_every_command_that_an_operator_needs() -> None:
    verbs = set(re.findall(r"(?m)^docv-archive ([\w-]+)", PAGE))
    assert verbs >= {"status", "doctor", "hold", "resume", "rate", "dead-letters", "backfill", "audit", "verify"}


def test_every_alert_has_its_runbook() -> None:
    assert repository.anchors(ROOT / "docs" / "operations.md") >= RUNBOOKS


@pytest.mark.parametrize("name", sorted(RUNBOOKS))
def test_a_runbook_has_symptoms_causes_actions_and_an_end(name: str) -> None:
    title = name.replace("-", " ").capitalize()
    (text,) = re.findall(rf"(?ms)^## {title}\n(.*?)^## ", PAGE)
    assert "**You see**" in text
    assert "**Why" in text
    assert "```\n" in text or "**Do**" in text
    assert "**Over**" in text
