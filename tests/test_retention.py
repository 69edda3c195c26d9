"""Commands alone lead from events and legal holds to certificates, and every report then lists the disposals."""

import asyncio
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from scripts.cli import main
from tasks.storage.local_bucket import LocalBucket
from tests.archives import eval_ids, fill
from tests.scripts.retention.disposals import RetainedArchive
from tests.scripts.serve.conftest import OPERATOR, basic, running_client, settings_for
from worker.config.settings import Settings

CLOSED, HELD, LATE, TOMBSTONE = eval_ids(4)
SCHEDULE = """
[[rule]]
name = "selfies"
kind = "selfie"
keep_for = "1y"
clock = "last_contact"

[[rule]]
name = "fronts"
kind = "document_front"
keep_for = "5y"
clock = "relationship_ended"
keep = "must"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an archive in which the clocks of two evaluations started long ago."""
    root = tmp_path / "archive"
    archive = RetainedArchive(Settings(archive_url=root.as_uri()), LocalBucket(root))

    async def make() -> None:
        await fill(archive.bucket, eval_ids(4), size=100)
        for eval_id in (CLOSED, HELD):
            for event in ("last_contact", "relationship_ended"):
                await archive.report(eval_id, event, "2015-06-30", "2015-07-01")

    asyncio.run(make())
    (tmp_path / "retention.toml").write_text(SCHEDULE)
    # An embedded Redis was used here before, and no worker runs: there is nothing to wait for.
    private = tmp_path / ".docv-archive" / "private"
    private.mkdir(0o700, parents=True)
    (private / "redis.users").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCV_RETENTION", "retention.toml")
    # This process does not end after a command.
    monkeypatch.setattr("scripts.archive_access.open_bucket.CLOSE_SECONDS", 0)
    return tmp_path


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def apply_plan() -> dict[str, Any]:
    """Plan and apply; return the result of the application."""
    run("retention", "plan", "--out", "plan.jsonl")
    facts: dict[str, Any] = json.loads(run("retention", "apply", "plan.jsonl", "--yes", "--json").stdout)
    return facts


def documents_by_state() -> dict[str, int]:
    states = json.loads(run("retention", "plan", "--json").stdout)["states"]
    return {state: counts["documents"] for state, counts in states.items() if counts["documents"]}


def test_every_report_shows_the_disposals_before_and_after_a_legal_hold(folder: Path, redis_url: str) -> None:
    run("retention", "event", "--event", "last_contact", "--date", "2020-01-01", LATE)
    run("legal-hold", "create", "acme-v-bolt", "--reason", "case 17")
    run("legal-hold", "add", "acme-v-bolt", HELD)
    # One evaluation has documents of three revisions. The matter also holds back documents of a must rule.
    assert documents_by_state() == {"due": 2, "hold": 6, "grace": 1, "clock": 1, "kept": 5}

    first = apply_plan()
    assert (first["documents"], first["failed"]) == (2, 0)
    assert "under the legal hold acme-v-bolt" in run("erase", HELD, "--reason", "x", "--yes", code=1).output

    run("legal-hold", "release", "acme-v-bolt", "--reason", "settled")
    assert documents_by_state() == {"due": 6, "grace": 1, "clock": 1, "kept": 5}
    second = apply_plan()
    assert (second["documents"], second["failed"]) == (6, 0)

    run("verify", "--grace", "0")
    certificates = [each for applied in (first, second) for each in applied["certificates"]]
    assert sorted((each["rule"], each["documents"]) for each in certificates) == [
        *(("fronts", 1), ("fronts", 3)),
        *(("selfies", 1), ("selfies", 3)),
    ]
    (folder / "ids.txt").write_text("\n".join(eval_ids(4)))
    rows = list(csv.DictReader(io.StringIO(run("audit", "ids.txt").stdout)))
    assert [(row["outcome"], row["documents"], row["disposed"]) for row in rows] == [
        *(("archived", "1", "2"), ("archived", "3", "6"), ("archived", "3", "0")),
        ("no_documents", "0", "0"),
    ]
    run("export", CLOSED, "--to", "out", "--strict")
    listed = csv.DictReader(io.StringIO((folder / "out" / CLOSED / "names.csv").read_text("utf-8-sig")))
    assert [(row["kind"], row["file"] != "", row["disposed"] != "") for row in listed] == [
        ("document_back", True, False),
        ("document_front", False, True),
        ("selfie", False, True),
    ]
    shown = json.loads(run("show", CLOSED, "--json").stdout)
    assert {each["receipt"] for each in shown["disposals"]} == {each["key"] for each in first["certificates"]}
    page = asyncio.run(get_page(settings_for(redis_url, folder), HELD))
    assert page.partition("<h2>Disposed of</h2>")[2].partition("</table>")[0].count("relationship_ended") == 3


async def get_page(settings: Settings, eval_id: str) -> str:
    """Return the page of an evaluation, as an operator sees it."""
    async with running_client(settings) as client:
        answer = await client.send("GET", f"/page/evaluation?id={eval_id}", Authorization=basic(OPERATOR))
        return answer.body.decode()
