"""`erase --kind` removes only documents of some kinds, and nothing brings them back."""

import asyncio
import csv
import json
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock
from uuid import uuid4

import pytest
from click.testing import CliRunner
from redis.asyncio import Redis

from scripts.archive_access.open_bucket import open_archive_bucket
from scripts.archive_access.s3_client import open_s3_archive
from scripts.cli import main
from scripts.erase.duties import RetentionDuties, Waiting
from scripts.erase.erasure import (
    BegunErasure,
    Erased,
    ErasureRefused,
    ErasureResult,
    ErasureStores,
    NotFound,
    WouldErase,
)
from scripts.erase.files import LocalFiles
from scripts.erase.pending import begin_pending, sweep_leftovers
from scripts.erase.receipt import ErasureRequest
from scripts.erase.steps import begin_request, finish_request
from scripts.erase.stock import ObjectVersions
from scripts.erase.traces import RedisRecords
from scripts.erase.versions import S3Versions
from scripts.retention.deferred_erasures import erase_deferred
from tasks.bundle.zip import Member
from tasks.ledger.ledger import Ledger
from tasks.model.evaluation import Evaluation
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.model.outcome import Outcome
from tasks.storage.bucket import Bucket, ObjectAttributes
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.manifest import Manifest, read_manifest
from tasks.storage.revision import amend
from tests.archives import archive as archive_documents
from tests.archives import documents
from tests.conftest import S3
from tests.disposals import make_schedule
from tests.retention import answer_lock_requests
from tests.scripts.erase.test_erasure import CrashingWrapper, SimulatedCrash
from tests.scripts.retention.disposals import OPERATOR, no_wait
from worker.config.settings import Settings

SELFIES = ErasureRequest("request 4711", "operator", "a-host", kinds=("selfie",))
FRONTS = replace(SELFIES, kinds=("document_front",))
WHOLE = replace(SELFIES, kinds=())
MUST = {"kind": "selfie", "keep_for": "5y", "clock": "archived", "keep": "must"}
_LABELS = ObjectAttributes("application/json")
BEFORE, AFTER = date(2031, 11, 23), date(2031, 11, 24)


@dataclass
class KindArchive:
    """An archive with one evaluation in it.

    Attributes:
        settings: settings that name the archive.
        bucket: the archive.
        versions: the objects of the archive, with their versions.
        records: records of evaluations in Redis.
        evaluation: the evaluation to erase from.
        duties: duties of a schedule; None without a schedule.
    """

    settings: Settings
    bucket: Bucket
    versions: ObjectVersions
    records: RedisRecords
    evaluation: Evaluation
    duties: RetentionDuties | None = None

    def stores(self, countdown: Iterator[int] | None = None) -> ErasureStores:
        parts: tuple[Any, Any, Any] = self.bucket, self.versions, self.records
        if countdown:
            parts = (
                CrashingWrapper(self.bucket, countdown),
                CrashingWrapper(self.versions, countdown),
                CrashingWrapper(self.records, countdown),
            )
        return ErasureStores(*parts, {"team": "kyc"}, duties=self.duties)

    async def archive(self, members: list[Member] | None = None) -> None:
        """Archive like a worker that does not know of erased kinds yet."""
        eval_id = self.evaluation.eval_id
        await archive_documents(
            self.bucket, eval_id, Outcome.ARCHIVED, documents(eval_id, 1, 100) if members is None else members
        )

    async def erase(
        self, request: ErasureRequest = SELFIES, *, dry_run: bool = False, countdown: Iterator[int] | None = None
    ) -> ErasureResult:
        stores = self.stores(countdown)
        begun = await begin_request(self.evaluation, request, stores, dry_run=dry_run)
        return await finish_request(begun, stores) if isinstance(begun, BegunErasure) else begun

    async def resume(self) -> list[ErasureResult]:
        """Do what `erase --pending` does."""
        stores, results = self.stores(), []
        async for _, result in begin_pending(replace(WHOLE, reason=""), stores, ["sandbox"], dry_run=False):
            results.append(await finish_request(result, stores) if isinstance(result, BegunErasure) else result)
        return results

    async def manifest(self) -> Manifest:
        found = await read_manifest(self.bucket, self.evaluation)
        assert found
        return found.manifest

    async def kinds(self) -> list[str]:
        """Return the kinds of held documents, after checking that the archive has each document."""
        held = (await self.manifest()).documents
        assert [await self.bucket.digest(each.key) for each in held] == [each.sha256 for each in held]
        return [each.kind for each in held]

    def count(self, kind: str) -> int:
        return len([item for item in self.versions.items(self.evaluation) if f"/{kind}/" in item.key])

    async def receipts(self) -> list[dict[str, Any]]:
        keys = [each.key async for some in self.bucket.list_objects("receipts/sandbox/") for each in some]
        found = [await self.bucket.read(key) for key in keys]
        return [json.loads(each.data) for each in found if each]


