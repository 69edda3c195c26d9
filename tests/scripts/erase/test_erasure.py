"""An erasure removes everything of an evaluation, and leaves a receipt and a marker even if it is interrupted."""

import asyncio
import contextlib
import hashlib
import inspect
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from scripts.archive_access.open_bucket import open_archive_bucket
from scripts.archive_access.s3_client import open_s3_archive
from scripts.erase import erasure
from scripts.erase.erasure import (
    BegunErasure,
    Erased,
    ErasureRefused,
    ErasureResult,
    ErasureStores,
    NotFound,
    WouldErase,
    begin_erasure,
    erase_one,
    finish_erasure,
)
from scripts.erase.files import LocalFiles
from scripts.erase.pending import begin_pending
from scripts.erase.presence import find_in_lists
from scripts.erase.receipt import ErasureRequest, Receipt, StoredReceipt
from scripts.erase.stock import ObjectVersion, ObjectVersions
from scripts.erase.traces import RedisRecords
from scripts.erase.versions import S3Versions
from tasks.ledger.ledger import Ledger
from tasks.model.evaluation import Evaluation
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.model.outcome import ManifestOutcome, Outcome
from tasks.retention.event import EventReport, event_prefix, record_event
from tasks.storage.bucket import Bucket, ObjectAttributes
from tasks.storage.manifest import read_manifest
from tasks.storage.matter import begin_release, complete_release, create_matter, record_addition
from tasks.storage.revision import amend
from tasks.storage.run_list import RunSource, store_run_list
from tests.archives import archive as archive_documents
from tests.archives import documents
from tests.conftest import S3
from tests.retention import answer_lock_requests
from tests.riskos import http, serve_replies
from worker.clients.errors import ServiceUnavailable
from worker.config.settings import Settings

REQUEST = ErasureRequest("request 4711", "operator", "a-host")
LABELS = ObjectAttributes("application/json")
OPTIONS = EnqueueOptions(Queue.LIVE, "default", Trigger("enqueue", run="q3"))


class SimulatedCrash(Exception):
    """The simulated end of the process."""


class CrashingWrapper:
    """A wrapper that simulates a crash at the nth call of all wrappers that share its countdown."""

    def __init__(self, wrapped: Any, countdown: Iterator[int]) -> None:
        self._wrapped, self._countdown = wrapped, countdown

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._wrapped, name)

        async def later(*arguments: Any, **named: Any) -> Any:
            self._count()
            return await method(*arguments, **named)

        def now(*arguments: Any, **named: Any) -> Any:
            self._count()
            return method(*arguments, **named)

        return later if inspect.iscoroutinefunction(method) else now

    def _count(self) -> None:
        if next(self._countdown) == 0:
            raise SimulatedCrash


@dataclass
class Archive:
    """An archive with one evaluation in it.

    Attributes:
        evaluation: the evaluation to erase.
        bucket: the archive.
        stock: the objects of the archive, with their versions.
        ledger: the ledger in Redis.
        keys: keys of all objects of the evaluation.
    """

    evaluation: Evaluation
    bucket: Bucket
    stock: ObjectVersions
    ledger: Ledger
    keys: list[str]

    async def fill(self) -> None:
        front, digest = b"front", hashlib.sha256(b"front").hexdigest()
        self.keys = [
            self.evaluation.document_key("document_front", digest, "jpg"),
            self.evaluation.revision_key(1),
            self.evaluation.quarantine_key(digest),
            self.evaluation.manifest_key,
        ]
        for key in self.keys[:-1]:
            await self.bucket.create(key, front, LABELS)
        await self.bucket.replace(self.keys[-1], b"the first", LABELS, None)
        found = await self.bucket.read(self.keys[-1])
        assert found
        await self.bucket.replace(self.keys[-1], b"the second", LABELS, found.etag)
        report = EventReport("account_closed", date(2026, 1, 1), "records")
        await record_event(self.bucket, self.evaluation, report, datetime(2026, 2, 1, tzinfo=UTC))

    def stores(self, countdown: Iterator[int] | None = None, patience: float = 0.0) -> ErasureStores:
        traces = RedisRecords(self.ledger, patience)
        if countdown is None:
            return ErasureStores(self.bucket, self.stock, traces)
        return ErasureStores(
            CrashingWrapper(self.bucket, countdown),
            CrashingWrapper(self.stock, countdown),
            CrashingWrapper(traces, countdown),
        )

    async def erase(
        self, request: ErasureRequest = REQUEST, *, dry_run: bool = False, patience: float = 0.0
    ) -> ErasureResult:
        return await erase_one(self.evaluation, request, self.stores(patience=patience), dry_run=dry_run)

    def receipts(self) -> list[str]:
        return self.stock.keys(f"receipts/sandbox/{self.evaluation.eval_id}/")

    async def assert_only_receipts_and_the_marker_are_left(self, receipts: int = 1) -> None:
        (left,) = self.stock.items(self.evaluation)
        assert self.stock.keys(event_prefix(self.evaluation)) == []
        assert (left.key, left.latest, left.deletion) == (self.evaluation.manifest_key, True, False)
        marker = await read_manifest(self.bucket, self.evaluation)
        assert marker
        assert marker.manifest.erased
        assert (marker.manifest.documents, marker.manifest.previous, marker.manifest.bundle) == ((), None, None)
        assert len(self.receipts()) == receipts
        assert marker.manifest.erased.receipt in self.receipts()
        for key in self.receipts():
            found = await self.bucket.read(key)
            assert found
            assert json.loads(found.data)["completed_at"]


