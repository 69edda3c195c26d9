"""`audit`, as a user runs it: it needs only the archive."""

import csv
import hashlib
import io
import json
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tasks.ledger.cancellation import Cancellation
from tasks.ledger.ledger import Ledger
from tasks.model.evaluation import Evaluation
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.model.outcome import Evidence, Outcome
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.open_bucket import open_bucket
from tasks.storage.run_list import RunList, RunSource, mark_cancelled, store_run_list
from tests.archived_bundles import archive_bundle, archive_tombstone, archive_withheld, record_refusal
from tests.archives import PREFIX, eval_ids, fill
from tests.commands import Shell
from tests.conftest import S3
from tests.disposals import dispose
from tests.zips import zip_of
from worker.clients.archive import open_archive
from worker.config.settings import Settings

IDS = eval_ids(10)
FINGERPRINT = hashlib.sha256(b"its IDs").hexdigest()
UNKNOWN = eval_ids(1, seed=5)[0]


@pytest.fixture
async def shell(tmp_path: Path) -> Shell:
    await fill(LocalBucket(tmp_path / "archive"), IDS)
    return Shell(tmp_path)


async def store_list(bucket: LocalBucket, run: str, eval_id: str) -> RunList:
    """Store the list of a run with one evaluation in the archive."""
    source = RunSource(name="ids.txt", fingerprint=FINGERPRINT, ids=1, repeated=0, bad=0)
    return await store_run_list(
        bucket, [eval_id], run=run, environment="sandbox", account="default", refresh=False, source=source
    )


async def cancel_list(bucket: LocalBucket, eval_id: str) -> None:
    """Store the list of a run with one evaluation in the archive, and mark the run as cancelled there."""
    await mark_cancelled(bucket, await store_list(bucket, "taken-back", eval_id), by="operator", position=0)


async def test_audit_reads_outcomes_from_the_archive_alone(shell: Shell) -> None:
    finished = await shell.run("audit", "-", given="\n".join(IDS))
    rows = list(csv.DictReader(io.StringIO(finished.out)))
    assert finished.code == 0, finished.err
    assert [row["eval_id"] for row in rows] == IDS
    assert [row["outcome"] for row in rows] == [
        {3: "no_documents", 6: "unreadable"}.get(number, "archived") for number in range(10)
    ]
    assert finished.err == "10 evaluations: 8 archived, 1 no_documents, 1 unreadable; 38 documents\n"
    assert not (shell.folder / ".docv-archive").exists()


async def test_audit_prints_the_reason_for_missing_documents_per_row_and_in_total(tmp_path: Path) -> None:
    evidence = [(Evidence.MILITARY_ID,), (Evidence.UNDER_AGE,), (Evidence.NO_DOCV_STEP,), (), (Evidence.UNDER_AGE,)]
    for eval_id, known in zip(IDS, evidence, strict=False):
        await archive_tombstone(LocalBucket(tmp_path / "archive"), Evaluation(eval_id, "sandbox"), known)
    finished = await Shell(tmp_path).run("audit", "-", given="\n".join(IDS[: len(evidence)]))
    rows = list(csv.DictReader(io.StringIO(finished.out)))
    assert [row["reason"] for row in rows] == ["military", "minor", "no_docv_step", "retention_or_unknown", "minor"]
    reasons = "(no documents: 1 military, 2 minor, 1 no_docv_step, 1 retention_or_unknown)"
    assert finished.err == f"5 evaluations: 5 no_documents; 0 documents {reasons}\n"


async def test_audit_distinguishes_restricted_images_from_withheld_ones(tmp_path: Path) -> None:
    bucket, bundle = LocalBucket(tmp_path / "archive"), zip_of({"front.jpg": b"front"})
    plain, held, withheld = (Evaluation(eval_id, "sandbox") for eval_id in IDS[:3])
    await archive_bundle(bucket, bundle, plain)
    await archive_bundle(bucket, bundle, held, (Evidence.MILITARY_ID,))
    await archive_withheld(bucket, withheld, (Evidence.UNDER_AGE,))
    finished = await Shell(tmp_path).run("audit", "-", given="\n".join(IDS[:3]))
    rows = list(csv.DictReader(io.StringIO(finished.out)))
    facts = [(row["outcome"], row["documents"], row["reason"], row["restricted"]) for row in rows]
    assert facts == [("archived", "1", "", ""), ("archived", "1", "", "military"), ("withheld", "0", "minor", "")]
    assert finished.code == 0
    assert finished.err.splitlines() == [
        "3 evaluations: 2 archived, 1 withheld; 2 documents (withheld: 1 minor)",
        "1 with documents of military IDs or minors; see --restricted",
    ]
    restricted = await Shell(tmp_path).run("audit", "-", "--restricted", "--json", given="\n".join(IDS[:3]))
    assert [json.loads(line)["eval_id"] for line in restricted.out.splitlines()] == [held.eval_id]