def open_kind_archive(settings: Settings, bucket: Bucket, ledger: Ledger | None = None) -> KindArchive:
    found = open_s3_archive(settings)
    if found:
        found.client.meta.events.register("before-send.s3.GetObjectRetention", answer_lock_requests({}))
    versions = S3Versions(found) if found else LocalFiles(Path(settings.archive_url.removeprefix("file://")))
    return KindArchive(settings, bucket, versions, RedisRecords(ledger, 0.0), Evaluation(str(uuid4()), "sandbox"))


@pytest.fixture
async def kept(tmp_path: Path) -> KindArchive:
    """An archive in a folder."""
    kept = open_kind_archive(Settings(archive_url=(tmp_path / "archive").as_uri()), LocalBucket(tmp_path / "archive"))
    await kept.archive()
    return kept


@pytest.fixture(params=["folder", "versioned"])
async def anywhere(request: pytest.FixtureRequest, s3: S3, tmp_path: Path) -> AsyncIterator[KindArchive]:
    """An archive in a folder, and in a bucket with versions."""
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    url = f"s3://{s3.bucket}/kept/here" if request.param == "versioned" else (tmp_path / "archive").as_uri()
    settings = Settings(archive_url=url, s3_endpoint=s3.endpoint)
    async with open_archive_bucket(settings) as bucket:
        yield open_kind_archive(settings, bucket)


async def is_erased(kept: KindArchive) -> bool:
    """Return whether the selfie, and nothing else, is erased completely."""
    manifest = await kept.manifest()
    receipts = await kept.receipts()
    mine = [each for each in receipts if each["eval_id"] == kept.evaluation.eval_id]
    return (
        await kept.kinds() == ["document_front", "document_back"]
        and kept.count("selfie") == 0
        and [each.kind for each in manifest.erased_kinds] == ["selfie"]
        and [(each.kind, each.rule, each.clock) for each in manifest.disposed] == [("selfie", "erasure", "request")]
        and bool(mine)
        and all(each["completed_at"] and each["kinds"] == ["selfie"] for each in mine)
    )


async def test_an_erasure_of_a_kind_removes_its_documents_and_keeps_the_rest(kept: KindArchive) -> None:
    (selfie,) = (await kept.manifest()).documents_of(["selfie"])

    result = await kept.erase()

    assert isinstance(result, Erased)
    assert await is_erased(kept)
    receipt = result.receipt.receipt
    assert (receipt.kinds, receipt.objects, receipt.versions) == (("selfie",), 1, 1)
    assert (receipt.documents, receipt.manifest, receipt.remaining) == ((selfie.sha256,), None, ())
    (gone,) = (await kept.manifest()).disposed
    assert (gone.key, gone.size, gone.receipt) == (selfie.key, selfie.size, result.receipt.key)
    assert str(gone.started) == str(gone.due) == receipt.requested_at[:10]
    assert gone.archived_at
    (recorded,) = (await kept.manifest()).erased_kinds
    assert (recorded.receipt, recorded.at) == (result.receipt.key, receipt.requested_at)


