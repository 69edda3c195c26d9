"""`show`, as a user runs it: it reads the ledger and the archive, and changes nothing."""

import json
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.evaluation import Evaluation
from tasks.model.job import EnqueueOptions, Failure, Job, Queue, Trigger
from tasks.model.outcome import Evidence
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.revision import amend
from tests.archived_bundles import EVALUATION, archive_bundle, archive_tombstone
from tests.archives import NAMES, eval_ids, fill
from tests.commands import Shell
from tests.disposals import CERTIFICATE, DISPOSED_AT, dispose
from tests.scripts.serve.conftest import INTAKE, running_client, settings_for
from tests.zips import zip_of

IDS = eval_ids(10)
UNKNOWN = eval_ids(1, seed=5)[0]
REVISED, NO_DOCUMENTS = IDS[1], IDS[3]


@pytest.fixture
async def shell(redis: Redis, redis_url: str, tmp_path: Path) -> Shell:
    assert await redis.ping()
    return Shell(tmp_path, {"DOCV_REDIS_URL": redis_url})


@pytest.fixture
async def archive(tmp_path: Path) -> Path:
    await fill(LocalBucket(tmp_path / "archive"), IDS)
    return tmp_path / "archive"


async def lease_job(redis: Redis, eval_id: str) -> Job:
    ledger = Ledger(redis)
    await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "default", Trigger("intake"), refresh=True))
    (job,) = await ledger.lease([eval_id], token="one")
    return job


@pytest.mark.usefixtures("archive")
async def test_an_archived_evaluation_is_shown_with_its_revisions(shell: Shell) -> None:
    finished = await shell.run("show", REVISED.upper(), "--json")
    found = json.loads(finished.out)
    assert (finished.code, finished.err) == (0, "")
    assert (found["state"], found["outcome"], found["documents"]) == ("ended", "archived", 9)
    assert [each["revision"] for each in found["revisions"]] == [3, 2, 1]
    assert found["revisions"][0] == {
        "revision": 3,
        "archived_at": "2026-11-23T04:00:00.000Z",
        "retrieved_at": "2026-11-23T04:00:00.000Z",
        "event_at": None,
        "outcome": "archived",
        "reason": None,
        "documents": 9,
        "bytes": 9 * 2_004,
        "disposed": 0,
        "at_source": "unknown",
        "response": {"status": 200, "message": None},
        "request": {"source": "backfill", "run": "q3", "event_type": None, "event_id": None},
    }
    assert not any(name in finished.out for name in NAMES)


@pytest.mark.usefixtures("archive")
async def test_text_shows_state_outcome_and_revisions(shell: Shell) -> None:
    finished = await shell.run("show", REVISED)
    lines = [line.split() for line in finished.out.splitlines()]
    assert (finished.code, ["state", "ended"] in lines, ["outcome", "archived"] in lines) == (0, True, True)
    assert lines[-1] == ["1", "2026-11-23T04:00:00.000Z", "archived", "3", "unknown", "200", "backfill", "q3"]


async def test_disposed_documents_are_shown_with_their_rule_and_certificate(shell: Shell) -> None:
    bucket = LocalBucket(shell.folder / "archive")
    await archive_bundle(bucket, zip_of({"its-name-front.jpg": b"front", "selfie.jpg": b"selfie"}))
    await dispose(bucket, EVALUATION, lambda document: document.kind == "selfie")
    await amend(bucket, EVALUATION, lambda before: before.model_copy(update={"matters": ("acme-v-bolt",)}))
    found = json.loads((await shell.run("show", EVALUATION.eval_id, "--json")).out)
    assert (found["outcome"], found["documents"], found["disposed"]) == ("archived", 1, 1)
    assert found["matters"] == ["acme-v-bolt"]
    assert [(each["documents"], each["disposed"]) for each in found["revisions"]] == [(1, 1), (1, 1), (2, 0)]
    (gone,) = found["disposals"]
    assert (gone["kind"], gone["rule"], gone["due"], gone["receipt"]) == (
        "selfie",
        "five-years",
        "2025-02-01",
        CERTIFICATE,
    )
    text = (await shell.run("show", EVALUATION.eval_id)).out
    assert ["matters", "acme-v-bolt"] in [line.split() for line in text.splitlines()]
    (row,) = [line.split() for line in text.splitlines() if "five-years" in line]
    assert row == ["selfie", DISPOSED_AT, "five-years", "archived", "2020-01-31", "2025-02-01", CERTIFICATE]


async def test_archived_documents_are_shown_as_gone_at_source_when_riskos_has_deleted_them(shell: Shell) -> None:
    bucket = LocalBucket(shell.folder / "archive")
    await archive_bundle(bucket, zip_of({"front.jpg": b"front"}))
    await archive_tombstone(bucket)
    finished = await shell.run("show", EVALUATION.eval_id, "--json")
    found = json.loads(finished.out)
    assert (found["outcome"], found["documents"], found["at_source"]) == ("archived", 1, "gone")
    assert [(each["at_source"], each["response"]["status"]) for each in found["revisions"]] == [
        ("gone", 400),
        ("present", 200),
    ]


