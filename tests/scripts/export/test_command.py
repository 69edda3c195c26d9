"""`export`, as a user runs it: it exports exactly what RiskOS served, completely or not at all."""

import asyncio
import csv
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from uuid import uuid4

import pytest

from scripts.simulator.bundles import bundle_of
from scripts.simulator.expected import expected_outcome
from scripts.simulator.options import SimulatorOptions
from scripts.simulator.scenarios import Scenario, eval_id_for, scenario_of
from scripts.simulator.server import start_simulator
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Evidence, Outcome
from tasks.storage.local_bucket import LocalBucket
from tests.archived_bundles import EVALUATION, archive_bundle, archive_tombstone
from tests.archives import store_run
from tests.commands import KEY, Finished, Shell, finish, wait_until
from tests.conftest import S3
from tests.disposals import CERTIFICATE, dispose
from tests.zips import zip_of

FILES = {"user_uploaded/front.jpg": b"\xff\xd8\xff front", "selfie": b"\xff\xd8\xff selfie"}
IDS = [f"0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a{number:02x}" for number in range(3)]
UNKNOWN = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9aff"
# Scenarios that end at once, without a hold or a delay.
SERVED = [each for each in Scenario if each.family in {0x01, 0x02, 0x03, 0x08}]


@pytest.fixture
async def shell(tmp_path: Path) -> Shell:
    """Return a shell with an archive of three evaluations, one of them a tombstone, without Redis and API key."""
    bucket = LocalBucket(tmp_path / "archive")
    for eval_id in IDS[:2]:
        await archive_bundle(bucket, zip_of(FILES), Evaluation(eval_id, "sandbox"))
    await archive_tombstone(bucket, Evaluation(IDS[2], "sandbox"), (Evidence.UNDER_AGE,))
    return Shell(tmp_path)


def parse_output(finished: Finished) -> list[dict[str, object]]:
    return [json.loads(line) for line in finished.out.splitlines()]


def documents_in(folder: Path) -> dict[str, bytes]:
    """Return the documents of one evaluation by their names in the bundle."""
    return {row["name"]: (folder / row["file"]).read_bytes() for row in listing_of(folder) if row["file"]}


def listing_of(folder: Path) -> list[dict[str, str]]:
    listing = folder / "names.csv"
    return list(csv.DictReader(io.StringIO(listing.read_text("utf-8-sig"), newline=""))) if listing.exists() else []


def assert_folder_has_only(shell: Shell, *names: str) -> None:
    assert {path.name for path in shell.folder.iterdir()} - {"archive", ".docv-archive", "ids.txt"} == set(names)


async def test_an_export_has_a_folder_for_each_evaluation(shell: Shell) -> None:
    finished = await shell.run("export", *IDS, "--to", "out")
    assert finished.code == 0, finished.err
    assert [line.split()[:3] for line in finished.out.splitlines()] == [
        [IDS[0], "archived", "2"],
        [IDS[1], "archived", "2"],
        [IDS[2], "no_documents", "0"],
    ]
    assert "out: 3 evaluations, 4 documents, 38 B" in finished.err
    assert f"{IDS[2]}: there are no documents: RiskOS deletes images of persons under 18 at once" in finished.err
    assert documents_in(shell.folder / "out" / IDS[0]) == FILES
    assert [path.name for path in (shell.folder / "out" / IDS[2]).iterdir()] == ["manifest.json"]
    assert_folder_has_only(shell, "out")


async def test_export_and_audit_count_one_evaluation_and_one_document_in_the_singular(shell: Shell) -> None:
    exported = await shell.run("export", IDS[0], "--kind", "selfie", "--to", "one")
    assert "one: 1 evaluation, 1 document, " in exported.err
    await archive_bundle(LocalBucket(shell.folder / "archive"), zip_of({"selfie": b"s"}), EVALUATION)
    audited = await shell.run("audit", "-", given=EVALUATION.eval_id)
    assert audited.err == "1 evaluation: 1 archived; 1 document\n"


async def test_export_prints_the_reason_when_there_are_no_documents(shell: Shell) -> None:
    for reason, evidence in (
        ("RiskOS deletes images of military IDs", (Evidence.MILITARY_ID,)),
        ("the evaluation had no DocV step", (Evidence.NO_DOCV_STEP,)),
        ("RiskOS had already deleted them", ()),
    ):
        eval_id = str(uuid4())
        await archive_tombstone(LocalBucket(shell.folder / "archive"), Evaluation(eval_id, "sandbox"), evidence)
        finished = await shell.run("export", eval_id, "--to", eval_id)
        assert f"{eval_id}: there are no documents: {reason}" in finished.err