async def test_an_interrupted_erasure_of_a_kind_is_completed_by_the_same_request(anywhere: KindArchive) -> None:
    # Calls of moto are slow, so only some are interrupted, from a random first one.
    step = 7 if isinstance(anywhere.versions, S3Versions) else 1
    calls, resumes = random.randrange(step), 0  # noqa: S311  # not a secret
    while True:
        anywhere.evaluation = Evaluation(str(uuid4()), "sandbox")
        await anywhere.archive()
        try:
            await anywhere.erase(countdown=iter(range(calls, -1000, -1)))
        except SimulatedCrash:
            resumes += 1
        else:
            break
        if resumes % 2:
            assert isinstance(await anywhere.erase(), Erased)
        else:
            assert all(isinstance(each, Erased) for each in await anywhere.resume())
            # Until the receipt is written, nothing has changed, and nothing is pending.
            assert isinstance(await anywhere.erase(), Erased)
        assert await is_erased(anywhere)
        calls += step
    assert resumes > 1
    assert await is_erased(anywhere)


async def test_an_erasure_of_a_kind_removes_all_versions_and_documents_stored_meanwhile(anywhere: KindArchive) -> None:
    await anywhere.archive()
    (selfie,) = (await anywhere.manifest()).documents_of(["selfie"])
    stores = anywhere.stores()
    begun = await begin_request(anywhere.evaluation, SELFIES, stores)
    assert isinstance(begun, BegunErasure)
    assert anywhere.count("selfie") == 0
    await anywhere.archive()
    await anywhere.archive(documents(anywhere.evaluation.eval_id, 2, 100))
    assert anywhere.count("selfie") == 2

    result = await finish_request(begun, stores)

    assert isinstance(result, Erased)
    assert anywhere.count("selfie") == 0
    assert selfie.sha256 in result.receipt.receipt.documents
    assert len(result.receipt.receipt.documents) == 2
    assert set(await anywhere.kinds()) == {"document_front", "document_back"}
    assert {each.kind for each in (await anywhere.manifest()).disposed} == {"selfie"}


async def test_documents_of_another_kind_with_the_same_bytes_are_erased_too(kept: KindArchive) -> None:
    kept.evaluation = Evaluation(str(uuid4()), "sandbox")
    front, _, selfie = documents(kept.evaluation.eval_id, 1, 100)
    copy = replace(selfie, name="case_attachments/1.jpg")
    await kept.archive([front, selfie, copy])

    assert isinstance(await kept.erase(), Erased)

    assert (await kept.kinds(), kept.count("selfie"), kept.count("attachment")) == (["document_front"], 0, 0)
    assert {(each.kind, each.sha256) for each in (await kept.manifest()).disposed} == {
        ("selfie", selfie.sha256),
        ("attachment", selfie.sha256),
    }


async def test_kinds_can_be_erased_one_after_the_other_and_then_the_evaluation(kept: KindArchive) -> None:
    for request, left in ((SELFIES, 2), (SELFIES, 2), (FRONTS, 1)):
        assert isinstance(await kept.erase(request), Erased)
        assert len(await kept.kinds()) == left
    manifest = await kept.manifest()
    assert [each.kind for each in manifest.erased_kinds] == ["selfie", "document_front"]
    assert len({each.receipt for each in manifest.disposed}) == 2

    assert isinstance(await kept.erase(WHOLE), Erased)

    marker = await kept.manifest()
    assert (bool(marker.erased), marker.disposed) == (True, ())
    assert [item.key for item in kept.versions.items(kept.evaluation)] == [kept.evaluation.manifest_key]
    assert [each["kinds"] for each in await kept.receipts()] == [["selfie"], ["selfie"], ["document_front"], []]