async def _archive(bucket: Bucket, stock: ObjectVersions, redis: Redis) -> Archive:
    archive = Archive(Evaluation(str(uuid4()), "sandbox"), bucket, stock, Ledger(redis), [])
    await archive.fill()
    return archive


def _settings(s3: S3) -> Settings:
    return Settings(archive_url=f"s3://{s3.bucket}/kept/here", s3_endpoint=s3.endpoint)


@pytest.fixture
def locked(s3: S3) -> S3:
    """A bucket with Object Lock."""
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.client.put_object_lock_configuration(Bucket=s3.bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    return s3


@pytest.fixture
async def versioned(s3: S3, redis: Redis) -> AsyncIterator[Archive]:
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    settings = _settings(s3)
    found = open_s3_archive(settings)
    assert found
    async with open_archive_bucket(settings) as bucket:
        archive = await _archive(bucket, S3Versions(found), redis)
        s3.client.delete_object(Bucket=s3.bucket, Key=f"kept/here/{archive.keys[0]}")
        yield archive


@pytest.fixture(params=["versioned", "plain", "folder"])
async def archive(request: pytest.FixtureRequest, s3: S3, redis: Redis, tmp_path: Path) -> AsyncIterator[Archive]:
    if request.param == "versioned":
        s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    folder = tmp_path / "archive"
    settings = Settings(archive_url=folder.as_uri()) if request.param == "folder" else _settings(s3)
    found = open_s3_archive(settings)
    async with open_archive_bucket(settings) as bucket:
        yield await _archive(bucket, S3Versions(found) if found else LocalFiles(folder), redis)


async def test_an_erasure_removes_everything_and_writes_a_receipt(archive: Archive) -> None:
    before = archive.stock.items(archive.evaluation)

    result = await archive.erase()

    assert isinstance(result, Erased)
    receipt = result.receipt.receipt
    assert (receipt.objects, receipt.versions) == (5, len(before))
    assert receipt.size == sum(item.size for item in before)
    assert receipt.documents == (hashlib.sha256(b"front").hexdigest(),)
    assert receipt.manifest == hashlib.sha256(b"the second").hexdigest()
    assert (receipt.reason, receipt.by, receipt.host) == ("request 4711", "operator", "a-host")
    await archive.assert_only_receipts_and_the_marker_are_left()


async def test_the_marker_has_the_attributes_of_a_manifest(versioned: Archive, s3: S3) -> None:
    stores = replace(versioned.stores(), tags={"team": "kyc"})
    assert isinstance(await erase_one(versioned.evaluation, REQUEST, stores), Erased)
    where = _name(s3, versioned.evaluation.manifest_key)
    tags = {tag["Key"]: tag["Value"] for tag in s3.client.get_object_tagging(**where)["TagSet"]}
    assert tags == {"environment": "sandbox", "document-kind": "manifest", "source": "docv-archive", "team": "kyc"}
    metadata = s3.client.head_object(**where)["Metadata"]
    assert metadata == {"eval-id": versioned.evaluation.eval_id, "outcome": "erased", "revision": "1"}


async def test_an_erasure_leaves_no_version_and_no_delete_marker(versioned: Archive) -> None:
    assert [item.deletion for item in versioned.stock.items(versioned.evaluation)].count(True) == 1
    assert isinstance(await versioned.erase(), Erased)
    await versioned.assert_only_receipts_and_the_marker_are_left()


async def test_a_dry_run_reports_the_receipt_and_changes_nothing(archive: Archive) -> None:
    before = archive.stock.items(archive.evaluation)
    result = await archive.erase(dry_run=True)
    assert isinstance(result, WouldErase)
    assert (result.receipt.objects, result.receipt.versions) == (5, len(before))
    assert archive.stock.items(archive.evaluation) == before
    assert archive.receipts() == []


@pytest.mark.parametrize("dry_run", [False, True])
async def test_an_unknown_evaluation_gets_neither_receipt_nor_marker(archive: Archive, dry_run: bool) -> None:  # noqa: FBT001
    archive.evaluation = Evaluation(str(uuid4()), "sandbox")
    result = await archive.erase(dry_run=dry_run)
    assert isinstance(result, WouldErase if dry_run else NotFound)
    assert "--even-if-absent" in (result.why or "")
    assert (archive.stock.items(archive.evaluation), archive.receipts()) == ([], [])


async def test_an_unknown_evaluation_gets_receipt_and_marker_with_even_if_absent(archive: Archive) -> None:
    archive.evaluation = Evaluation(str(uuid4()), "sandbox")
    result = await archive.erase(replace(REQUEST, even_if_absent=True))
    assert isinstance(result, Erased)
    assert (result.receipt.receipt.objects, result.receipt.receipt.manifest) == (0, None)
    await archive.assert_only_receipts_and_the_marker_are_left()


async def test_an_evaluation_of_the_other_environment_is_reported_and_stays(archive: Archive) -> None:
    before = archive.stock.items(archive.evaluation)
    archived = archive.evaluation
    archive.evaluation = Evaluation(archived.eval_id, "production")
    result = await archive.erase()
    assert isinstance(result, NotFound)
    assert "sandbox has 5 objects" in result.why
    assert archive.stock.items(archived) == before
    assert archive.stock.keys("receipts/") == []


async def test_an_erasure_reports_remaining_objects_in_the_other_environment(archive: Archive) -> None:
    other = replace(archive, evaluation=Evaluation(archive.evaluation.eval_id, "production"))
    await other.fill()
    result = await archive.erase()
    assert isinstance(result, Erased)
    assert result.elsewhere
    assert "production has 5 objects" in result.elsewhere
    result = await other.erase()
    assert isinstance(result, Erased)
    assert result.elsewhere is None


async def test_an_evaluation_only_in_the_ledger_is_erased_in_the_environment_of_its_account(archive: Archive) -> None:
    archive.evaluation = Evaluation(str(uuid4()), "sandbox")
    await archive.ledger.accept([archive.evaluation.eval_id], OPTIONS)
    records = RedisRecords(archive.ledger, 0.0, {"default": "production"})
    stores = ErasureStores(archive.bucket, archive.stock, records)
    result = await erase_one(archive.evaluation, REQUEST, stores)
    assert isinstance(result, NotFound)
    assert "production has an entry in the ledger" in result.why
    assert await archive.ledger.locate([archive.evaluation.eval_id]) != [(None, None)]

    assert isinstance(await archive.erase(), Erased)
    await archive.assert_only_receipts_and_the_marker_are_left()


async def test_an_evaluation_only_in_a_run_list_is_erased_in_the_environment_of_the_run(archive: Archive) -> None:
    eval_ids = [str(uuid4()) for _ in range(3)]
    archive.evaluation = Evaluation(eval_ids[1], "sandbox")
    source = RunSource(name="ids.txt", fingerprint="0" * 64, ids=3, repeated=0, bad=0)
    await store_run_list(
        archive.bucket, eval_ids, run="q3", environment="sandbox", account="default", refresh=False, source=source
    )
    damaged: list[str] = []
    await archive.bucket.create("runs/sandbox/q4/0.txt.gz", b"no gzip", LABELS)
    absent = str(uuid4())
    lists = await find_in_lists(archive.bucket, archive.stock, [eval_ids[1], absent], damaged.append)
    assert (len(lists[eval_ids[1]]), lists[absent], damaged) == (1, (), ["runs/sandbox/q4/0.txt.gz"])

    stores = replace(archive.stores(), lists=lists)
    result = await erase_one(Evaluation(eval_ids[1], "production"), REQUEST, stores)
    assert isinstance(result, NotFound)
    assert "sandbox has it in the lists of 1 run, such as q3" in result.why
    assert isinstance(await erase_one(archive.evaluation, REQUEST, stores), Erased)
    await archive.assert_only_receipts_and_the_marker_are_left()


async def test_each_request_has_a_receipt_and_the_marker_has_the_time_of_the_latest(archive: Archive) -> None:
    first = await archive.erase()
    again = await archive.erase()
    assert isinstance(first, Erased)
    assert isinstance(again, Erased)
    assert again.receipt.receipt.objects == 0
    marker = await read_manifest(archive.bucket, archive.evaluation)
    assert marker
    assert marker.manifest.erased
    assert marker.manifest.erased.at == again.receipt.receipt.requested_at > first.receipt.receipt.requested_at
    await archive.assert_only_receipts_and_the_marker_are_left(receipts=2)


@pytest.mark.parametrize("code", ["NoSuchVersion", "NoSuchKey", "AccessDenied"])
async def test_the_removal_of_a_version_fails_when_s3_denies_it_but_not_when_it_is_gone(s3: S3, code: str) -> None:
    body = f"<DeleteResult><Error><Key>k</Key><VersionId>1</VersionId><Code>{code}</Code></Error></DeleteResult>"
    async with serve_replies(http(200, body.encode())) as server:
        found = open_s3_archive(Settings(archive_url=f"s3://{s3.bucket}", s3_endpoint=server.url))
        assert found
        with pytest.raises(ServiceUnavailable, match=code) if code == "AccessDenied" else contextlib.nullcontext():
            await asyncio.to_thread(S3Versions(found).remove, [ObjectVersion("k", "1")], bypass_governance=False)


@pytest.mark.parametrize("ahead", [-7200.0, 7200.0])
async def test_an_erasure_prevails_over_jobs_accepted_before_it_even_if_the_clock_is_wrong(
    archive: Archive, ahead: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    eval_id = archive.evaluation.eval_id
    await archive.ledger.accept([eval_id], replace(OPTIONS, even_if_erased=True))
    (job,) = await archive.ledger.lease([eval_id], token="a-token")
    await archive.ledger.release(job)
    real = time.time
    monkeypatch.setattr("scripts.erase.traces.time.time", lambda: real() + ahead)
    assert isinstance(await archive.erase(), Erased)
    marker = await read_manifest(archive.bucket, archive.evaluation)
    assert marker
    assert marker.manifest.erased
    assert not job.covers_erasure(marker.manifest.erased.at_seconds)


async def test_the_same_request_completes_an_erasure_interrupted_at_any_call(archive: Archive) -> None:
    # A call of S3 takes a second, so only every fifth call is interrupted, from a random first one.
    step = 1 if isinstance(archive.stock, LocalFiles) else 5
    calls = random.randrange(step)  # noqa: S311  # not a secret
    while True:
        archive.evaluation = Evaluation(str(uuid4()), "sandbox")
        await archive.fill()
        try:
            await erase_one(archive.evaluation, REQUEST, archive.stores(iter(range(calls, -1000, -1))))
        except SimulatedCrash:
            pass
        else:
            break
        assert isinstance(await archive.erase(), Erased)
        await archive.assert_only_receipts_and_the_marker_are_left()
        calls += step
    assert calls > 10


async def test_an_interrupted_erasure_leaves_an_open_receipt(archive: Archive) -> None:
    stores = archive.stores()
    with pytest.raises(SimulatedCrash):
        await erase_one(
            archive.evaluation, REQUEST, ErasureStores(stores.bucket, _breaking(archive.stock), stores.redis_records)
        )
    (key,) = archive.receipts()
    found = await archive.bucket.read(key)
    assert found
    assert json.loads(found.data)["completed_at"] is None
    assert json.loads(found.data)["objects"] == 5


def _breaking(stock: ObjectVersions) -> ObjectVersions:
    class Breaking(CrashingWrapper):
        def _count(self) -> None:
            """Interrupt one call only."""

        def remove(self, *_: object, **__: object) -> None:
            raise SimulatedCrash

    return Breaking(stock, iter(()))


async def test_concurrent_erasures_both_succeed(archive: Archive) -> None:
    for _ in range(2):
        archive.evaluation = Evaluation(str(uuid4()), "sandbox")
        await archive.fill()
        other = replace(archive.stores(), redis_records=RedisRecords(archive.ledger, 0.0))
        results = await asyncio.gather(
            archive.erase(), erase_one(archive.evaluation, replace(REQUEST, by="another"), other)
        )
        assert all(isinstance(result, Erased) for result in results), results
        await archive.assert_only_receipts_and_the_marker_are_left(receipts=len(archive.receipts()))


async def test_the_receipt_lists_places_where_the_id_may_remain(archive: Archive) -> None:
    eval_id = archive.evaluation.eval_id
    stores = replace(archive.stores(), lists={eval_id: ("runs/sandbox/q3/0.txt.gz",)})
    result = await erase_one(archive.evaluation, REQUEST, stores)
    assert isinstance(result, Erased)
    assert result.receipt.receipt.remaining[0] == "runs/sandbox/q3/0.txt.gz"
    assert "logs" in result.receipt.receipt.remaining


# Evaluations in flight


async def test_the_receipt_stays_open_while_a_worker_holds_the_evaluation(archive: Archive) -> None:
    eval_id = archive.evaluation.eval_id
    await archive.ledger.accept([eval_id], OPTIONS)
    (entry,) = await archive.ledger.lease([eval_id], token="a-token")

    result = await archive.erase()

    assert isinstance(result, ErasureRefused)
    assert "a worker still has it" in result.why
    (key,) = archive.receipts()
    found = await archive.bucket.read(key)
    assert found
    assert json.loads(found.data)["completed_at"] is None
    await archive.ledger.complete(entry, Outcome.ARCHIVED)
    assert isinstance(await archive.erase(), Erased)
    await archive.assert_only_receipts_and_the_marker_are_left()


async def test_an_erasure_waits_for_a_worker_that_is_nearly_done(archive: Archive) -> None:
    eval_id = archive.evaluation.eval_id
    await archive.ledger.accept([eval_id], OPTIONS)
    (entry,) = await archive.ledger.lease([eval_id], token="a-token")
    erasing = asyncio.create_task(archive.erase(patience=30.0))
    await asyncio.sleep(0.3)
    assert not erasing.done()
    await archive.ledger.complete(entry, Outcome.ARCHIVED)
    assert isinstance(await erasing, Erased)


async def test_an_erasure_removes_entry_and_dead_letter_and_keeps_run_totals_consistent(archive: Archive) -> None:
    eval_id = archive.evaluation.eval_id
    await archive.ledger.accept([eval_id], OPTIONS)
    await archive.erase()
    assert await archive.ledger.locate([eval_id]) == [(None, None)]
    run = await archive.ledger.runs.get_counters("q3")
    assert (run.total, run.pending, run.outcomes[Outcome.UNCHANGED]) == (1, 0, 1)
    assert run.unchanged_outcomes[ManifestOutcome.ERASED] == 1

    await archive.ledger.accept([eval_id], OPTIONS)
    (entry,) = await archive.ledger.lease([eval_id], token="a-token")
    await archive.ledger.dead_letter(entry, attempts=6, failure=Failure("service_failed"))
    await archive.erase()
    assert await archive.ledger.locate([eval_id]) == [(None, None)]


# Legal holds


async def _hold(archive: Archive, *matters: str) -> None:
    """Archive another evaluation under matters, in the state that `legal-hold add` leaves."""
    archive.evaluation = Evaluation(str(uuid4()), "sandbox")
    for matter in matters:
        await create_matter(archive.bucket, matter, "case 17", "operator")
        await record_addition(archive.bucket, matter, "sandbox", [archive.evaluation.eval_id], "operator")
    await archive_documents(archive.bucket, archive.evaluation.eval_id, Outcome.NO_DOCUMENTS)
    await amend(archive.bucket, archive.evaluation, lambda known: known.model_copy(update={"matters": matters}))


@pytest.mark.parametrize("matters", [("acme-v-bolt",), ("one", "two")])
async def test_an_erasure_is_refused_under_a_matter(archive: Archive, matters: tuple[str, ...]) -> None:
    await _hold(archive, *matters)
    before = archive.stock.items(archive.evaluation)
    for dry_run in (True, False):
        refused = await archive.erase(replace(REQUEST, even_if_absent=True), dry_run=dry_run)
        assert isinstance(refused, ErasureRefused)
        assert f"under the legal hold{'s' * (len(matters) > 1)} {', '.join(matters)};" in refused.why
        assert f"legal-hold release {matters[0]}" in refused.why
    assert (archive.stock.items(archive.evaluation), archive.receipts()) == (before, [])

    await amend(archive.bucket, archive.evaluation, lambda known: known.model_copy(update={"matters": ()}))
    assert isinstance(await archive.erase(), Erased)
    await archive.assert_only_receipts_and_the_marker_are_left()


@pytest.mark.parametrize("manifest", [b"damaged", None])
async def test_the_records_of_matters_decide_when_the_manifest_cannot_be_read(
    archive: Archive, manifest: bytes | None
) -> None:
    await _hold(archive, "acme-v-bolt")
    found = await archive.bucket.read(archive.evaluation.manifest_key)
    assert found
    if manifest is None:
        archive.stock.remove(
            [each for each in archive.stock.items(archive.evaluation) if each.key == archive.evaluation.manifest_key],
            bypass_governance=False,
        )
    else:
        await archive.bucket.replace(archive.evaluation.manifest_key, manifest, LABELS, found.etag)
    refused = await archive.erase()
    assert isinstance(refused, ErasureRefused)
    assert "it is under the legal hold acme-v-bolt" in refused.why

    await begin_release(archive.bucket, "acme-v-bolt", "settled", "counsel")
    await complete_release(archive.bucket, "acme-v-bolt")
    assert isinstance(await archive.erase(), Erased)


async def test_a_matter_that_is_added_while_an_erasure_begins_prevents_it(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _hold(archive)
    real = erasure.begin

    async def hold_then_begin(bucket: Bucket, receipt: Receipt) -> StoredReceipt:
        await amend(bucket, archive.evaluation, lambda known: known.model_copy(update={"matters": ("acme-v-bolt",)}))
        return await real(bucket, receipt)

    monkeypatch.setattr(erasure, "begin", hold_then_begin)
    before = archive.stock.items(archive.evaluation)
    for _ in range(2):
        refused = await archive.erase()
        assert isinstance(refused, ErasureRefused)
        assert "acme-v-bolt" in refused.why
    assert len(archive.receipts()) == 1, "its receipt stays open"
    assert {item.key for item in before} <= {item.key for item in archive.stock.items(archive.evaluation)}

    await amend(archive.bucket, archive.evaluation, lambda known: known.model_copy(update={"matters": ()}))
    pending = [each async for each in begin_pending(REQUEST, archive.stores(), ["sandbox"], dry_run=False)]
    assert [type(result) for _, result in pending] == [BegunErasure]


async def test_an_evaluation_that_is_archived_again_and_held_while_an_erasure_waits_is_kept(archive: Archive) -> None:
    begun = await begin_erasure(archive.evaluation, REQUEST, archive.stores())
    assert isinstance(begun, BegunErasure)
    await archive_documents(archive.bucket, archive.evaluation.eval_id, Outcome.ARCHIVED, documents("x", 1, 100)[:1])
    await amend(archive.bucket, archive.evaluation, lambda known: known.model_copy(update={"matters": ("late",)}))
    result = await finish_erasure(begun, archive.stores())
    assert isinstance(result, ErasureRefused)
    assert "late" in result.why
    found = await read_manifest(archive.bucket, archive.evaluation)
    assert found
    assert len(found.manifest.documents) == 1


async def test_the_receipt_lists_the_additions_to_matters_that_name_the_id(archive: Archive) -> None:
    await _hold(archive, "acme-v-bolt")
    eval_id = archive.evaluation.eval_id
    lists = await find_in_lists(archive.bucket, archive.stock, [eval_id], pytest.fail)
    (key,) = lists[eval_id]
    assert key.startswith("holds/acme-v-bolt/additions/sandbox/")
    await amend(archive.bucket, archive.evaluation, lambda known: known.model_copy(update={"matters": ()}))
    result = await erase_one(archive.evaluation, REQUEST, replace(archive.stores(), lists=lists))
    assert isinstance(result, Erased)
    assert result.receipt.receipt.remaining[0] == key


# Locked versions


async def _locked_archive(s3: S3, bucket: Bucket, redis: Redis, retention: dict[str, str] | None = None) -> Archive:
    found = open_s3_archive(_settings(s3))
    assert found
    found.client.meta.events.register("before-send.s3.GetObjectRetention", answer_lock_requests(retention or {}))
    return await _archive(bucket, S3Versions(found), redis)


def _name(s3: S3, key: str) -> dict[str, str]:
    return {"Bucket": s3.bucket, "Key": f"kept/here/{key}"}


async def test_an_erasure_is_refused_under_legal_hold(locked: S3, redis: Redis) -> None:
    async with open_archive_bucket(_settings(locked)) as bucket:
        archive = await _locked_archive(locked, bucket, redis)
        hold = _name(locked, archive.keys[0])
        locked.client.put_object_legal_hold(**hold, LegalHold={"Status": "ON"})
        before = archive.stock.items(archive.evaluation)

        refused = await archive.erase()

        assert isinstance(refused, ErasureRefused)
        assert "legal hold" in refused.why
        assert (archive.stock.items(archive.evaluation), archive.receipts()) == (before, [])
        locked.client.put_object_legal_hold(**hold, LegalHold={"Status": "OFF"})
        assert isinstance(await archive.erase(), Erased)
        await archive.assert_only_receipts_and_the_marker_are_left()


@pytest.mark.parametrize(
    ("mode", "bypass", "is_erased"),
    [
        ("COMPLIANCE", False, False),
        ("COMPLIANCE", True, False),
        ("GOVERNANCE", False, False),
        ("GOVERNANCE", True, True),
    ],
)
async def test_retention_blocks_an_erasure(locked: S3, redis: Redis, mode: str, bypass: bool, is_erased: bool) -> None:  # noqa: FBT001
    async with open_archive_bucket(_settings(locked)) as bucket:
        until = datetime.now(UTC) + timedelta(days=30)
        answer = f"<Retention><Mode>{mode}</Mode><RetainUntilDate>{until.isoformat()}</RetainUntilDate></Retention>"
        archive = await _locked_archive(locked, bucket, redis, {"document_front": answer})
        retention = {"Mode": mode, "RetainUntilDate": until}
        locked.client.put_object_retention(**_name(locked, archive.keys[0]), Retention=retention)
        before = archive.stock.items(archive.evaluation)

        result = await archive.erase(ErasureRequest("request 4711", "operator", "a-host", bypass_governance=bypass))

        if is_erased:
            assert isinstance(result, Erased)
            await archive.assert_only_receipts_and_the_marker_are_left()
        else:
            assert isinstance(result, ErasureRefused)
            assert f"({mode})" in result.why
            assert (archive.stock.items(archive.evaluation), archive.receipts()) == (before, [])


async def test_a_lock_on_a_noncurrent_version_prevents_the_erasure(locked: S3, redis: Redis) -> None:
    async with open_archive_bucket(_settings(locked)) as bucket:
        archive = await _locked_archive(locked, bucket, redis)
        former = next(item for item in archive.stock.items(archive.evaluation) if not item.latest)
        locked.client.put_object_legal_hold(
            **_name(locked, former.key), VersionId=former.version, LegalHold={"Status": "ON"}
        )
        assert isinstance(await archive.erase(), ErasureRefused)


async def test_an_erasure_aborts_unfinished_uploads(s3: S3, redis: Redis) -> None:
    async with open_archive_bucket(_settings(s3)) as bucket:
        archive = await _locked_archive(s3, bucket, redis)
        s3.client.create_multipart_upload(**_name(s3, archive.keys[0]))
        assert isinstance(await archive.erase(), Erased)
        assert not s3.client.list_multipart_uploads(Bucket=s3.bucket).get("Uploads")


async def test_an_erasure_removes_half_written_files_and_empty_folders(tmp_path: Path, redis: Redis) -> None:
    folder = tmp_path / "archive"
    async with open_archive_bucket(Settings(archive_url=folder.as_uri())) as bucket:
        archive = await _archive(bucket, LocalFiles(folder), redis)
        (folder / archive.keys[0]).with_name(".0123.part").write_bytes(b"half a document")
        assert isinstance(await archive.erase(), Erased)
        left = {path.name for path in (folder / archive.evaluation.manifest_key).parent.iterdir()}
        assert left == {"manifest.json"}
        assert not (folder / archive.keys[2]).parent.exists()