async def test_a_dead_letter_is_shown_without_an_archive_and_no_folder_is_created(shell: Shell, redis: Redis) -> None:
    await Ledger(redis).dead_letter(await lease_job(redis, UNKNOWN), attempts=6, failure=Failure("service_failed"))
    finished = await shell.run("show", UNKNOWN, "--json")
    found = json.loads(finished.out)
    assert (finished.code, found["state"], found["outcome"]) == (0, "dead_letter", "failed")
    assert (found["cause"], found["revisions"]) == ("service_failed", [])
    assert list(shell.folder.iterdir()) == []


@pytest.mark.usefixtures("archive")
async def test_show_and_the_http_route_return_the_same_facts(shell: Shell, redis: Redis, redis_url: str) -> None:
    await lease_job(redis, IDS[1])
    async with running_client(settings_for(redis_url, shell.folder)) as client:
        for eval_id in (*IDS[:4], UNKNOWN):
            answer = (await client.send("GET", f"/evaluations/{eval_id}", Authorization=f"Bearer {INTAKE}")).json
            shown = json.loads((await shell.run("show", eval_id, "--json")).out)
            # Names of legal holds are not for producers.
            only_shown = {"revisions", "disposals", "matters"}
            assert answer == {name: value for name, value in shown.items() if name not in only_shown}


async def test_the_reason_for_missing_documents_is_shown_for_each_revision(shell: Shell) -> None:
    evaluation, bucket = Evaluation(UNKNOWN, "sandbox"), LocalBucket(shell.folder / "archive")
    await archive_tombstone(bucket, evaluation)
    await archive_tombstone(bucket, evaluation, (Evidence.UNDER_AGE,))
    found = json.loads((await shell.run("show", UNKNOWN, "--json")).out)
    assert (found["outcome"], found["reason"]) == ("no_documents", "minor")
    assert [each["reason"] for each in found["revisions"]] == ["minor", "retention_or_unknown"]
    assert "retention_or_unknown" in (await shell.run("show", UNKNOWN)).out


@pytest.mark.usefixtures("archive")
async def test_an_unknown_evaluation_is_shown_as_missing(shell: Shell) -> None:
    finished = await shell.run("show", UNKNOWN, "--json")
    found = json.loads(finished.out)
    assert (finished.code, found["state"], found["outcome"], found["revisions"]) == (1, None, "missing", [])


async def test_an_erased_evaluation_is_shown_as_erased(shell: Shell, archive: Path) -> None:
    shell.settings |= {"DOCV_LEASE_SECONDS": "2", "DOCV_PUT_SECONDS": "1"}
    assert (await shell.run("erase", REVISED, "--reason", "request 4711", "--yes")).code == 0
    finished = await shell.run("show", REVISED, "--json")
    found = json.loads(finished.out)
    assert (finished.code, found["state"], found["outcome"], found["documents"]) == (0, "ended", "erased", 0)
    assert [each["outcome"] for each in found["revisions"]] == ["erased"]
    assert (archive / "sandbox" / REVISED / "manifest.json").is_file()


async def test_a_damaged_manifest_or_revision_is_reported_in_one_sentence(shell: Shell, archive: Path) -> None:
    (archive / "sandbox" / REVISED / "revisions" / "1.json").write_text("{}")
    finished = await shell.run("show", REVISED, "--json")
    assert (finished.code, [each["revision"] for each in json.loads(finished.out)["revisions"]]) == (0, [3, 2])
    assert "its hash differs" in finished.err
    (archive / "sandbox" / NO_DOCUMENTS / "manifest.json").write_text("{}")
    finished = await shell.run("show", NO_DOCUMENTS)
    assert (finished.code, "damaged" in finished.err, "Traceback" in finished.err) == (1, True, False)


async def test_show_reads_only_the_archive_and_prints_a_warning_without_redis(shell: Shell, archive: Path) -> None:
    del shell.settings["DOCV_REDIS_URL"]
    finished = await shell.run("show", NO_DOCUMENTS, "--json")
    assert (finished.code, json.loads(finished.out)["outcome"]) == (0, "no_documents")
    assert "only the archive was read: DOCV_REDIS_URL is not set" in finished.err
    assert list(shell.folder.iterdir()) == [archive]


async def test_text_contains_no_control_characters(shell: Shell, archive: Path) -> None:
    path = archive / "sandbox" / NO_DOCUMENTS / "manifest.json"
    path.write_text(path.read_text("utf-8").replace('"message": null', '"message": "[red]no\\u001b[2J"'), "utf-8")
    finished = await shell.run("show", NO_DOCUMENTS)
    assert (finished.code, "200 [red]no\ufffd[2J" in finished.out) == (0, True)


@pytest.mark.parametrize(
    ("settings", "arguments", "code", "message"),
    [
        ({}, ("no-id",), 2, "is not a valid evaluation ID"),
        ({}, (UNKNOWN, "--account", "kyb"), 2, "no account 'kyb'"),
        ({"DOCV_REDIS_URL": "redis://127.0.0.1:1/0"}, (UNKNOWN,), 3, "Redis does not answer"),
        ({"DOCV_ARCHIVE_URL": "file:///etc/hostname"}, (UNKNOWN,), 3, "no readable archive was found here"),
    ],
)
async def test_an_invalid_argument_or_unreachable_service_is_reported_in_one_sentence(
    shell: Shell, settings: dict[str, str], arguments: tuple[str, ...], code: int, message: str
) -> None:
    shell.settings |= settings
    finished = await shell.run("show", *arguments)
    assert (finished.code, finished.out) == (code, "")
    assert message in finished.err
    assert "Traceback" not in finished.err