async def test_an_erasure_of_the_evaluation_completes_the_open_receipts_of_its_kinds(kept: KindArchive) -> None:
    assert isinstance(await begin_request(kept.evaluation, SELFIES, kept.stores()), BegunErasure)
    assert isinstance(await begin_request(kept.evaluation, WHOLE, kept.stores()), BegunErasure)
    refused = await kept.erase(FRONTS)
    assert isinstance(refused, ErasureRefused)
    assert refused.why.startswith("an erasure of the whole evaluation is open")

    assert [type(each) for each in await kept.resume()] == [Erased]

    assert all(each["completed_at"] for each in await kept.receipts())
    refused = await kept.erase()
    assert isinstance(refused, ErasureRefused)
    assert refused.why.startswith("the whole evaluation was erased, see receipts/")
    assert await kept.resume() == []


@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_kind_without_documents_is_not_found(kept: KindArchive, dry_run: bool) -> None:  # noqa: FBT001
    before = await kept.manifest()
    result = await kept.erase(replace(SELFIES, kinds=("attachment",)), dry_run=dry_run)
    assert isinstance(result, WouldErase if dry_run else NotFound)
    assert (result.why or "").startswith("the archive has none of its documents of the kind attachment; --even")
    assert (await kept.manifest(), await kept.receipts()) == (before, [])


async def test_a_dry_run_of_a_kind_changes_nothing(kept: KindArchive) -> None:
    before = await kept.manifest()
    result = await kept.erase(dry_run=True)
    assert isinstance(result, WouldErase)
    assert (result.receipt.objects, result.why) == (1, None)
    assert (await kept.manifest(), await kept.receipts(), kept.count("selfie")) == (before, [], 1)


@pytest.mark.parametrize("is_archived", [True, False])
async def test_even_if_absent_keeps_later_documents_of_the_kind_out(kept: KindArchive, is_archived: bool) -> None:  # noqa: FBT001
    if not is_archived:
        kept.evaluation = Evaluation(str(uuid4()), "sandbox")
    kinds = ("attachment", "selfie") if not is_archived else ("attachment",)
    assert isinstance(await kept.erase(replace(SELFIES, kinds=kinds, even_if_absent=True)), Erased)
    manifest = await kept.manifest()
    assert [each.kind for each in manifest.erased_kinds] == list(kinds)
    assert manifest.is_provisional is not is_archived, "the other documents are still requested from RiskOS"

    await kept.archive(documents(kept.evaluation.eval_id, 2, 100))
    assert ("selfie" in await kept.kinds()) is is_archived


async def test_an_evaluation_of_the_other_environment_is_reported(kept: KindArchive) -> None:
    kept.evaluation = Evaluation(kept.evaluation.eval_id, "production")
    result = await kept.erase()
    assert isinstance(result, NotFound)
    assert "sandbox has 4 objects" in result.why


async def test_an_erasure_of_a_kind_is_refused_under_a_matter(kept: KindArchive) -> None:
    begun = await begin_request(kept.evaluation, SELFIES, kept.stores())
    assert isinstance(begun, BegunErasure)
    await amend(kept.bucket, kept.evaluation, lambda known: known.model_copy(update={"matters": ("acme-v-bolt",)}))
    for result in (await finish_request(begun, kept.stores()), await kept.erase(FRONTS), *(await kept.resume())):
        assert isinstance(result, ErasureRefused)
        assert "it is under the legal hold acme-v-bolt" in result.why
    assert await kept.kinds() == ["document_front", "document_back"]


@pytest.mark.parametrize("is_named", [True, False])
async def test_an_erasure_of_a_kind_is_refused_with_a_bundle_in_quarantine(kept: KindArchive, is_named: bool) -> None:  # noqa: FBT001
    eval_id = kept.evaluation.eval_id
    if is_named:
        await archive_documents(kept.bucket, eval_id, Outcome.UNREADABLE, documents(eval_id, 1, 100))
    else:
        await kept.bucket.create(kept.evaluation.quarantine_key("a" * 64), b"x", _LABELS)
    result = await kept.erase()
    assert isinstance(result, ErasureRefused)
    assert result.why.startswith("one of its bundles is in quarantine and may hold such documents")
    assert (len(await kept.kinds()), await kept.receipts()) == (3, [])