async def test_audit_counts_disposed_documents_and_reports_none_of_them_as_missing(tmp_path: Path) -> None:
    bucket, bundle = LocalBucket(tmp_path / "archive"), zip_of({"front.jpg": b"front", "selfie.jpg": b"selfie"})
    whole, part, all_gone = (Evaluation(eval_id, "sandbox") for eval_id in IDS[:3])
    for evaluation in (whole, part, all_gone):
        await archive_bundle(bucket, bundle, evaluation)
        await archive_tombstone(bucket, evaluation)
    await dispose(bucket, part, lambda document: document.kind == "selfie")
    await dispose(bucket, all_gone)
    finished = await Shell(tmp_path).run("audit", "-", given="\n".join(IDS[:3]))
    rows = list(csv.DictReader(io.StringIO(finished.out)))
    assert [(row["outcome"], row["documents"], row["bytes"], row["disposed"]) for row in rows] == [
        ("archived", "2", "11", "0"),
        ("archived", "1", "5", "1"),
        ("disposed", "0", "0", "2"),
    ]
    assert list(rows[0])[-1] == "disposed"
    assert finished.code == 0
    assert finished.err == "3 evaluations: 2 archived, 1 disposed; 3 documents, 3 disposed of\n"
    gone = await Shell(tmp_path).run("audit", "-", "--gone-at-source", "--json", given="\n".join(IDS[:3]))
    assert [json.loads(line)["eval_id"] for line in gone.out.splitlines()] == IDS[:2]
    assert gone.err.splitlines()[1].startswith("2 gone or partly gone at RiskOS")


async def test_json_lines_have_the_documented_fields(shell: Shell) -> None:
    (shell.folder / "ids.csv").write_text(f"who,evaluation\na,{IDS[0].upper()}\nb,{UNKNOWN}\nc,{IDS[0]}\n")
    finished = await shell.run("audit", "ids.csv", "--column", "evaluation", "--json")
    first, second = (json.loads(line) for line in finished.out.splitlines())
    assert finished.code == 1
    assert list(first)[:5] == ["eval_id", "outcome", "documents", "bytes", "manifest"]
    manifest = f"sandbox/{IDS[0]}/manifest.json"
    assert (first["outcome"], first["documents"], first["manifest"]) == ("archived", 3, manifest)
    assert (second["outcome"], second["documents"], second["bytes"], second["manifest"]) == ("missing", 0, 0, None)
    assert "evaluation: 1; each is read once" in finished.err


async def test_csv_has_no_formula_and_a_byte_order_mark_only_with_excel(shell: Shell) -> None:
    path = shell.folder / "archive" / "sandbox" / IDS[6] / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["unreadable"][0]["cause"] = "\uff1d1+1"
    path.write_text(json.dumps(manifest))
    plain = await shell.run("audit", "-", given=IDS[6])
    (row,) = csv.DictReader(io.StringIO(plain.out))
    assert (plain.code, row["cause"]) == (0, "'\uff1d1+1")
    assert (await shell.run("audit", "-", "--excel", given=IDS[6])).out == "\ufeff" + plain.out
    assert (await shell.run("audit", "-", "--excel", "--json", given=IDS[6])).code == 2


async def test_audit_fails_when_a_manifest_is_damaged_or_a_line_is_bad(shell: Shell) -> None:
    (shell.folder / "ids.txt").write_text(IDS[0])
    assert (await shell.run("audit", "ids.txt")).code == 0
    (shell.folder / "bad.txt").write_text(f"{IDS[0]}\nno-id\n")
    bad = await shell.run("audit", "bad.txt")
    assert (bad.code, "line 2: 'no-id'" in bad.err) == (1, True)
    (shell.folder / "archive" / "sandbox" / IDS[0] / "manifest.json").write_text("{")
    damaged = await shell.run("audit", "ids.txt", "--json")
    assert (damaged.code, json.loads(damaged.out)["cause"]) == (1, "alarming_object")
    assert "1 with a damaged manifest" in damaged.err