async def test_disposed_documents_are_listed_and_not_reported_as_missing(shell: Shell) -> None:
    bucket = LocalBucket(shell.folder / "archive")
    await dispose(bucket, Evaluation(IDS[0], "sandbox"), lambda document: document.kind == "selfie")
    await dispose(bucket, Evaluation(IDS[1], "sandbox"))
    finished = await shell.run("export", *IDS[:2], "--to", "out", "--strict", "--json")
    assert finished.code == 0
    facts = [
        [each[name] for name in ("outcome", "complete", "documents", "disposed")] for each in parse_output(finished)
    ]
    assert facts == [["archived", True, 1, 1], ["disposed", True, 0, 2]]
    why = f"there are no documents: they were disposed of, see {CERTIFICATE}"
    assert finished.err.splitlines()[0] == f"{IDS[1]}: {why}"
    assert len(finished.err.splitlines()) == 2
    front, selfie = listing_of(shell.folder / "out" / IDS[0])
    assert (front["name"], front["disposed"]) == ("user_uploaded/front.jpg", "")
    assert documents_in(shell.folder / "out" / IDS[0]) == {front["name"]: FILES[front["name"]]}
    assert [selfie[name] for name in ("file", "name", "kind", "size", "at_source", "problem", "disposed")] == [
        *("", "", "selfie", "10", "", ""),
        "on 2025-02-01 under the rule five-years",
    ]
    assert [row["kind"] for row in listing_of(shell.folder / "out" / IDS[1])] == ["document_front", "selfie"]


async def test_a_former_revision_is_exported_without_documents_that_were_disposed_of_since(shell: Shell) -> None:
    bucket, evaluation = LocalBucket(shell.folder / "archive"), Evaluation(IDS[0], "sandbox")
    await dispose(bucket, evaluation, lambda document: document.kind == "selfie")
    await archive_bundle(bucket, zip_of({"case_attachments/later.txt": b"later"}), evaluation)
    await dispose(bucket, evaluation, lambda document: document.kind == "attachment")
    finished = await shell.run("export", IDS[0], "--revision", "1", "--to", "out", "--strict")
    assert finished.code == 0, finished.err
    rows = listing_of(shell.folder / "out" / IDS[0])
    assert [(row["kind"], row["disposed"] != "") for row in rows] == [("document_front", False), ("selfie", True)]
    finished = await shell.run("export", IDS[0], "--kind", "attachment", "--to", "attachments", "--strict")
    assert finished.code == 0, finished.err
    assert [row["kind"] for row in listing_of(shell.folder / "attachments" / IDS[0])] == ["attachment"]


async def test_json_has_a_line_for_each_evaluation(shell: Shell) -> None:
    (shell.folder / "ids.txt").write_text(f"{IDS[0]}\n{UNKNOWN}\n")
    finished = await shell.run("export", "--ids", "ids.txt", IDS[2], "--to", "out", "--json")
    assert finished.code == 1
    no_documents = {"complete": True, "documents": 0, "bytes": 0, "disposed": 0}
    assert parse_output(finished) == [
        {"eval_id": IDS[2], "outcome": "no_documents", **no_documents, "folder": f"out/{IDS[2]}", "problems": []},
        {
            "eval_id": IDS[0],
            "outcome": "archived",
            "complete": True,
            "documents": 2,
            "bytes": 19,
            "disposed": 0,
            "folder": f"out/{IDS[0]}",
            "problems": [],
        },
        {
            "eval_id": UNKNOWN,
            "outcome": "missing",
            **no_documents,
            "complete": False,
            "folder": None,
            "problems": ["it is not in the archive"],
        },
    ]
    assert f"{UNKNOWN}: it is not in the archive" in finished.err
    assert {path.name for path in (shell.folder / "out").iterdir()} == {IDS[0], IDS[2]}


