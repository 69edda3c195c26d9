"""A row comes from the manifest of its evaluation, or from the ledger if there is no manifest."""

import hashlib
from pathlib import Path
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from scripts.archive_access.evaluation_rows import EvaluationRow
from scripts.overview.run_rows import report_rows
from tasks.ledger.ledger import Ledger
from tasks.model.evaluation import Evaluation
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.model.outcome import Outcome, SourceStatus
from tasks.storage.bucket import ObjectAttributes
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.manifest import Manifest, utc_now
from tasks.storage.manifest_records import BundleRecord, DocumentRecord, ResponseRecord, TriggerRecord, UnreadableRecord
from tasks.storage.revision import commit


@pytest.fixture
def bucket(tmp_path: Path) -> LocalBucket:
    return LocalBucket(tmp_path)


@pytest.fixture
def ledger(redis: Redis) -> Ledger:
    return Ledger(redis)


async def archive(bucket: LocalBucket, outcome: Outcome, *sizes: int, unreadable: tuple[str, ...] = ()) -> str:
    """Commit a manifest. Its last document is superseded."""
    evaluation = Evaluation(str(uuid4()), "sandbox")
    documents = tuple(
        DocumentRecord(
            name="front.jpg",
            kind="document_front",
            key=evaluation.document_key("document_front", f"{number:064x}", "jpg"),
            media_type="image/jpeg",
            size=size,
            sha256=f"{number:064x}",
            modified=None,
            superseded=number == len(sizes) - 1,
        )
        for number, size in enumerate(sizes)
    )
    manifest = Manifest(
        schema=1,
        eval_id=evaluation.eval_id,
        environment="sandbox",
        account="default",
        outcome=outcome,
        revision=1,
        previous=None,
        documents=documents,
        unreadable=tuple(UnreadableRecord(name="", cause=cause) for cause in unreadable),
        bundle=BundleRecord(filename=None, size=1, sha256="0" * 64),
        response=ResponseRecord(status=200, message=None),
        no_documents=None,
        trigger=TriggerRecord(source="backfill", run="q3", event_type=None, event_id=None),
        retrieved_at=utc_now(),
        archived_at="2026-11-23T04:00:00.000Z",
        archiver="docv-archive",
    )
    await commit(bucket, evaluation, manifest, None)
    return evaluation.eval_id


async def read_rows(bucket: LocalBucket, ledger: Ledger, *eval_ids: str) -> list[EvaluationRow]:
    return [row async for some in report_rows(bucket, "sandbox", ledger, eval_ids) for row in some]


async def test_the_row_of_an_archived_evaluation_comes_from_its_manifest(
    bucket: LocalBucket, ledger: Ledger, tmp_path: Path
) -> None:
    eval_id = await archive(bucket, Outcome.ARCHIVED, 100, 20, 999)
    key = f"sandbox/{eval_id}/manifest.json"
    sha256 = hashlib.sha256((tmp_path / key).read_bytes()).hexdigest()
    (row,) = await read_rows(bucket, ledger, eval_id)
    assert row == EvaluationRow(
        eval_id, "archived", 3, 1119, key, sha256, "2026-11-23T04:00:00.000Z", at_source=SourceStatus.UNKNOWN
    )
    assert row.is_ok


async def test_the_row_of_an_unreadable_evaluation_has_its_cause(bucket: LocalBucket, ledger: Ledger) -> None:
    (row,) = await read_rows(bucket, ledger, await archive(bucket, Outcome.UNREADABLE, unreadable=("wrong_crc",)))
    assert (row.outcome, row.cause, row.is_ok) == ("unreadable", "wrong_crc", False)


async def test_the_row_of_an_evaluation_without_a_manifest_has_its_ledger_state(
    bucket: LocalBucket, ledger: Ledger
) -> None:
    ids = [str(uuid4()) for _ in range(5)]
    queued, leased, parked, dead, unknown = ids
    await ledger.accept(ids[:-1], EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run="q3")))
    entries = {entry.eval_id: entry for entry in await ledger.lease([leased, parked, dead], token="one")}
    await ledger.retry_later(entries[parked], wait=60, attempts=1, failure=Failure("service_failed"))
    await ledger.dead_letter(entries[dead], attempts=6, failure=Failure("bundle_too_large"))

    found = {row.eval_id: (row.outcome, row.cause) for row in await read_rows(bucket, ledger, *ids)}

    assert found == {
        queued: ("missing", "queued"),
        leased: ("missing", "leased"),
        parked: ("missing", "parked"),
        dead: ("failed", "bundle_too_large"),
        unknown: ("missing", None),
    }


async def test_an_invalid_manifest_is_reported_and_does_not_stop_the_other_rows(
    bucket: LocalBucket, ledger: Ledger
) -> None:
    good, bad = await archive(bucket, Outcome.NO_DOCUMENTS), Evaluation(str(uuid4()), "sandbox")
    await bucket.replace(bad.manifest_key, b"nonsense", ObjectAttributes("application/json"), None)
    first, second = await read_rows(bucket, ledger, bad.eval_id, good)
    assert (first.outcome, first.cause, first.is_ok) == ("missing", "alarming_object", False)
    assert (second.outcome, second.is_ok) == ("no_documents", True)


async def test_evaluations_that_a_cancelled_run_never_requested_are_cancelled(
    bucket: LocalBucket, ledger: Ledger
) -> None:
    archived, queued, unknown = await archive(bucket, Outcome.ARCHIVED, 100, 20), str(uuid4()), str(uuid4())
    await ledger.accept([queued], EnqueueOptions(Queue.LIVE, "default", Trigger("enqueue")))
    rows = report_rows(bucket, "sandbox", ledger, [archived, queued, unknown], is_cancelled=True)
    found = [(row.outcome, row.cause, row.is_ok) async for some in rows for row in some]
    assert found == [("archived", None, True), ("missing", "queued", False), ("cancelled", None, False)]
