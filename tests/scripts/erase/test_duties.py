"""A rule with keep = "must" prevents an erasure until its period ends; a deferred request is carried out then."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from scripts.erase import erasure
from scripts.erase.duties import RetentionDuties, Waiting
from scripts.erase.erasure import (
    BegunErasure,
    Erased,
    ErasureRefused,
    ErasureResult,
    ErasureStores,
    WouldErase,
    begin_erasure,
    erase_one,
    finish_erasure,
)
from scripts.erase.pending import begin_pending
from scripts.erase.receipt import ErasureRequest, Receipt, StoredReceipt
from scripts.erase.traces import RedisRecords
from scripts.erase.versions import open_versions
from tasks.errors import IntegrityError
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome
from tasks.retention.event import EventReport, record_event
from tasks.retention.schedule import Schedule
from tasks.storage.bucket import Bucket
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.manifest import read_manifest
from tasks.storage.revision import amend
from tests.archives import archive, documents, eval_ids, fill
from tests.commands import Shell
from worker.config.settings import Settings

MINE, OTHER = (Evaluation(each, "sandbox") for each in eval_ids(2))
REQUEST = ErasureRequest("request 4711", "operator", "a-host")
DEFERRED = replace(REQUEST, when_allowed=True)
FRONTS = {"name": "fronts", "kind": "document_front", "keep_for": "5y", "clock": "archived", "keep": "must"}
BEFORE, AFTER = "2031-11-23", "2031-11-24"
"""The last day of the duty, and the day after it; the documents were archived on 2026-11-23."""


def rules(**changes: object) -> dict[str, Any]:
    rule = {name: value for name, value in (FRONTS | changes).items() if value is not None}
    selfies = {"name": "selfies", "kind": "selfie", "keep_for": "9y", "clock": "archived"}
    return {"rule": [rule, selfies]}


@dataclass
class DutyArchive:
    """An archive of documents that a schedule covers.

    Attributes:
        settings: settings that name the archive.
        bucket: the archive.
        schedule: its schedule.
    """

    settings: Settings
    bucket: Bucket
    schedule: Mapping[str, Any]

    def stores(self, day: str) -> ErasureStores:
        duties = RetentionDuties(Schedule.model_validate(self.schedule), date.fromisoformat(day))
        return ErasureStores(self.bucket, open_versions(self.settings), RedisRecords(None), duties=duties)

    async def erase(self, day: str, request: ErasureRequest = REQUEST, *, dry_run: bool = False) -> ErasureResult:
        return await erase_one(MINE, request, self.stores(day), dry_run=dry_run)

    async def resume(self, day: str) -> list[ErasureResult | BegunErasure]:
        """Do what `erase --pending` does."""
        stores, found = self.stores(day), []
        async for _, result in begin_pending(REQUEST, stores, ["sandbox"], dry_run=False):
            done = await finish_erasure(result, stores) if isinstance(result, BegunErasure) else result
            found.append(done)
        return found

    async def receipts(self) -> dict[str, dict[str, Any]]:
        keys = [each.key async for some in self.bucket.list_objects("receipts/sandbox/") for each in some]
        found = {key: await self.bucket.read(key) for key in keys}
        return {key: json.loads(each.data) for key, each in found.items() if each}

    async def is_erased(self) -> bool:
        found = await read_manifest(self.bucket, MINE)
        assert found
        return found.manifest.erased is not None

    async def report(self, day: str) -> None:
        await record_event(
            self.bucket,
            MINE,
            EventReport("account_closed", date.fromisoformat(day), "records"),
            datetime(2025, 1, 1, tzinfo=UTC),
        )


@pytest.fixture
async def kept(tmp_path: Path) -> DutyArchive:
    bucket = LocalBucket(tmp_path / "archive")
    await fill(bucket, [MINE.eval_id, OTHER.eval_id], size=100)
    return DutyArchive(Settings(archive_url=(tmp_path / "archive").as_uri()), bucket, rules())


async def test_an_erasure_is_refused_with_rule_and_day_while_a_must_rule_covers_a_document(kept: DutyArchive) -> None:
    for dry_run in (True, False):
        result = await kept.erase(BEFORE, dry_run=dry_run)
        assert isinstance(result, ErasureRefused)
        assert result.why == f"rule 'fronts' keeps 1 document until {AFTER}; `erase --when-allowed` erases it then"
    assert (await kept.receipts(), await kept.is_erased()) == ({}, False)

    assert isinstance(await kept.erase(AFTER), Erased)


async def test_a_may_rule_does_not_prevent_an_erasure(kept: DutyArchive) -> None:
    kept.schedule = rules(keep="may")
    assert isinstance(await kept.erase(BEFORE), Erased)


@pytest.mark.parametrize(
    ("changes", "until"),
    [
        ({"clock": "account_closed"}, "until the event account_closed is reported and its period ends"),
        ({"clock": "captured"}, "until the day of the capture is known and its period ends"),
        ({"clock": None, "keep_for": "forever"}, "forever"),
    ],
)
async def test_a_refusal_without_a_known_day_names_the_condition(
    kept: DutyArchive, changes: dict[str, object], until: str
) -> None:
    kept.schedule = rules(**changes)
    result = await kept.erase(AFTER)
    assert isinstance(result, ErasureRefused)
    assert result.why.startswith(f"rule 'fronts' keeps 1 document {until}")


async def test_a_damaged_manifest_is_not_erased_when_a_rule_might_cover_it(kept: DutyArchive, tmp_path: Path) -> None:
    (tmp_path / "archive" / MINE.manifest_key).write_text("{}")
    with pytest.raises(IntegrityError):
        await kept.erase(AFTER)
    kept.schedule = rules(keep="may")
    assert isinstance(await kept.erase(BEFORE), Erased)


async def test_a_deferred_request_is_recorded_once_and_carried_out_after_the_day(kept: DutyArchive) -> None:
    first, again = await kept.erase(BEFORE, DEFERRED), await kept.erase(BEFORE, DEFERRED)
    assert isinstance(first, Waiting)
    assert first == again
    assert first.duty.wait().startswith(f"waits until {AFTER}: rule 'fronts' keeps 1 document")
    ((key, receipt),) = (await kept.receipts()).items()
    assert first.receipt == key
    assert (receipt["waits_for"], receipt["not_before"], receipt["completed_at"]) == (["fronts"], AFTER, None)
    assert (receipt["objects"], receipt["reason"], await kept.is_erased()) == (0, "request 4711", False)
    assert isinstance(await kept.erase(BEFORE), ErasureRefused)

    assert await kept.resume(BEFORE) == [first]
    (done,) = await kept.resume(AFTER)

    assert isinstance(done, Erased)
    ((_, receipt),) = (await kept.receipts()).items()
    assert (receipt["objects"], len(receipt["documents"]), receipt["reason"]) == (4, 3, "request 4711")
    assert receipt["completed_at"] >= receipt["begun_at"] > receipt["requested_at"]
    assert await kept.is_erased()
    assert await kept.resume(AFTER) == []


async def test_a_deferred_request_follows_a_later_report_of_the_event(kept: DutyArchive) -> None:
    kept.schedule = rules(clock="account_closed")
    waiting = await kept.erase(AFTER, DEFERRED)
    assert isinstance(waiting, Waiting)
    assert (waiting.duty.not_before, (await kept.receipts())[waiting.receipt or ""]["not_before"]) == (None, None)

    await kept.report("2027-01-01")

    (waiting,) = await kept.resume("2032-01-01")
    assert isinstance(waiting, Waiting)
    assert waiting.duty.not_before == date(2032, 1, 2)
    (done,) = await kept.resume("2032-01-02")
    assert isinstance(done, Erased)


async def test_a_deferred_request_in_a_dry_run_changes_nothing(kept: DutyArchive) -> None:
    result = await kept.erase(BEFORE, DEFERRED, dry_run=True)
    assert isinstance(result, Waiting)
    assert (result.receipt, await kept.receipts()) == (None, {})
    await kept.erase(BEFORE, DEFERRED)
    result = await kept.erase(AFTER, dry_run=True)
    assert isinstance(result, WouldErase)
    assert (result.receipt.objects, await kept.is_erased()) == (4, False)


async def test_erase_prints_refused_and_waiting_requests(kept: DutyArchive, tmp_path: Path) -> None:
    assert kept
    (tmp_path / "retention.toml").write_text(
        '[[rule]]\nname = "fronts"\nkind = "document_front"\nkeep_for = "forever"\nkeep = "must"\n'
    )
    shell = Shell(tmp_path, {"DOCV_RETENTION": "retention.toml"})
    erase = ("erase", MINE.eval_id, "--reason", "request 4711", "--yes", "--json")

    refused = await shell.run(*erase)
    assert (refused.code, json.loads(refused.out)["state"]) == (1, "refused")
    waiting = await shell.run(*erase, "--when-allowed")
    facts = json.loads(waiting.out)
    assert (waiting.code, facts["state"], facts["waits_for"], facts["not_before"]) == (0, "waiting", ["fronts"], None)
    pending = await shell.run("erase", "--pending")
    assert pending.code == 0, pending.err
    assert "waits until the schedule changes: rule 'fronts' keeps 1 document forever" in pending.out


async def test_an_evaluation_that_is_archived_again_during_the_wait_is_kept(kept: DutyArchive) -> None:
    kept.schedule = rules(clock="account_closed")
    await kept.report("2020-01-01")
    begun = await begin_erasure(MINE, REQUEST, kept.stores(AFTER))
    assert isinstance(begun, BegunErasure)
    await archive(kept.bucket, MINE.eval_id, Outcome.ARCHIVED, documents(MINE.eval_id, 1, 100))

    result = await finish_erasure(begun, kept.stores(AFTER))

    assert isinstance(result, ErasureRefused)
    assert "until the event account_closed is reported" in result.why
    found = await read_manifest(kept.bucket, MINE)
    assert found
    assert len(found.manifest.documents) == 3
    assert [await kept.bucket.digest(each.key) for each in found.manifest.documents] == [
        each.sha256 for each in found.manifest.documents
    ]


@pytest.mark.parametrize(("erasure_request", "expected"), [(REQUEST, ErasureRefused), (DEFERRED, Waiting)])
async def test_a_document_that_a_worker_adds_while_the_erasure_begins_is_kept(
    kept: DutyArchive, monkeypatch: pytest.MonkeyPatch, erasure_request: ErasureRequest, expected: type
) -> None:
    late, real = Evaluation(eval_ids(3)[2], "sandbox"), erasure.begin
    front, *others = documents(late.eval_id, 1, 100)
    await archive(kept.bucket, late.eval_id, Outcome.ARCHIVED, others)

    async def begin_then_archive(bucket: Bucket, receipt: Receipt) -> StoredReceipt:
        begun = await real(bucket, receipt)
        if not receipt.waits_for:
            await archive(bucket, late.eval_id, Outcome.ARCHIVED, [front, *others])
        return begun

    monkeypatch.setattr(erasure, "begin", begin_then_archive)
    result = await erase_one(late, erasure_request, kept.stores(BEFORE))
    assert isinstance(result, expected)

    found = await read_manifest(kept.bucket, late)
    assert found
    assert len(found.manifest.documents) == 3
    assert all([await kept.bucket.digest(each.key) == each.sha256 for each in found.manifest.documents])
    assert [type(each) for each in await kept.resume(BEFORE)] == [expected]
    assert [type(each) for each in await kept.resume(AFTER)] == [Erased]
    assert all(each["completed_at"] for each in (await kept.receipts()).values())


async def test_a_matter_prevents_a_deferred_erasure_when_the_duty_has_ended(kept: DutyArchive) -> None:
    await name_matters(kept, "acme-v-bolt")
    assert isinstance(await kept.erase(BEFORE), ErasureRefused)
    assert isinstance(await kept.erase(BEFORE, DEFERRED), Waiting)

    (refused,) = await kept.resume(AFTER)
    assert isinstance(refused, ErasureRefused)
    assert "it is under the legal hold acme-v-bolt" in refused.why
    assert not await kept.is_erased()

    await name_matters(kept)
    assert [type(each) for each in await kept.resume(AFTER)] == [Erased]


async def name_matters(kept: DutyArchive, *matters: str) -> None:
    await amend(kept.bucket, MINE, lambda known: known.model_copy(update={"matters": matters}))