async def test_a_lock_prevents_only_an_erasure_of_its_kind(kept: KindArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    def locks(_: object, items: list[Any], **__: object) -> str | None:
        return "locked" if any("/selfie/" in item.key for item in items) else None

    monkeypatch.setattr(LocalFiles, "locks", locks)
    result = await kept.erase()
    assert isinstance(result, ErasureRefused)
    assert (result.why, await kept.receipts(), len(await kept.kinds())) == ("locked", [], 3)
    assert isinstance(await kept.erase(FRONTS), Erased)


# Workers


async def test_the_receipt_of_a_kind_stays_open_while_a_worker_has_the_evaluation(
    kept: KindArchive, redis: Redis
) -> None:
    ledger, eval_id = Ledger(redis), kept.evaluation.eval_id
    kept.records = RedisRecords(ledger, 0.0)
    await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "default", Trigger("enqueue")))
    (job,) = await ledger.lease([eval_id], token="a-token")
    result = await kept.erase()
    assert isinstance(result, ErasureRefused)
    assert result.why.startswith("a worker still has it")
    await kept.archive()
    await ledger.release(job)

    assert [type(each) for each in await kept.resume()] == [Erased]

    assert await is_erased(kept)
    assert await ledger.locate([eval_id]) == [("queued", None)], "the rest of it is still archived"


async def test_a_worker_whose_lease_has_ended_does_not_delay_the_erasure_of_a_kind(
    kept: KindArchive, redis: Redis
) -> None:
    ledger, eval_id = Ledger(redis), kept.evaluation.eval_id
    kept.records = RedisRecords(ledger, 0.0)
    await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "default", Trigger("enqueue")))
    await ledger.lease([eval_id], token="a-token")
    await redis.zadd("docv:ledger:leased", {eval_id: 1})
    assert isinstance(await kept.erase(), Erased)


async def test_recorded_leftovers_of_an_erased_kind_are_swept(kept: KindArchive, redis: Redis) -> None:
    kept.records = RedisRecords(Ledger(redis), 0.0)
    await kept.erase()
    key = kept.evaluation.document_key("selfie", "a" * 64, "jpg")
    bundle = kept.evaluation.quarantine_key("b" * 64)
    for each in (key, bundle):
        await kept.bucket.create(each, b"late", _LABELS)
        await redis.sadd("docv:erased:leftovers", each)
    stores = kept.stores()
    ((_, result),) = [each async for each in sweep_leftovers(WHOLE, stores, ["sandbox"], dry_run=False)]
    assert isinstance(result, Erased)
    assert (result.receipt.receipt.objects, result.receipt.receipt.kinds) == (2, ("selfie",))
    assert await is_erased(kept)
    assert await redis.exists("docv:erased:leftovers") == 0


# Duties to keep


async def test_only_a_duty_to_keep_the_kind_prevents_its_erasure(kept: KindArchive) -> None:
    kept.duties = RetentionDuties(make_schedule(MUST), BEFORE)
    result = await kept.erase()
    assert isinstance(result, ErasureRefused)
    assert result.why == f"rule 'rule-0' keeps 1 document until {AFTER}; `erase --when-allowed` erases it then"
    assert (await kept.receipts(), len(await kept.kinds())) == ([], 3)
    assert isinstance(await kept.erase(FRONTS), Erased)