@pytest.mark.parametrize("arguments", [("--to", "out.zip"), ("--zip", "out.zip"), ("--zip", "whatever")])
async def test_a_zip_has_the_same_files_as_a_folder(shell: Shell, arguments: tuple[str, ...]) -> None:
    finished = await shell.run("export", *IDS, *arguments, "--json")
    assert finished.code == 0, finished.err
    top = Path(arguments[1]).stem
    assert parse_output(finished)[0]["folder"] == f"{top}/{IDS[0]}"
    with zipfile.ZipFile(shell.folder / arguments[1]) as archive:
        archive.extractall(shell.folder / "unpacked")
    assert [path.name for path in (shell.folder / "unpacked").iterdir()] == [top]
    assert documents_in(shell.folder / "unpacked" / top / IDS[1]) == FILES
    assert_folder_has_only(shell, arguments[1], "unpacked")


@pytest.mark.needs("sha256sum")
async def test_a_bag_can_be_checked_with_standard_tools(shell: Shell) -> None:
    finished = await shell.run("export", *IDS, "--to", "out", "--bag", "--json")
    assert finished.code == 0, finished.err
    assert parse_output(finished)[0]["folder"] == f"out/data/{IDS[0]}"
    assert documents_in(shell.folder / "out" / "data" / IDS[0]) == FILES
    info = (shell.folder / "out" / "bag-info.txt").read_text()
    assert "DocV-Environment: sandbox\nDocV-Evaluations: 3\n" in info
    for manifest in ("manifest-sha256.txt", "tagmanifest-sha256.txt"):
        subprocess.run(["sha256sum", "--strict", "-c", manifest], cwd=shell.folder / "out", check=True)  # noqa: ASYNC221, S607  # from PATH


async def test_a_bag_may_be_a_zip(shell: Shell) -> None:
    assert (await shell.run("export", IDS[0], "--zip", "bag.zip", "--bag")).code == 0
    with zipfile.ZipFile(shell.folder / "bag.zip") as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {"bag"}
    assert {"bag/bagit.txt", "bag/bag-info.txt", f"bag/data/{IDS[0]}/names.csv"} <= set(names)


async def test_kinds_revisions_and_documents_at_riskos_can_be_selected(shell: Shell) -> None:
    bucket = LocalBucket(shell.folder / "archive")
    await archive_bundle(bucket, zip_of({"selfie": b"\xff\xd8\xff new"}), Evaluation(IDS[0], "sandbox"))
    choices = {
        "now": ("--current",),
        "then": ("--revision", "1"),
        "all": (),
        "front": ("--kind", "selfie", "--kind", "document_back"),
    }
    found = {}
    for name, options in choices.items():
        assert (await shell.run("export", IDS[0], "--to", name, *options)).code == 0
        found[name] = sorted(content for content in documents_in(shell.folder / name / IDS[0]).values())
    assert len(found["now"]) == 1
    assert found["then"] == sorted(FILES.values())
    files = [path for path in (shell.folder / "all").rglob("*") if path.is_file()]
    assert len(files) == 3 + 2
    assert (shell.folder / "front" / IDS[0] / "selfie (2).jpg").exists()
    refused = await shell.run("export", IDS[0], "--to", "later", "--revision", "3")
    assert (refused.code, "there is no revision 3; the current one is 2" in refused.err) == (1, True)
    assert_folder_has_only(shell, *choices)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IDS[0],), "give either --to DIR or --zip FILE.zip, and not both"),
        ((IDS[0], "--to", "a", "--zip", "b.zip"), "and not both"),
        (("--to", "a"), "no evaluations: give IDs, files with IDs, or --run"),
        ((IDS[0], "--to", "archive"), "archive already exists and is not overwritten"),
        ((IDS[0], "--to", "nowhere/out"), "nowhere is not a folder: create it first"),
        ((IDS[0], "--to", "."), ". already exists"),
        ((IDS[0], "--to", "a", "--kind", "passport"), "'passport' is not one of"),
        (("nobody.txt", "--to", "a"), "is neither a file nor an evaluation ID"),
    ],
)
async def test_invalid_arguments_are_reported_before_anything_is_written(
    shell: Shell, arguments: tuple[str, ...], message: str
) -> None:
    finished = await shell.run("export", *arguments)
    assert finished.code == 2
    assert message in " ".join(finished.err.split())
    assert "Traceback" not in finished.err
    assert_folder_has_only(shell)


