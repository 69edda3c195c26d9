"""The commands `retention plan`, `apply` and `status`: their output, their confirmation, and when they stop."""

import json
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from scripts.retention.apply_command import ApplyOptions, apply_due
from tasks.ledger.last_success import LastSuccess, NightlyCommand
from tasks.storage.bucket import Bucket
from tests.archives import eval_ids
from tests.commands import Shell
from tests.scripts.retention.disposals import OPERATOR, RetainedArchive, no_wait
from worker.config.settings import Settings

SCHEDULE = """
[[rule]]
name = "selfies"
kind = "selfie"
keep_for = "1y"
clock = "last_contact"
"""
PLAIN, REVISED, THIRD, TOMBSTONE = eval_ids(4)


@pytest.fixture
async def shell(bucket: Bucket, tmp_path: Path) -> Shell:
    archive = RetainedArchive(Settings(archive_url=(tmp_path / "archive").as_uri()), bucket)
    for eval_id in (PLAIN, REVISED):
        await archive.report(eval_id, "last_contact", "2020-01-01", "2020-01-02")
    (tmp_path / "retention.toml").write_text(SCHEDULE)
    # An embedded Redis was used here before, and no worker is running, so the commands do not wait.
    private = tmp_path / ".docv-archive" / "private"
    private.mkdir(0o700, parents=True)
    (private / "redis.users").touch()
    return Shell(tmp_path, {"DOCV_RETENTION": "retention.toml"})


def count_selfies(shell: Shell) -> int:
    return len(list(shell.folder.glob("archive/sandbox/*/selfie/*")))


async def test_a_plan_is_written_and_applied_after_confirmation(shell: Shell) -> None:
    planned = await shell.run("retention", "plan", "--out", "plan.jsonl.gz")
    assert (planned.code, planned.err) == (0, "")
    assert "4 documents" in planned.out
    before = count_selfies(shell)

    refused = await shell.run("retention", "apply", "plan.jsonl.gz", given="n\n")
    assert (refused.code, refused.out, count_selfies(shell)) == (1, "", before)
    assert "4 documents" in refused.err

    applied = await shell.run("retention", "apply", "plan.jsonl.gz", "--by", "records", given="y\n")
    assert applied.code == 0, applied.err
    assert "waiting" not in applied.err
    assert count_selfies(shell) == before - 4
    (certificate,) = (shell.folder / "archive" / "receipts" / "disposals" / "sandbox").iterdir()
    facts = json.loads(certificate.read_text())
    assert (facts["rule"], facts["by"], len(facts["documents"])) == ("selfies", "records", 4)
    assert f"the certificate is receipts/disposals/sandbox/{certificate.name}" in applied.out

    again = await shell.run("retention", "apply", "plan.jsonl.gz", "--yes", "--json")
    assert (again.code, json.loads(again.out)["documents"]) == (0, 4)
    assert json.loads(certificate.read_text()) == facts


async def test_a_dry_run_needs_no_confirmation_and_changes_nothing(shell: Shell) -> None:
    await shell.run("retention", "plan", "--out", "plan.jsonl")
    before = count_selfies(shell)

    for arguments in (("plan.jsonl",), ("--unattended",)):
        finished = await shell.run("retention", "apply", *arguments, "--dry-run", "--json")
        assert (finished.code, json.loads(finished.out)["documents"]) == (0, 4), finished.err

    assert count_selfies(shell) == before
    assert not (shell.folder / "archive" / "receipts").exists()


async def test_an_unattended_application_stops_before_it_disposes_of_more_than_the_schedule_allows(
    shell: Shell,
) -> None:
    (shell.folder / "retention.toml").write_text(f"max_per_run = 1\n{SCHEDULE}")
    before = count_selfies(shell)

    stopped = await shell.run("retention", "apply", "--unattended")

    assert (stopped.code, stopped.out, count_selfies(shell)) == (1, "", before)
    assert "2 evaluations have documents that are due, and max_per_run allows 1" in stopped.err
    (shell.folder / "retention.toml").write_text(f"max_per_run = 2\n{SCHEDULE}")
    assert (await shell.run("retention", "apply", "--unattended")).code == 0
    assert count_selfies(shell) == before - 4


