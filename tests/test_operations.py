"""What docs/operations.md has people type at night can be typed, and what links to it arrives."""

import math
import re
import shlex
from pathlib import Path

import pytest

from tests.command_line import parse
from tests.test_deploy import COMPOSE, KNOWN, SETTING
from tests.test_kubernetes import DEPLOYMENTS, of_kind
from worker.config.settings import Settings

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")
BLOCKS = "".join(re.findall(r"^```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
INLINE = re.findall(r"`([^`]+)`", re.sub(r"^```\n.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL))
TYPED = [" ".join(line.split()) for line in [*BLOCKS.splitlines(), *INLINE]]
OURS = sorted({line for line in TYPED if line.startswith("docv-archive ") and not line.startswith("docv-archive …")})
# What alert rules link to.
RUNBOOKS = {
    "key-expired",
    "quota-spent",
    "redis-lost",
    "only-refusals",
    "bucket-refused",
    "stuck-queue",
    "dead-letters",
    "live-lag",
    "worker-gone",
}


def anchors() -> set[str]:
    """The anchors of the page's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", re.sub(r"^```\n.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("line", OURS)
def test_the_command_line_knows_what_the_page_has_typed(line: str) -> None:
    words = shlex.split(line, comments=True)
    parse(words[1 : words.index(">") if ">" in words else None])


def test_the_page_has_typed_what_an_operator_needs() -> None:
    verbs = {line.split()[1] for line in OURS}
    assert verbs >= {"status", "doctor", "hold", "resume", "rate", "dead-letters", "backfill", "audit", "verify"}


def test_every_alert_finds_its_runbook() -> None:
    assert anchors() >= RUNBOOKS


def test_every_link_within_the_page_arrives() -> None:
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= anchors()


@pytest.mark.parametrize("name", sorted(RUNBOOKS))
def test_a_runbook_says_what_you_see_why_what_to_do_and_when_it_is_over(name: str) -> None:
    title = name.replace("-", " ").capitalize()
    (text,) = re.findall(rf"(?ms)^## {title}\n(.*?)^## ", PAGE)
    assert "**You see**" in text
    assert "**Why" in text
    assert "```\n" in text or "**Do**" in text
    assert "**Over**" in text


def test_the_parts_of_an_installation_are_called_as_they_are() -> None:
    assert set(re.findall(r"deploy/(docv-archive-\w+)", PAGE)) == {
        each["metadata"]["name"] for each in DEPLOYMENTS.values()
    }
    assert set(re.findall(r"-n ([\w-]+) (?:exec|get|logs|create|rollout|scale)", PAGE)) == {*of_kind("Namespace")}
    composed = re.findall(r"docker compose (?:exec|logs|up -d(?: --force-recreate)?) ((?:[a-z]\w* ?)+)", BLOCKS)
    assert {name for names in composed for name in names.split()} <= {*COMPOSE["services"]}


def test_every_setting_that_is_named_exists() -> None:
    assert set(SETTING.findall(PAGE)) <= KNOWN


def test_the_table_of_workers_is_the_sum_above_it() -> None:
    in_flight = Settings.model_fields["concurrency"].default
    rows = re.findall(
        r"(?m)^\| (\d+)/s \| [\d,]+(?: in flight)?: (\d+)(?: workers?)? \| [\d,]+(?: in flight)?: (\d+) \|$", PAGE
    )
    assert len(rows) == 3
    for rate, usual, slow in rows:
        assert [int(usual), int(slow)] == [math.ceil(int(rate) * seconds / in_flight) for seconds in (2, 10)]


def test_the_costs_of_a_million_are_what_the_formula_gives() -> None:
    documents, gigabytes, tags, tag, manifest = 3, 750, 3, 0.0065 / 10_000, 0.005 / 1_000
    rows = re.findall(r"(?m)^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \| .*\*\*([\d.]+)\*\* \| .*\*\*([\d.]+)\*\* \|$", PAGE)
    assert [name for name, *_ in rows] == ["STANDARD", "STANDARD_IA", "GLACIER_IR"]
    for _, put, month, once_told, month_told in rows:
        kms = (documents + 1) / 100 * 0.03 / 10_000
        once = 1e6 * (documents * float(put) / 1_000 + manifest + 0.0004 / 1_000 + kms)
        assert float(once_told) == pytest.approx(once, abs=0.01)
        a_month = gigabytes * float(month) + 1e6 * (documents + 1) * tags * tag
        assert float(month_told) == pytest.approx(a_month, abs=0.01)