async def test_the_evaluations_of_a_run_are_exported_with_the_given_ids(shell: Shell) -> None:
    await store_run(LocalBucket(shell.folder / "archive"), IDS[:2], "some")
    finished = await shell.run("export", IDS[0], "-", "--run", "some", "--to", "out", given=IDS[2])
    assert finished.code == 0, finished.err
    assert {path.name for path in (shell.folder / "out").iterdir()} == set(IDS[:3])
    finished = await shell.run("export", "--run", "other", "--to", "elsewhere")
    assert (finished.code, "the archive has no list of run other in sandbox" in finished.err) == (2, True)
    assert not (shell.folder / "elsewhere").exists()


async def test_nothing_is_written_when_nothing_is_archived(shell: Shell) -> None:
    finished = await shell.run("export", UNKNOWN, "--to", "out")
    assert finished.code == 1
    assert "there was nothing to export" in finished.err
    assert_folder_has_only(shell)


async def test_a_damaged_document_does_not_stop_the_others(shell: Shell) -> None:
    damaged = next((shell.folder / "archive" / "sandbox" / IDS[0] / "selfie").iterdir())
    damaged.write_bytes(FILES["selfie"][:-1] + b"X")
    (shell.folder / "archive" / "sandbox" / IDS[1] / "manifest.json").write_text('{"schema": 2}')
    finished = await shell.run("export", *IDS, "--to", "out", "--json")
    assert finished.code == 1
    assert [line["problems"] for line in parse_output(finished)] == [
        ["document 2 of the manifest: its bytes differ from the archived ones; it was not exported"],
        ["the manifest has a newer format (2): use a newer docv-archive"],
        [],
    ]
    assert documents_in(shell.folder / "out" / IDS[0]) == {"user_uploaded/front.jpg": FILES["user_uploaded/front.jpg"]}


def tamper(shell: Shell, eval_id: str) -> None:
    """Change the selfie of an evaluation in the archive."""
    selfie = next((shell.folder / "archive" / "sandbox" / eval_id / "selfie").iterdir())
    selfie.write_bytes(FILES["selfie"][:-1] + b"X")


async def test_a_tampered_evaluation_is_incomplete_and_the_bag_names_the_missing_document(shell: Shell) -> None:
    tamper(shell, IDS[0])
    finished = await shell.run("export", *IDS, UNKNOWN, "--to", "out", "--bag")
    assert finished.code == 1
    results = {line.split()[0]: line.split()[1] for line in finished.out.splitlines()}
    expected = {IDS[0]: "incomplete", IDS[1]: "archived", IDS[2]: "no_documents", UNKNOWN: "missing"}
    assert results == expected
    info = (shell.folder / "out" / "bag-info.txt").read_text("utf-8").splitlines()
    changed, missing = [line for line in info if line.startswith("DocV-Missing: ")]
    assert changed.startswith(
        f"DocV-Missing: {IDS[0]}: document 2 of the manifest: its bytes differ from the archived ones"
    )
    assert missing == f"DocV-Missing: {UNKNOWN}: it is not in the archive"


@pytest.mark.parametrize("target", ["out", "out.zip"])
@pytest.mark.parametrize("missing_part", ["document", "evaluation", "line"])
async def test_strict_writes_nothing_when_the_export_would_be_incomplete(
    shell: Shell, target: str, missing_part: str
) -> None:
    others = {"document": (), "evaluation": (UNKNOWN,), "line": ("--ids", "ids.txt")}[missing_part]
    (shell.folder / "ids.txt").write_text(f"{IDS[1]}\nnot-an-id\n")
    if missing_part == "document":
        tamper(shell, IDS[0])
    finished = await shell.run("export", *IDS, *others, "--to", target, "--strict")
    assert finished.code == 1
    assert "1 missing or changed, so nothing was exported (--strict)" in finished.err
    assert_folder_has_only(shell)


async def test_strict_writes_a_complete_export(shell: Shell) -> None:
    assert (await shell.run("export", *IDS, "--to", "out", "--strict")).code == 0
    assert_folder_has_only(shell, "out")