async def test_an_erased_evaluation_does_not_fail_the_audit(shell: Shell) -> None:
    unreadable = IDS[6]
    shell.settings |= {"DOCV_LEASE_SECONDS": "2", "DOCV_PUT_SECONDS": "1"}
    assert (await shell.run("erase", IDS[0], unreadable, "--reason", "request 4711", "--yes")).code == 0
    finished = await shell.run("audit", "-", "--json", given=f"{IDS[0]}\n{unreadable}\n{IDS[1]}")
    rows = [json.loads(line) for line in finished.out.splitlines()]
    assert [(row["outcome"], row["cause"], row["documents"]) for row in rows] == [
        ("erased", "erased", 0),
        ("erased", "erased", 0),
        ("archived", None, 9),
    ]
    assert (finished.code, "3 evaluations: 1 archived, 2 erased; 9 documents" in finished.err) == (0, True)


async def test_audit_reads_an_archive_in_s3_or_its_inventory(s3: S3, tmp_path: Path) -> None:
    url = f"s3://{s3.bucket}/{PREFIX}"
    store = open_archive(Settings(archive_url=url, s3_endpoint=s3.endpoint))
    await fill(open_bucket(store), IDS[:2])
    shell = Shell(tmp_path, {"DOCV_ARCHIVE_URL": url, "DOCV_S3_ENDPOINT": s3.endpoint})
    lines = "\n".join([*IDS[:2], UNKNOWN])
    from_manifests = await shell.run("audit", "-", "--json", given=lines)
    assert [json.loads(line)["outcome"] for line in from_manifests.out.splitlines()] == [
        "archived",
        "archived",
        "missing",
    ]
    listed = s3.client.list_objects_v2(Bucket=s3.bucket)["Contents"]
    (tmp_path / "inventory.csv").write_text("".join(f"{s3.bucket},{each['Key']},{each['Size']}\n" for each in listed))
    from_inventory = await shell.run("audit", "-", "--json", "--inventory", "inventory.csv", given=lines)
    rows = [json.loads(line) for line in from_inventory.out.splitlines()]
    assert (from_manifests.code, from_inventory.code) == (1, 1)
    assert [row["outcome"] for row in rows] == ["present", "present", "missing"]
    held = [(row["documents"], row["bytes"]) for row in rows]
    assert held == [(row["documents"], row["bytes"]) for row in map(json.loads, from_manifests.out.splitlines())]
    assert [documents for documents, _ in held] == [3, 9, 0]
    assert [row["at_source"] for row in rows] == [None, None, None]


async def test_gone_at_source_lists_evaluations_that_only_the_archive_has(shell: Shell) -> None:
    bucket, ids = LocalBucket(shell.folder / "archive"), eval_ids(4, seed=7)
    bundle = zip_of({"front.jpg": b"front", "selfie": b"selfie"})
    for eval_id in ids:
        await archive_bundle(bucket, bundle, Evaluation(eval_id, "sandbox"))
    await archive_tombstone(bucket, Evaluation(ids[0], "sandbox"))
    await archive_bundle(bucket, zip_of({"selfie": b"selfie"}), Evaluation(ids[1], "sandbox"))
    await record_refusal(bucket, Outcome.NOT_FOUND, 404, Evaluation(ids[2], "sandbox"))
    finished = await shell.run("audit", "-", "--gone-at-source", "--json", given="\n".join([*ids, *IDS, UNKNOWN]))
    rows = [json.loads(line) for line in finished.out.splitlines()]
    assert [(row["eval_id"], row["outcome"], row["documents"], row["at_source"]) for row in rows] == [
        (ids[0], "archived", 2, "gone"),
        (ids[1], "archived", 2, "partly_gone"),
    ]
    assert finished.code == 1, "one is missing"
    assert "2 gone or partly gone at RiskOS; for 10 it is not known what RiskOS has" in finished.err
    empty = await shell.run("audit", "-", "--gone-at-source", given=ids[3])
    assert (empty.code, len(empty.out.splitlines())) == (0, 1), "only the header"


