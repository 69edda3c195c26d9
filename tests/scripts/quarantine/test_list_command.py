"""`quarantine list` selects bundles by evaluation, run, cause and age, and changes nothing."""

import csv
import hashlib
import io
import json
import os
from pathlib import Path

import pytest

from tasks.storage.local_bucket import LocalBucket
from tests.archives import store_run
from tests.commands import Shell
from tests.disposals import dispose
from tests.scripts.quarantine.conftest import FILES, FORGED, GARBAGE, HEALED, NEVER, WHOLE, evaluation
from tests.zips import zip_of

DAY = 86_400


@pytest.fixture
def shell(bucket: LocalBucket, tmp_path: Path) -> Shell:
    assert bucket
    return Shell(tmp_path)


async def list_ids(shell: Shell, *arguments: str) -> list[str]:
    finished = await shell.run("quarantine", "list", "--json", *arguments)
    assert (finished.code, finished.err) == (0, "")
    return [json.loads(line)["eval_id"] for line in finished.out.splitlines()]


async def test_list_prints_the_facts_of_each_bundle(shell: Shell) -> None:
    finished = await shell.run("quarantine", "list", "--json")
    line = json.loads(finished.out.splitlines()[0])
    data = zip_of(FILES)
    assert line.pop("quarantined_at").endswith("Z")
    assert line == {
        "eval_id": WHOLE,
        "outcome": "unreadable",
        "causes": ["local_header_differs"],
        "run": "q3",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "sealed_with": None,
    }


async def test_list_omits_evaluations_archived_since_unless_requested(shell: Shell) -> None:
    assert await list_ids(shell) == [WHOLE, FORGED, GARBAGE]
    assert await list_ids(shell, "--all") == [WHOLE, FORGED, GARBAGE, HEALED]
    assert await list_ids(shell, HEALED.upper(), NEVER, WHOLE) == [HEALED, WHOLE]


async def test_list_leaves_out_bundles_of_evaluations_whose_documents_were_disposed_of(
    shell: Shell, bucket: LocalBucket
) -> None:
    await dispose(bucket, evaluation(HEALED))
    assert HEALED not in await list_ids(shell)
    assert await list_ids(shell, "--all") == [WHOLE, FORGED, GARBAGE, HEALED]


@pytest.mark.parametrize("verb", [("list",), ("get", "--to", "bundles")], ids=lambda verb: verb[0])
async def test_a_misspelled_cause_is_refused_with_a_suggestion(shell: Shell, verb: tuple[str, ...]) -> None:
    finished = await shell.run("quarantine", *verb, "--cause", "local_header_difers")
    assert (finished.code, finished.out) == (2, "")
    assert "did you mean local_header_differs?" in finished.err


async def test_bundles_are_selected_by_cause_run_and_age(shell: Shell, bucket: LocalBucket) -> None:
    [path] = (shell.folder / "archive" / "quarantine" / "sandbox" / FORGED).iterdir()
    os.utime(path, (path.stat().st_mtime - 8 * DAY,) * 2)
    assert await list_ids(shell, "--older-than", "7d") == [FORGED]
    assert await list_ids(shell, "--cause", "local_header_differs") == [WHOLE, FORGED, GARBAGE]
    assert await list_ids(shell, "--cause", "wrong_crc") == []
    await store_run(bucket, [GARBAGE, NEVER], "q4")
    assert await list_ids(shell, "--run", "q4") == [GARBAGE]
    assert await list_ids(shell, "--run", "q3") == [WHOLE, FORGED, GARBAGE]
    assert await list_ids(shell, "--run", "q5") == []


async def test_csv_and_table_show_the_same_bundles(shell: Shell) -> None:
    rows = list(csv.DictReader(io.StringIO((await shell.run("quarantine", "list", "--csv")).out)))
    assert [(row["eval_id"], row["causes"]) for row in rows] == [
        (each, "local_header_differs") for each in (WHOLE, FORGED, GARBAGE)
    ]
    table = (await shell.run("quarantine", "list")).out
    assert all(each in table for each in (WHOLE, FORGED, GARBAGE))
    assert table.endswith("3 in all: 3 local_header_differs\n")
    assert (await shell.run("quarantine", "list", NEVER)).out == "no bundle in quarantine matches\n"


async def test_list_shows_a_bundle_without_a_manifest_and_ignores_other_keys(shell: Shell) -> None:
    (shell.folder / "archive" / "sandbox" / GARBAGE / "manifest.json").write_text("{}")
    for key in (f"{WHOLE}/x.txt", "no-id/x.zip", "x.zip"):
        path = shell.folder / "archive" / "quarantine" / "sandbox" / key
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    finished = await shell.run("quarantine", "list", "--json")
    outcomes = {line["eval_id"]: line["outcome"] for line in map(json.loads, finished.out.splitlines())}
    assert outcomes == {WHOLE: "unreadable", FORGED: "unreadable", GARBAGE: "missing"}


@pytest.mark.parametrize("arguments", [("--csv", "--json"), ("no-id",), ("--run", "/"), ("--older-than", "x")])
async def test_wrong_arguments_are_refused(shell: Shell, arguments: tuple[str, ...]) -> None:
    finished = await shell.run("quarantine", "list", *arguments)
    assert (finished.code, finished.out) == (2, "")