async def test_an_export_removes_and_reports_the_leftovers_of_a_killed_one(shell: Shell) -> None:
    stuck = next((shell.folder / "archive" / "sandbox" / IDS[1] / "selfie").iterdir())
    stuck.unlink()
    os.mkfifo(stuck)
    process = await shell.start("export", *IDS, "--to", "first")
    await wait_until(lambda: any(shell.folder.glob(".docv-export-*/tree/*/names.csv")), process)
    meanwhile = await shell.run("export", IDS[0], "--to", "second")
    (leftover,) = shell.folder.glob(".docv-export-*.part")
    assert (meanwhile.code, leftover.name in meanwhile.err) == (0, False)
    process.kill()
    await finish(process)
    finished = await shell.run("export", IDS[0], "--to", "third")
    assert f"removed {leftover.name}, opened documents that a killed export left behind" in finished.err
    assert_folder_has_only(shell, "second", "third")


async def test_a_failed_write_is_reported_in_one_sentence_and_nothing_is_left(shell: Shell) -> None:
    await archive_bundle(LocalBucket(shell.folder / "archive"), zip_of({"large.bin": bytes(100_000)}), EVALUATION)
    command = f"ulimit -f 20; exec {sys.executable} -m scripts.cli export {EVALUATION.eval_id} --to out"
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    process = await asyncio.create_subprocess_exec("bash", "-c", command, cwd=shell.folder, **pipes)
    stopped = await finish(process)
    assert stopped.code == 3
    assert "out cannot be written: File too large" in stopped.err
    assert "Traceback" not in stopped.err
    assert_folder_has_only(shell)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_stopped_export_leaves_nothing_incomplete(shell: Shell, number: signal.Signals) -> None:
    bucket = LocalBucket(shell.folder / "archive")
    for content in (b"first", b"second"):
        await archive_bundle(bucket, zip_of({f"{content!r}.txt": content}), EVALUATION)
    # This document never arrives, because opening a pipe waits until a writer opens it, too.
    stuck = next((shell.folder / "archive" / "sandbox" / IDS[1] / "selfie").iterdir())
    stuck.unlink()
    os.mkfifo(stuck)
    process = await shell.start("export", *IDS, "--to", "out")
    await wait_until(lambda: any(shell.folder.glob(".docv-export-*/tree/*/names.csv")), process)
    process.send_signal(number)
    # Python waits for the thread that opens the pipe.
    stuck.write_bytes(b"")
    stopped = await finish(process)
    assert stopped.code == 130
    assert "The partial export was removed" in stopped.err
    assert "Traceback" not in stopped.err
    assert_folder_has_only(shell)


async def test_documents_are_exported_byte_for_byte_from_a_folder_and_from_s3(tmp_path: Path, s3: S3) -> None:
    eval_ids = [eval_id_for(scenario, 7) for scenario in SERVED]
    shell = Shell(tmp_path, {"DOCV_API_KEY": KEY, "DOCV_RATE": "200", "DOCV_ATTEMPTS": "2", "DOCV_RETRY_SECONDS": "1"})
    (tmp_path / "ids.txt").write_text("\n".join(eval_ids))
    settings_of = {
        "folder": {},
        "s3": {"DOCV_ARCHIVE_URL": f"s3://{s3.bucket}/kyc", "DOCV_S3_ENDPOINT": s3.endpoint},
    }
    async with await start_simulator(SimulatorOptions(api_key=KEY, image_bytes=3_000)) as riskos:
        for settings in settings_of.values():
            runner = Shell(tmp_path, {**shell.settings, **settings, "DOCV_RISKOS_URL": riskos.url})
            assert (await runner.run("run", "ids.txt", "--json")).code == 1  # some are unreadable
    for folder, settings in settings_of.items():
        finished = await Shell(tmp_path, settings).run("export", "--ids", "ids.txt", "--to", folder, "--json")
        assert finished.code == 0, finished.err
        outcomes = {line["eval_id"]: line["outcome"] for line in parse_output(finished)}
        assert outcomes == {eval_id: expected_outcome(scenario_of(eval_id)).value for eval_id in eval_ids}
        for eval_id in eval_ids:
            check_export(tmp_path / folder / eval_id, eval_id)


def check_export(folder: Path, eval_id: str) -> None:
    """Compare an export with the bundle, as the standard library reads it."""
    if expected_outcome(scenario_of(eval_id)) is not Outcome.ARCHIVED:
        assert (folder / "manifest.json").exists()
        return
    with zipfile.ZipFile(io.BytesIO(bundle_of(eval_id, 3_000))) as bundle:
        served = {each.filename: bundle.read(each) for each in bundle.infolist() if not each.is_dir()}
    assert documents_in(folder) == served