async def test_enqueue_missing_enqueues_only_missing_evaluations(shell: Shell, redis: Redis, redis_url: str) -> None:
    missing, queued, dead, listed, cancelled, of_a_run, damaged, erased = eval_ids(8, seed=11)
    bucket, ledger = LocalBucket(shell.folder / "archive"), Ledger(redis)
    order = EnqueueOptions(Queue.LIVE, "default", Trigger("enqueue"))
    await ledger.accept([queued, dead, cancelled], order)
    (job,) = await ledger.lease([dead], token="one")
    await ledger.dead_letter(job, attempts=6, failure=Failure("service_failed"))
    await Cancellation(redis).cancel_evaluations([cancelled])
    await cancel_list(bucket, of_a_run)
    running = await store_list(bucket, "going-on", listed)
    await ledger.runs.begin("going-on", total=1, fingerprint=running.fingerprint)
    for eval_id in (damaged, erased):
        await archive_bundle(bucket, zip_of({"front.jpg": b"front"}), Evaluation(eval_id, "sandbox"))
    (shell.folder / "archive" / "sandbox" / damaged / "manifest.json").write_text("{")
    shell.settings |= {"DOCV_REDIS_URL": redis_url, "DOCV_LEASE_SECONDS": "2", "DOCV_PUT_SECONDS": "1"}
    assert (await shell.run("erase", erased, "--reason", "request 4712", "--yes")).code == 0
    lines = "\n".join([*IDS, missing, queued, dead, listed, cancelled, of_a_run, damaged, erased])
    finished = await shell.run("audit", "-", "--enqueue-missing", given=lines)
    assert finished.code == 1, finished.err
    summary = "1 of the missing enqueued; not enqueued: 3 in the ledger, 2 cancelled, 1 with a damaged manifest"
    assert summary in finished.err
    (job,) = await ledger.lease([*IDS, missing, listed, cancelled, of_a_run, damaged, erased], token="one")
    assert (job.eval_id, job.queue, job.refresh) == (missing, Queue.BACKFILL, False)
    assert await redis.llen("docv:backfill") == 1


async def test_enqueue_missing_enqueues_nothing_when_a_run_list_is_damaged(
    shell: Shell, redis: Redis, redis_url: str
) -> None:
    await cancel_list(LocalBucket(shell.folder / "archive"), UNKNOWN)
    (shell.folder / "archive" / "runs" / "sandbox" / "taken-back" / "run.json").write_text("{")
    shell.settings |= {"DOCV_REDIS_URL": redis_url}
    finished = await shell.run("audit", "-", "--enqueue-missing", given=UNKNOWN)
    assert finished.code == 3
    for sentence in ("nothing was enqueued", "the list of run taken-back is damaged"):
        assert sentence in finished.err
    assert await redis.llen("docv:backfill") == 0


@pytest.mark.parametrize("settings", [{}, {"DOCV_REDIS_URL": "redis://127.0.0.1:9/0"}], ids=["not set", "unreachable"])
async def test_enqueue_missing_needs_redis(shell: Shell, settings: dict[str, str]) -> None:
    shell.settings |= settings
    finished = await shell.run("audit", "-", "--enqueue-missing", given=UNKNOWN)
    assert (finished.code, finished.out) == (3, ""), finished.err
    assert "Redis" in finished.err
    assert (await shell.run("audit", "-", given=UNKNOWN)).code == 1, "an audit alone needs no Redis"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("missing.txt",), 2, "missing.txt"),
        (("empty.txt",), 2, "there is no evaluation ID in it"),
        (("ids.txt",), 3, "no readable archive was found here"),
        (("ids.txt", "--inventory", "ids.txt"), 2, "names a folder"),
        (("ids.txt", "--inventory", "missing.csv"), 2, "missing.csv"),
        (("ids.txt", "--inventory", "ids.txt", "--gone-at-source"), 2, "an inventory has no manifests"),
        (("ids.txt", "--inventory", "ids.txt", "--restricted"), 2, "an inventory has no manifests"),
    ],
)
async def test_wrong_arguments_are_refused_in_one_sentence(
    tmp_path: Path, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    (tmp_path / "ids.txt").write_text(IDS[0])
    (tmp_path / "empty.txt").write_text("\n")
    finished = await Shell(tmp_path).run("audit", *arguments)
    assert finished.code == code, finished.err
    assert sentence in finished.err
    assert "Traceback" not in finished.err
    assert not (tmp_path / "archive").exists()
