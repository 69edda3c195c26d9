"""Locks of documents under a duty to keep follow the clock. They are only extended, and keep their mode."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from scripts.archive_access.s3_client import S3Archive, open_s3_archive
from scripts.retention.lock_extender import LockExtender
from scripts.retention.walk import WalkedEvaluation
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Restriction
from tasks.retention.event import EventRecord
from tasks.retention.schedule import Schedule
from tasks.storage.manifest_records import RestrictedRecord
from tests.conftest import S3
from tests.retention import answer_lock_requests
from tests.tasks.storage.test_manifest import EVALUATION, manifest, record
from worker.config.settings import Settings

TODAY = date(2026, 11, 29)
DOCUMENT = record("front", kind="document_front", archived_at="2026-01-31T12:00:00.000Z")
RULE = {"name": "fronts", "keep_for": "5y", "clock": "closed", "keep": "must"}
_RETENTION = "<Retention><Mode>{mode}</Mode><RetainUntilDate>{until:%Y-%m-%dT%H:%M:%SZ}</RetainUntilDate></Retention>"


@pytest.fixture
def archive(s3: S3) -> S3Archive:
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.client.put_object_lock_configuration(Bucket=s3.bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    s3.client.put_object(Bucket=s3.bucket, Key=f"kyc/{DOCUMENT.key}", Body=b"front")
    archive = open_s3_archive(Settings(archive_url=f"s3://{s3.bucket}/kyc", s3_endpoint=s3.endpoint))
    assert archive
    return archive


def closed(day: date, received: date) -> Mapping[str, EventRecord]:
    facts = {"eval_id": EVALUATION.eval_id, "environment": EVALUATION.environment, "by": "records", "event": "closed"}
    return {"closed": EventRecord(**facts, date=day, received_at=f"{received}T12:00:00.000Z")}


async def extend_lock(
    archive: S3Archive,
    *,
    locked: tuple[str, date] | None = None,
    events: Mapping[str, EventRecord] | None = None,
    rule: Mapping[str, Any] = RULE,
    days: int = 8,
    today: date = TODAY,
    **facts: Any,
) -> tuple[str, date] | None:
    """Return the new retention of the document, or None if it does not change."""
    retentions = {}
    if locked:
        until = datetime(locked[1].year, locked[1].month, locked[1].day, tzinfo=UTC)
        retentions = {DOCUMENT.key: _RETENTION.format(mode=locked[0], until=until)}
    archive.client.meta.events.register("before-send.s3.GetObjectRetention", answer_lock_requests(retentions))
    requests: list[dict[str, Any]] = []
    archive.client.meta.events.register(
        "provide-client-params.s3.PutObjectRetention", lambda params, **_: requests.append(params["Retention"])
    )
    extender = LockExtender(archive, Schedule.model_validate({"rule": [rule]}), "COMPLIANCE", days, today)
    held = manifest(documents=(DOCUMENT,), **facts)
    await extender.extend(WalkedEvaluation(Evaluation(EVALUATION.eval_id, "production"), held, events or {}))
    assert extender.extended == len(requests)
    return (requests[0]["Mode"], requests[0]["RetainUntilDate"].date()) if requests else None


async def test_a_lock_is_extended_to_the_end_of_the_period_when_an_event_starts_its_clock(archive: S3Archive) -> None:
    events = closed(date(2026, 11, 1), TODAY)

    new = await extend_lock(archive, locked=("GOVERNANCE", date(2026, 12, 5)), events=events)

    assert new == ("GOVERNANCE", date(2031, 11, 2)), "the mode does not change"


async def test_a_document_without_a_lock_gets_one_in_the_mode_of_the_settings(archive: S3Archive) -> None:
    assert await extend_lock(archive, events=closed(date(2026, 11, 1), TODAY)) == ("COMPLIANCE", date(2031, 11, 2))


@pytest.mark.parametrize("until", [date(2031, 11, 2), date(2040, 1, 1)])
async def test_a_lock_is_not_shortened(archive: S3Archive, until: date) -> None:
    events = closed(date(2026, 11, 1), TODAY)
    assert await extend_lock(archive, locked=("COMPLIANCE", until), events=events) is None


@pytest.mark.parametrize(
    ("left", "new"), [(8, None), (5, None), (4, None), (3, date(2026, 12, 8)), (-10, date(2026, 12, 8))]
)
async def test_a_lock_whose_end_is_not_known_is_extended_when_less_than_half_of_it_is_left(
    archive: S3Archive, left: int, new: date | None
) -> None:
    locked = ("GOVERNANCE", TODAY + timedelta(days=left))

    assert await extend_lock(archive, locked=locked) == (new and ("GOVERNANCE", new))
    forever = {"name": "fronts", "keep_for": "forever", "keep": "must"}
    assert await extend_lock(archive, locked=locked, rule=forever) == (new and ("GOVERNANCE", new))


@pytest.mark.parametrize(
    "facts",
    [
        {"rule": {**RULE, "keep": "may"}},
        {"rule": {**RULE, "kind": "selfie"}},
        {"restricted": RestrictedRecord(reason=Restriction.MINOR, evidence=(), withheld=None)},
        {"events": closed(date(2016, 11, 1), TODAY)},
    ],
    ids=["no duty to keep", "no rule", "restricted", "its period has ended"],
)
async def test_a_document_that_need_not_be_kept_is_not_locked(archive: S3Archive, facts: dict[str, Any]) -> None:
    assert await extend_lock(archive, **facts) is None


async def test_each_evaluation_is_checked_once_in_four_weeks_and_after_an_event_was_reported(
    archive: S3Archive,
) -> None:
    days = [TODAY + timedelta(days=number) for number in range(28)]
    checked_days = [day for day in days if await extend_lock(archive, days=3_650, today=day)]
    assert len(checked_days) == 1

    other = next(day for day in days if day not in checked_days)
    assert await extend_lock(archive, days=3_650, today=other, events=closed(date(2026, 11, 1), other))
    reported = closed(date(2026, 11, 1), other - timedelta(days=8))
    assert await extend_lock(archive, days=3_650, today=other, events=reported) is None


async def test_a_missing_object_is_skipped(archive: S3Archive) -> None:
    events = closed(date(2026, 11, 1), TODAY)
    extender = LockExtender(archive, Schedule.model_validate({"rule": [RULE]}), "COMPLIANCE", 8, TODAY)
    for call in ("GetObjectRetention", "PutObjectRetention"):
        archive.client.meta.events.register(f"before-send.s3.{call}", answer_lock_requests({}, "NoSuchKey"))

    await extender.extend(WalkedEvaluation(EVALUATION, manifest(documents=(DOCUMENT,)), events))

    assert extender.extended == 0
