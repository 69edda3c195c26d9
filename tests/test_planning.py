"""The sums of docs/planning.md add up."""

import math
import re
from pathlib import Path

import pytest

from worker.config.settings import Settings

PAGE = (Path(__file__).parents[1] / "docs" / "planning.md").read_text("utf-8")


def test_the_table_of_workers_follows_from_the_formula() -> None:
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
    for _, put, month, documented_once, documented_month in rows:
        kms = (documents + 1) / 100 * 0.03 / 10_000
        once = 1e6 * (documents * float(put) / 1_000 + manifest + 0.0004 / 1_000 + kms)
        assert float(documented_once) == pytest.approx(once, abs=0.01)
        monthly = gigabytes * float(month) + 1e6 * (documents + 1) * tags * tag
        assert float(documented_month) == pytest.approx(monthly, abs=0.01)
