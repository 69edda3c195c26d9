"""`audit`, as a user runs it: it needs nothing but the archive."""

import csv
import io
import json
from pathlib import Path

import pytest

from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Evidence, Outcome
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.open_bucket import open_bucket
from tests.archived_bundles import archive_bundle, archive_refusal, archive_tombstone
from tests.archives import PREFIX, eval_ids, fill
from tests.commands import Shell
from tests.conftest import S3
from tests.zips import zip_of
from worker.clients.archive import open_archive
from worker.config.settings import Settings

IDS = eval_ids(10)
UNKNOWN = eval_ids(1, seed=5)[0]


@pytest.fixture
async def shell(tmp_path: Path) -> Shell:
    await fill(LocalBucket(tmp_path / "archive"), IDS)
    return Shell(tmp_path)


async def test_what_is_archived_is_told_from_the_archive_alone(shell: Shell) -> None:
    finished = await shell.run("audit", "-", given="\n".join(IDS))
    rows = list(csv.DictReader(io.StringIO(finished.out)))
    assert finished.code == 0, finished.err
    assert [row["eval_id"] for row in rows] == IDS
    assert [row["outcome"] for row in rows] == [
        {3: "no_documents", 6: "unreadable"}.get(number, "archived") for number in range(10)
    ]
    assert finished.err == "10 evaluations: 8 archived, 1 no_documents, 1 unreadable; 38 documents\n"
    assert not (shell.folder / ".docv-archive" / "redis").exists()


async def test_why_there_are_no_documents_is_told_for_each_and_together(tmp_path: Path) -> None:
    evidence = [(Evidence.MILITARY_ID,), (Evidence.UNDER_AGE,), (Evidence.NO_DOCV_STEP,), (), (Evidence.UNDER_AGE,)]
    for eval_id, known in zip(IDS, evidence, strict=False):
        await archive_tombstone(LocalBucket(tmp_path / "archive"), Evaluation(eval_id, "sandbox"), known)
    finished = await Shell(tmp_path).run("audit", "-", given="\n".join(IDS[: len(evidence)]))
    rows = list(csv.DictReader(io.StringIO(finished.out)))
    assert [row["reason"] for row in rows] == ["military", "minor", "no_docv_step", "retention_or_unknown", "minor"]
    told = "(no documents: 1 military, 2 minor, 1 no_docv_step, 1 retention_or_unknown)"
    assert finished.err == f"5 evaluations: 5 no_documents; 0 documents {told}\n"


async def test_a_program_gets_the_lines_of_the_contract(shell: Shell) -> None:
    (shell.folder / "ids.csv").write_text(f"who,evaluation\na,{IDS[0].upper()}\nb,{UNKNOWN}\nc,{IDS[0]}\n")
    finished = await shell.run("audit", "ids.csv", "--column", "evaluation", "--json")
    first, second = (json.loads(line) for line in finished.out.splitlines())
    assert finished.code == 1
    assert list(first)[:5] == ["eval_id", "outcome", "documents", "bytes", "manifest"]
    manifest = f"sandbox/{IDS[0]}/manifest.json"
    assert (first["outcome"], first["documents"], first["manifest"]) == ("archived", 3, manifest)
    assert (second["outcome"], second["documents"], second["bytes"], second["manifest"]) == ("missing", 0, 0, None)
    assert "again: 1; each is looked at once" in finished.err


async def test_a_damaged_manifest_or_a_bad_line_is_not_well(shell: Shell) -> None:
    (shell.folder / "ids.txt").write_text(IDS[0])
    assert (await shell.run("audit", "ids.txt")).code == 0
    (shell.folder / "bad.txt").write_text(f"{IDS[0]}\nno-id\n")
    bad = await shell.run("audit", "bad.txt")
    assert (bad.code, "line 2: 'no-id'" in bad.err) == (1, True)
    (shell.folder / "archive" / "sandbox" / IDS[0] / "manifest.json").write_text("{")
    damaged = await shell.run("audit", "ids.txt", "--json")
    assert (damaged.code, json.loads(damaged.out)["cause"]) == (1, "alarming_object")
    assert "1 of those have a damaged manifest" in damaged.err