@pytest.mark.parametrize("command", ["erase --pending", "retention apply"])
async def test_a_deferred_erasure_of_a_kind_is_carried_out_after_the_day(kept: KindArchive, command: str) -> None:
    kept.duties = RetentionDuties(make_schedule(MUST), BEFORE)
    for _ in range(2):
        assert isinstance(await kept.erase(replace(SELFIES, when_allowed=True)), Waiting)
    assert isinstance(await kept.erase(replace(WHOLE, when_allowed=True)), Waiting)
    assert isinstance(await kept.erase(FRONTS), Erased), (
        "a waiting request for the whole evaluation does not prevent it"
    )
    assert all(isinstance(each, Waiting) for each in await kept.resume())

    kept.duties = RetentionDuties(make_schedule(MUST), AFTER)
    for path in [each async for some in kept.bucket.list_objects("receipts/sandbox/") for each in some]:
        found = await kept.bucket.read(path.key)
        assert found
        if json.loads(found.data)["kinds"] == []:
            assert await kept.bucket.remove([path.key])  # type: ignore[attr-defined]  # a folder
    if command == "retention apply":
        result = await erase_deferred(
            kept.bucket, kept.settings, kept.duties, ["sandbox"], OPERATOR, no_wait, dry_run=False
        )
        assert (result.erased, result.failed) == (1, set())
    else:
        assert [type(each) for each in await kept.resume()] == [Erased]
    assert await kept.kinds() == ["document_back"]
    assert all(each["completed_at"] for each in await kept.receipts())


async def test_documents_under_a_duty_that_are_archived_during_an_erasure_are_not_erased(
    kept: KindArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.duties = RetentionDuties(make_schedule({**MUST, "keep_for": "1d"}), BEFORE)

    async def find(*_: object) -> None:
        await kept.archive(documents(kept.evaluation.eval_id, 2, 100))

    monkeypatch.setattr(RetentionDuties, "find", find)
    result = await kept.erase()
    assert isinstance(result, ErasureRefused)
    assert result.why.startswith("a worker archived more such documents meanwhile")
    assert (await kept.kinds()).count("selfie") == 2


# The command


def test_erase_kind_leaves_an_archive_that_can_be_verified_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCV_ARCHIVE_URL", (tmp_path / "archive").as_uri())
    monkeypatch.setattr("scripts.archive_access.open_bucket.CLOSE_SECONDS", 0)
    monkeypatch.setattr("scripts.erase.command.wait_for_workers", AsyncMock())
    kept = open_kind_archive(Settings(archive_url=(tmp_path / "archive").as_uri()), LocalBucket(tmp_path / "archive"))
    asyncio.run(kept.archive())
    eval_id = kept.evaluation.eval_id

    def run(*arguments: str, given: str = "") -> Any:
        return CliRunner().invoke(main, arguments, input=given)

    erase = ("erase", eval_id, "--kind", "selfie", "--reason", "request 4711")
    unconfirmed = run(*erase, given="n\n")
    assert (unconfirmed.exit_code, "documents of the kind selfie and all their versions" in unconfirmed.stderr) == (
        1,
        True,
    )
    finished = run(*erase, "--yes", "--json")
    assert finished.exit_code == 0, finished.output
    facts = json.loads(finished.stdout)
    assert (facts["state"], facts["kinds"], facts["objects"]) == ("erased", ["selfie"], 1)
    again = run(*erase, "--yes")
    assert (again.exit_code, "erased 0 objects, 0 versions, 0 bytes of the kind selfie" in again.stdout) == (0, True)

    assert run("verify", "-", "--grace", "0", given=eval_id).exit_code == 0
    exported = run("export", eval_id, "--to", "out")
    assert exported.exit_code == 0, exported.output
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 2
    (names,) = (tmp_path / "out").rglob("names.csv")
    assert "under the rule erasure" in names.read_text()
    audited = run("audit", "-", given=eval_id)
    (row,) = csv.DictReader(audited.stdout.splitlines())
    assert (row["outcome"], row["documents"], row["disposed"]) == ("archived", "2", "1")
    assert run("erase", eval_id, "--kind", "passport", "--reason", "x", "--yes").exit_code == 2
    assert run("erase", "--pending", "--kind", "selfie").exit_code == 2
