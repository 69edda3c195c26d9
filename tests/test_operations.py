"""docs/operations.md has every runbook, its names for the parts of an installation are right, and its sums add up."""

import math
import re
import shlex
from pathlib import Path

import pytest

from tests import repository
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
# The runbooks that alert rules link to.
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
    "wrong-secrets",
    "unreadable-bundles",
    "refused-evaluations",
    "alarming-objects",
    "nightly-checks",
    "serve-errors",
    "rejected-messages",
    "event-loop-lag",
    "notifications-fail",
}


LISTS = [line for line in TYPED if re.search(r"docv-archive backfill (-|s3:\S+) --run", line)]


@pytest.mark.parametrize("line", LISTS)
def test_a_list_reaches_a_backfill_in_every_installation(line: str) -> None:
    command, _, file = line.partition(" < ")
    words = shlex.split(command[command.rindex("docv-archive backfill") :])
    assert parse(words[1:]).params["source"] == ("-" if file else "s3://kyc-lists/customers.csv")
    if file:  # without these, the command's standard input is empty
        assert re.search(r"docker compose exec -T |kubectl \S+ \S+ exec -i |systemd-run --pipe ", line)


def test_the_page_shows_a_list_on_standard_input_and_in_s3() -> None:
    tools = sorted((line.split()[0], " < " in line) for line in LISTS)
    assert tools == [("docker", False), ("docker", True), ("kubectl", False), ("kubectl", True), ("systemd-run", True)]


def test_the_page_shows_every_command_that_an_operator_needs() -> None:
    verbs = {line.split()[1] for line in OURS}
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


def test_the_page_uses_the_right_names_for_the_parts_of_an_installation() -> None:
    assert set(re.findall(r"deploy/(docv-archive-\w+)", PAGE)) == {
        each["metadata"]["name"] for each in DEPLOYMENTS.values()
    }
    assert set(re.findall(r"-n ([\w-]+) (?:exec|get|logs|create|rollout|scale)", PAGE)) == {*of_kind("Namespace")}
    composed = re.findall(
        r"docker compose (?:exec|logs|up -d(?: --force-recreate)?) ((?:[a-z]\w* ?)+)",
        re.sub(" docv-archive .*", "", BLOCKS),
    )
    assert {name for names in composed for name in names.split()} <= {*COMPOSE["services"]}


def test_every_named_setting_exists() -> None:
    assert set(SETTING.findall(PAGE)) <= KNOWN


def test_the_table_of_workers_is_the_sum_above_it() -> None:
    in_flight = Settings.model_fields["concurrency"].default
    rows = re.findall(
        r"(?m)^\| (\d+)/s \| [\d,]+(?: in flight)?: (\d+)(?: workers?)? \| [\d,]+(?: in flight)?: (\d+) \|$", PAGE
    )
    assert len(rows) == 3
    for rate, usual, slow in rows:
        assert [int(usual), int(slow)] == [math.ceil(int(rate) * seconds / in_flight) for seconds in (2, 10)]


def test_the_costs_of_a_million_follow_from_the_formula() -> None:
    documents, gigabytes, tags, tag, manifest = 3, 750, 3, 0.0065 / 10_000, 0.005 / 1_000
    rows = re.findall(r"(?m)^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \| .*\*\*([\d.]+)\*\* \| .*\*\*([\d.]+)\*\* \|$", PAGE)
    assert [name for name, *_ in rows] == ["STANDARD", "STANDARD_IA", "GLACIER_IR"]
    for _, put, month, once_told, month_told in rows:
        kms = (documents + 1) / 100 * 0.03 / 10_000
        once = 1e6 * (documents * float(put) / 1_000 + manifest + 0.0004 / 1_000 + kms)
        assert float(once_told) == pytest.approx(once, abs=0.01)
        a_month = gigabytes * float(month) + 1e6 * (documents + 1) * tags * tag
        assert float(month_told) == pytest.approx(a_month, abs=0.01)