async def test_an_erased_evaluation_is_erased_and_all_right(shell: Shell) -> None:
    unreadable = IDS[6]
    assert (await shell.run("erase", IDS[0], unreadable, "--reason", "request 4711", "--yes")).code == 0
    finished = await shell.run("audit", "-", "--json", given=f"{IDS[0]}\n{unreadable}\n{IDS[1]}")
    rows = [json.loads(line) for line in finished.out.splitlines()]
    assert [(row["outcome"], row["cause"], row["documents"]) for row in rows] == [
        ("erased", "erased", 0),
        ("erased", "erased", 0),
        ("archived", None, 9),
    ]
    assert (finished.code, "3 evaluations: 1 archived, 2 erased; 9 documents" in finished.err) == (0, True)


async def test_an_archive_in_s3_is_asked_or_its_inventory_is(s3: S3, tmp_path: Path) -> None:
    url = f"s3://{s3.bucket}/{PREFIX}"
    store = open_archive(Settings(archive_url=url, s3_endpoint=s3.endpoint))
    await fill(open_bucket(store), IDS[:2])
    shell = Shell(tmp_path, {"DOCV_ARCHIVE_URL": url, "DOCV_S3_ENDPOINT": s3.endpoint})
    given = "\n".join([*IDS[:2], UNKNOWN])
    asked = await shell.run("audit", "-", "--json", given=given)
    assert [json.loads(line)["outcome"] for line in asked.out.splitlines()] == ["archived", "archived", "missing"]
    listed = s3.client.list_objects_v2(Bucket=s3.bucket)["Contents"]
    (tmp_path / "inventory.csv").write_text("".join(f"{s3.bucket},{each['Key']},{each['Size']}\n" for each in listed))
    looked = await shell.run("audit", "-", "--json", "--inventory", "inventory.csv", given=given)
    rows = [json.loads(line) for line in looked.out.splitlines()]
    assert (asked.code, looked.code) == (1, 1)
    assert [row["outcome"] for row in rows] == ["present", "present", "missing"]
    held = [(row["documents"], row["bytes"]) for row in rows]
    assert held == [(row["documents"], row["bytes"]) for row in map(json.loads, asked.out.splitlines())]
    assert [documents for documents, _ in held] == [3, 9, 0]
    assert [row["at_source"] for row in rows] == [None, None, None]


async def test_what_only_the_archive_has_is_listed(shell: Shell) -> None:
    bucket, ids = LocalBucket(shell.folder / "archive"), eval_ids(4, seed=7)
    bundle = zip_of({"front.jpg": b"front", "selfie": b"selfie"})
    for eval_id in ids:
        await archive_bundle(bucket, bundle, Evaluation(eval_id, "sandbox"))
    await archive_tombstone(bucket, Evaluation(ids[0], "sandbox"))
    await archive_bundle(bucket, zip_of({"selfie": b"selfie"}), Evaluation(ids[1], "sandbox"))
    await archive_refusal(bucket, Outcome.NOT_FOUND, 404, Evaluation(ids[2], "sandbox"))
    finished = await shell.run("audit", "-", "--gone-at-source", "--json", given="\n".join([*ids, *IDS, UNKNOWN]))
    rows = [json.loads(line) for line in finished.out.splitlines()]
    assert [(row["eval_id"], row["outcome"], row["documents"], row["at_source"]) for row in rows] == [
        (ids[0], "archived", 2, "gone"),
        (ids[1], "archived", 2, "partly_gone"),
    ]
    assert finished.code == 1, "one is missing"
    assert "2 gone or partly gone at RiskOS; for 10 it is not known what RiskOS has" in finished.err
    nothing = await shell.run("audit", "-", "--gone-at-source", given=ids[3])
    assert (nothing.code, len(nothing.out.splitlines())) == (0, 1), "the header alone"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("missing.txt",), 2, "missing.txt"),
        (("empty.txt",), 2, "there is no evaluation ID in it"),
        (("ids.txt",), 3, "there is no archive here that can be read"),
        (("ids.txt", "--inventory", "ids.txt"), 2, "names a folder"),
        (("ids.txt", "--inventory", "missing.csv"), 2, "missing.csv"),
        (("ids.txt", "--inventory", "ids.txt", "--gone-at-source"), 2, "an inventory does not say what RiskOS has"),
    ],
)
async def test_what_cannot_be_asked_is_one_sentence(
    tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "ids.txt").write_text(IDS[0])
    (tmp_path / "empty.txt").write_text("\n")
    finished = await Shell(tmp_path).run("audit", *arguments)
    assert finished.code == code, finished.err
    assert said in finished.err
    assert "Traceback" not in finished.err
    assert not (tmp_path / "archive").exists()
