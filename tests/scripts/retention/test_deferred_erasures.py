"""`retention apply` carries out deferred erasures, and completes them after it was killed."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from scripts.archive_access.open_bucket import open_archive_bucket
from scripts.archive_access.s3_client import open_s3_archive
from scripts.erase.duties import RetentionDuties, Waiting
from scripts.erase.erasure import ErasureStores, erase_one
from scripts.erase.receipt import ErasureRequest
from scripts.erase.traces import RedisRecords
from scripts.erase.versions import S3Versions, open_versions
from scripts.retention.apply_command import ApplyOptions, apply_due, apply_plan
from scripts.retention.deferred_erasures import DeferredErasures, carry_out, erase_deferred
from tasks.model.evaluation import Evaluation
from tasks.retention.schedule import Schedule
from tasks.storage.bucket import Bucket
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.manifest import read_manifest
from tests.archives import PREFIX, eval_ids, fill
from tests.conftest import S3
from tests.retention import answer_lock_requests
from tests.scripts.erase.test_erasure import CrashingWrapper, SimulatedCrash
from tests.scripts.retention.disposals import OPERATOR, RetainedArchive, no_wait
from worker.config.settings import Settings

MINE, OTHER = (Evaluation(each, "sandbox") for each in eval_ids(2))
REQUEST = ErasureRequest("request 4711", "operator", "a-host", when_allowed=True)
SCHEDULE: dict[str, Any] = {
    "rule": [{"name": "fronts", "kind": "document_front", "keep_for": "5y", "clock": "archived", "keep": "must"}]
}
BEFORE, AFTER = "2031-11-23", "2031-11-24"


def open_stores(settings: Settings, bucket: Bucket, day: str) -> ErasureStores:
    return ErasureStores(bucket, open_versions(settings), RedisRecords(None), duties=make_duties(day))


def make_duties(day: str) -> RetentionDuties:
    return RetentionDuties(Schedule.model_validate(SCHEDULE), date.fromisoformat(day))


async def apply_deferred(archive: RetainedArchive, day: str) -> DeferredErasures:
    return await erase_deferred(
        archive.bucket, archive.settings, make_duties(day), ["sandbox"], OPERATOR, no_wait, dry_run=False
    )


async def is_erased(bucket: Bucket, evaluation: Evaluation) -> bool:
    found = await read_manifest(bucket, evaluation)
    return found is not None and found.manifest.erased is not None


@pytest.fixture
async def archive(bucket: Bucket, tmp_path: Path) -> RetainedArchive:
    archive = RetainedArchive(Settings(archive_url=(tmp_path / "archive").as_uri()), bucket, dict(SCHEDULE))
    assert isinstance(await erase_one(MINE, REQUEST, open_stores(archive.settings, bucket, BEFORE)), Waiting)
    return archive


@pytest.mark.parametrize("is_unattended", [False, True], ids=["a plan", "unattended"])
async def test_apply_erases_after_the_duty_to_keep_ends_and_plan_counts_deferred_erasures(
    archive: RetainedArchive, capsys: pytest.CaptureFixture[str], *, is_unattended: bool
) -> None:
    archive.schedule = {"rule": [SCHEDULE["rule"][0] | {"then": "review"}]}
    options = ApplyOptions(OPERATOR, 10_000, no_wait, as_json=True)
    states = []
    for day in (BEFORE, AFTER):
        plan, counts = await archive.plan(day)
        assert counts.as_json()["deferred_erasures"] == 1
        survey = archive.survey(day)
        code = await (apply_due(survey, options) if is_unattended else apply_plan(plan, survey, options))
        states.append((code, json.loads(capsys.readouterr().out)["deferred_erasures"]))
    nothing = {"erased": 0, "waiting": 0, "held_back": 0, "failed": 0}
    assert states == [(0, nothing | {"waiting": 1}), (0, nothing | {"erased": 1})]
    assert (await is_erased(archive.bucket, MINE), await is_erased(archive.bucket, OTHER)) == (True, False)
    assert (await archive.plan(AFTER))[1].deferred == 0


async def test_a_damaged_receipt_fails_and_other_requests_are_carried_out(
    archive: RetainedArchive, tmp_path: Path
) -> None:
    damaged = tmp_path / "archive" / "receipts" / "sandbox" / OTHER.eval_id / "20260101T000000.000000Z.json"
    damaged.parent.mkdir()
    damaged.write_text("{}")
    result = await apply_deferred(archive, AFTER)
    assert (result.erased, len(result.failed)) == (1, 1)


async def test_an_object_that_cannot_be_removed_does_not_stop_other_requests(
    archive: RetainedArchive, undeletable: set[str]
) -> None:
    assert isinstance(await erase_one(OTHER, REQUEST, open_stores(archive.settings, archive.bucket, BEFORE)), Waiting)
    undeletable.add(MINE.eval_id)
    result = await apply_deferred(archive, AFTER)
    assert (result.erased, result.failed) == (1, {MINE.eval_id})
    assert await is_erased(archive.bucket, OTHER)
    undeletable.clear()
    result = await apply_deferred(archive, AFTER)
    assert (result.erased, result.failed) == (1, set())


async def test_a_deferred_erasure_that_is_killed_at_any_call_is_completed_by_the_next_apply(tmp_path: Path) -> None:
    for call in itertools.count():
        root = tmp_path / str(call)
        bucket = LocalBucket(root)
        await fill(bucket, [MINE.eval_id], size=10)
        settings = Settings(archive_url=root.as_uri())
        archive = RetainedArchive(settings, bucket, dict(SCHEDULE))
        assert isinstance(await erase_one(MINE, REQUEST, open_stores(settings, bucket, BEFORE)), Waiting)
        stores = cut_off_stores(open_stores(settings, bucket, AFTER), itertools.count(-call))
        try:
            await carry_out([MINE], REQUEST, stores, no_wait, DeferredErasures())
        except SimulatedCrash:
            assert (await apply_deferred(archive, AFTER)).erased in {0, 1}
        else:
            break
        assert await is_erased(bucket, MINE)
        (path,) = (root / "receipts" / "sandbox" / MINE.eval_id).iterdir()
        receipt = json.loads(path.read_text())
        assert receipt["completed_at"]
        assert (receipt["objects"], len(receipt["documents"]), receipt["waits_for"]) == (4, 3, ["fronts"])
        assert [each.key for each in open_versions(settings).items(MINE)] == [MINE.manifest_key]
    assert call > 10


def cut_off_stores(stores: ErasureStores, countdown: Iterator[int]) -> ErasureStores:
    return replace(
        stores,
        bucket=CrashingWrapper(stores.bucket, countdown),
        versions=CrashingWrapper(stores.versions, countdown),
        redis_records=CrashingWrapper(stores.redis_records, countdown),
    )


async def test_an_s3_legal_hold_blocks_a_deferred_erasure_even_after_its_day(s3: S3) -> None:
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.client.put_object_lock_configuration(Bucket=s3.bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    settings = Settings(archive_url=f"s3://{s3.bucket}/{PREFIX}", s3_endpoint=s3.endpoint)
    found = open_s3_archive(settings)
    assert found
    # moto answers GetObjectRetention with 500 for objects without a retention.
    found.client.meta.events.register("before-send.s3.GetObjectRetention", answer_lock_requests({}))
    async with open_archive_bucket(settings) as bucket:
        await fill(bucket, [MINE.eval_id], size=10)
        held = {"Bucket": s3.bucket, "Key": f"{PREFIX}/{MINE.manifest_key}"}
        s3.client.put_object_legal_hold(**held, LegalHold={"Status": "ON"})
        before, after = (
            ErasureStores(bucket, S3Versions(found), RedisRecords(None), duties=make_duties(day))
            for day in (BEFORE, AFTER)
        )
        assert isinstance(await erase_one(MINE, REQUEST, before), Waiting)

        result = DeferredErasures()
        await carry_out([MINE], REQUEST, after, no_wait, result)
        assert (result.held_back, result.erased, await is_erased(bucket, MINE)) == (1, 0, False)
        s3.client.put_object_legal_hold(**held, LegalHold={"Status": "OFF"})
        await carry_out([MINE], REQUEST, after, no_wait, result)
        assert (result.erased, await is_erased(bucket, MINE)) == (1, True)
        assert [each.key for each in S3Versions(found).items(MINE)] == [MINE.manifest_key]
