"""`retention check` validates a schedule, explains its decisions, and changes nothing."""

import json
from datetime import UTC, date, datetime
from uuid import uuid4

import pytest

from tasks.model.evaluation import Evaluation
from tasks.retention.event import EventReport, record_event
from tasks.storage.bucket import Bucket
from tests.archives import FolderEditor, eval_ids
from tests.commands import Shell
from tests.scripts.retention.conftest import ARCHIVED, REVISED, SCHEDULE, TOMBSTONE

OVERLAPPING = """
[[rule]]
name = "rest"
kind = ["attachment", "selfie"]
environment = "sandbox"
keep_for = "10y"
clock = "captured"
"""


async def test_check_prints_the_rules_in_order_and_notes_on_their_effects(shell: Shell) -> None:
    (shell.folder / "other.toml").write_text(SCHEDULE + OVERLAPPING)

    finished = await shell.run("retention", "check", "other.toml")

    assert (finished.code, finished.err) == (0, "")
    rules, notes = finished.out.splitlines()[:4], finished.out.splitlines()[4:]
    assert [" ".join(line.split()) for line in rules] == [
        "rule matches keep for clock then keep",
        "selfies kind selfie 3y archived dispose may",
        "fronts kind document_front 5y relationship_ended dispose must",
        "rest kind attachment or selfie; environment sandbox 10y captured dispose may",
    ]
    assert notes == [
        "note: rules 'selfies' and 'rest' may match the same document; then 'selfies' decides, because it comes first",
        "note: documents of 'rest' are kept if the day of their evaluation is not known",
        "note: documents of 'fronts' are kept until the event relationship_ended is reported with `retention event`",
        "note: after an event was received, nothing is due for 30d",
        "note: a document that no rule matches is kept",
    ]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (SCHEDULE + SCHEDULE, ["two rules have the name 'selfies'"]),
        (
            SCHEDULE + OVERLAPPING.replace("10y", "10 years").replace("rest", "the rest"),
            [
                "rule 'the rest': name: expected up to 48 lower-case letters, digits and hyphens",
                "rule 'the rest': keep_for: expected a number and a unit, such as 5y, 18mo or 90d",
            ],
        ),
    ],
)
async def test_check_names_each_problem_of_a_schedule(shell: Shell, text: str, problems: list[str]) -> None:
    (shell.folder / "other.toml").write_text(text)

    finished = await shell.run("retention", "check", "other.toml")

    assert (finished.code, finished.out) == (2, "")
    lines = finished.err.removeprefix("docv-archive: ").splitlines()
    assert lines == [f"other.toml: {problem}" for problem in problems]


async def test_check_reports_that_everything_is_kept_without_a_schedule(shell: Shell) -> None:
    del shell.settings["DOCV_RETENTION"]

    finished = await shell.run("retention", "check")

    assert (finished.code, finished.out) == (2, "")
    assert "there is no schedule, so every document is kept: give FILE, or set DOCV_RETENTION" in finished.err


async def explain_documents(shell: Shell, *arguments: str) -> list[str]:
    finished = await shell.run("retention", "check", *arguments)
    assert finished.code == 0, finished.err
    return [line for line in finished.out.splitlines() if line[:8].strip("0123456789abcdef") == ""]


async def test_check_explains_each_document_without_its_name(shell: Shell, bucket: Bucket) -> None:
    evaluation, at = Evaluation(ARCHIVED, "sandbox"), datetime(2026, 12, 1, tzinfo=UTC)
    before = await explain_documents(shell, "--ids", ARCHIVED, "--ids", TOMBSTONE)
    await record_event(bucket, evaluation, EventReport("relationship_ended", date(2020, 2, 29), "records"), at)
    files = FolderEditor(shell.folder / "archive").listed()

    after = await explain_documents(shell, "--ids", ARCHIVED)

    assert [line.split(" ", 3)[1::2] for line in before[:-1]] == [
        ["document_front", "rule fronts: its clock has not started (relationship_ended): kept"],
        ["document_back", "no rule matches: kept"],
        ["selfie", "rule selfies: clock archived started 2026-11-23, 3y end 2029-11-24, due 2029-11-24"],
    ]
    assert before[-1] == f"{TOMBSTONE}: the archive holds no document of it"
    assert after[0].split(" ", 3)[3] == (
        "rule fronts: clock relationship_ended started 2020-02-29, 5y end 2025-03-02, due 2027-01-01, because of the "
        "grace after its event was received"
    )
    assert "blob" not in "".join(before + after)
    assert FolderEditor(shell.folder / "archive").listed() == files


async def test_check_takes_a_sample_of_the_archive(shell: Shell) -> None:
    two = await explain_documents(shell, "--sample", "2")
    everything = await explain_documents(shell, "--sample", "100")

    ids = [{line[:36] for line in lines} for lines in (two, everything)]
    assert len(ids[0]) == 2
    assert ids[1] == set(eval_ids(4))
    assert await explain_documents(shell, "--sample", "2") == two


async def test_check_fails_if_a_named_evaluation_is_not_in_the_archive(shell: Shell) -> None:
    absent = str(uuid4())
    (shell.folder / "ids.txt").write_text(f"{absent}\nx\n{REVISED}\n")

    finished = await shell.run("retention", "check", "--ids", "ids.txt", "--json")

    assert finished.code == 1
    schedule, first, second = map(json.loads, finished.out.splitlines())
    assert [rule["name"] for rule in schedule["schedule"]["rules"]] == ["selfies", "fronts"]
    assert first == {"eval_id": absent, "documents": [], "problem": "it is not in the archive"}
    assert {each["due"] for each in second["documents"] if each["kind"] == "selfie"} == {"2029-11-24"}
    assert "ids.txt, line 2" in finished.err