async def test_a_plan_of_another_archive_is_refused(shell: Shell) -> None:
    await shell.run("retention", "plan", "--out", "plan.jsonl")
    (shell.folder / "other").mkdir()

    elsewhere = Shell(shell.folder, shell.settings | {"DOCV_ARCHIVE_URL": (shell.folder / "other").as_uri()})
    finished = await elsewhere.run("retention", "apply", "plan.jsonl", "--yes")

    assert (finished.code, finished.out) == (2, "")
    assert "the plan was made for file:" in finished.err


async def test_apply_warns_when_the_schedule_has_changed_since_the_plan(shell: Shell) -> None:
    await shell.run("retention", "plan", "--out", "plan.jsonl")
    (shell.folder / "retention.toml").write_text(SCHEDULE.replace("1y", "forever").replace("clock", "# clock"))
    before = count_selfies(shell)

    finished = await shell.run("retention", "apply", "plan.jsonl", "--yes", "--json")

    assert (finished.code, count_selfies(shell)) == (0, before)
    assert json.loads(finished.out)["held_back"] == {"kept": 4}
    assert "the schedule has changed" in finished.err


@pytest.mark.parametrize("arguments", [(), ("plan.jsonl", "--unattended"), ("plan.jsonl", "--account", "default")])
async def test_apply_requires_either_a_plan_or_unattended(shell: Shell, arguments: tuple[str, ...]) -> None:
    finished = await shell.run("retention", "apply", *arguments)
    assert (finished.code, finished.out) == (2, "")


@pytest.mark.parametrize("command", [("plan",), ("status",), ("apply", "--unattended")])
async def test_plan_status_and_apply_are_refused_without_a_schedule(shell: Shell, command: tuple[str, ...]) -> None:
    del shell.settings["DOCV_RETENTION"]
    finished = await shell.run("retention", *command)
    assert (finished.code, finished.out) == (2, "")
    assert "set DOCV_RETENTION" in finished.err


async def test_plan_writes_counts_as_json_csv_and_html(shell: Shell) -> None:
    files = ("--csv", "counts.csv", "--html", "counts.html")
    finished = await shell.run("retention", "plan", "--until", "2027-01-01", "--json", *files)

    assert finished.code == 0, finished.err
    facts = json.loads(finished.out)
    assert (facts["until"], facts["states"]["due"]["documents"]) == ("2027-01-01", 4)
    lines = (shell.folder / "counts.csv").read_text().splitlines()
    assert lines[0] == "state,rule,kind,month,documents,bytes"
    assert len(lines) == 1 + len(facts["rows"])
    page = (shell.folder / "counts.html").read_text()
    assert "<td>selfies</td>" in page
    assert "2027-01-01" in page


async def test_plan_exits_with_1_when_a_manifest_is_damaged(shell: Shell) -> None:
    (shell.folder / "archive" / "sandbox" / THIRD / "manifest.json").write_text("{}")

    finished = await shell.run("retention", "plan")

    assert finished.code == 1
    assert "1 evaluation with a damaged manifest or event" in finished.err


async def test_status_shows_due_documents_and_the_last_application(shell: Shell) -> None:
    before = await shell.run("retention", "status", "--json")
    assert (before.code, json.loads(before.out)["last"]) == (0, None)
    assert "there is no certificate yet" in (await shell.run("retention", "status")).out

    await shell.run("retention", "apply", "--unattended")

    facts: dict[str, Any] = json.loads((await shell.run("retention", "status", "--json")).out)
    assert facts["states"]["due"]["documents"] == 0
    assert (facts["last"]["rule"], facts["last"]["documents"]) == ("selfies", 4)
    assert 0 <= facts["last"]["age_seconds"] < 300
    assert "4 documents of rule selfies" in (await shell.run("retention", "status")).out


async def test_an_unattended_application_records_its_success(
    shell: Shell, redis: Redis, redis_url: str, tmp_path: Path, bucket: Bucket
) -> None:
    settings = Settings(archive_url=(tmp_path / "archive").as_uri()).with_redis(redis_url)
    archive = RetainedArchive(settings, bucket)
    last = LastSuccess(redis, NightlyCommand.RETENTION)

    assert await apply_due(archive.survey("2027-01-01"), ApplyOptions(OPERATOR, 1_000, no_wait, dry_run=True)) == 0
    assert await last.get() == 0
    assert await apply_due(archive.survey("2027-01-01"), ApplyOptions(OPERATOR, 1_000, no_wait)) == 0
    assert await last.get() > 0
