"""Each report of an event is a separate record, and the last one received counts."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from tasks.errors import IntegrityError
from tasks.model.evaluation import Evaluation
from tasks.retention.event import EVENTS, EventReport, parse_event, parse_event_day, read_events, record_event
from tasks.storage.bucket import Bucket, ObjectAttributes
from tasks.storage.local_bucket import LocalBucket

EVALUATION = Evaluation("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "production")
NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
CLOSED = EventReport("account_closed", date(2026, 11, 1), "records")


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return LocalBucket(tmp_path)


async def list_keys(bucket: Bucket) -> list[str]:
    return [each.key async for some in bucket.list_objects(EVENTS) for each in some]


async def test_an_event_is_recorded_once_however_often_it_is_reported(bucket: Bucket) -> None:
    first = await record_event(bucket, EVALUATION, CLOSED, NOW)
    again = await record_event(bucket, EVALUATION, CLOSED, NOW + timedelta(days=1))

    assert first is not None
    assert again is None
    assert await read_events(bucket, EVALUATION) == {"account_closed": first}
    assert first.received == date(2026, 11, 29)
    assert len(await list_keys(bucket)) == 1


async def test_a_correction_is_a_separate_record_and_takes_precedence(bucket: Bucket) -> None:
    await record_event(bucket, EVALUATION, CLOSED, NOW)
    corrected = await record_event(bucket, EVALUATION, EventReport("account_closed", date(2026, 11, 3), "b"), NOW)
    other = await record_event(bucket, EVALUATION, EventReport("last_contact", date(2026, 1, 1), "b"), NOW)

    assert await read_events(bucket, EVALUATION) == {"account_closed": corrected, "last_contact": other}
    assert len(await list_keys(bucket)) == 3


async def test_a_correction_takes_precedence_even_if_the_clock_of_its_machine_is_behind(bucket: Bucket) -> None:
    await record_event(bucket, EVALUATION, CLOSED, NOW)
    report = EventReport("account_closed", date(2026, 10, 1), "b")
    corrected = await record_event(bucket, EVALUATION, report, NOW - timedelta(hours=1))

    assert (await read_events(bucket, EVALUATION))["account_closed"] == corrected


async def test_an_event_can_be_withdrawn_and_reported_again(bucket: Bucket) -> None:
    withdrawal = EventReport("account_closed", None, "records")
    assert await record_event(bucket, EVALUATION, withdrawal, NOW) is None, "there is nothing to withdraw"

    await record_event(bucket, EVALUATION, CLOSED, NOW)
    await record_event(bucket, EVALUATION, withdrawal, NOW)
    assert (await read_events(bucket, EVALUATION))["account_closed"].date is None

    await record_event(bucket, EVALUATION, CLOSED, NOW)
    assert (await read_events(bucket, EVALUATION))["account_closed"].date == date(2026, 11, 1)


async def test_two_reports_at_once_are_both_recorded(bucket: Bucket) -> None:
    reports = [EventReport("account_closed", date(2026, 11, day), "records") for day in (1, 2)]
    await asyncio.gather(*(record_event(bucket, EVALUATION, each, NOW) for each in reports))

    assert len(await list_keys(bucket)) == 2
    assert (await read_events(bucket, EVALUATION))["account_closed"].date in {each.date for each in reports}


@pytest.mark.parametrize("data", [b"", b"{}", b'{"schema": 2}'])
async def test_a_damaged_record_is_not_ignored(bucket: Bucket, data: bytes) -> None:
    await bucket.create(f"{EVENTS}production/{EVALUATION.eval_id}/x.json", data, ObjectAttributes("application/json"))

    with pytest.raises(IntegrityError, match="damaged or of a newer format"):
        await read_events(bucket, EVALUATION)


async def test_a_record_of_another_evaluation_is_refused(bucket: Bucket) -> None:
    record = await record_event(bucket, EVALUATION, CLOSED, NOW)
    assert record
    other = Evaluation("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a11", "production")
    await bucket.create(
        f"{EVENTS}production/{other.eval_id}/x.json", record.as_json(), ObjectAttributes("application/json")
    )

    with pytest.raises(IntegrityError, match="of another evaluation"):
        await read_events(bucket, other)


@pytest.mark.parametrize(
    "text", ["", "2025-02-29", "2026-11-31", "20261129", "2026-11-29T00:00", "2026-W01-1", "\uff12026-01-01"]
)
def test_a_day_that_does_not_exist_or_has_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the date is not valid: expected YYYY-MM-DD"):
        parse_event_day(text, NOW.date())


def test_the_day_of_an_event_may_be_today_but_not_later() -> None:
    assert parse_event_day("2024-02-29", NOW.date()) == date(2024, 2, 29)
    assert parse_event_day("2026-11-29", NOW.date()) == NOW.date()
    with pytest.raises(ValueError, match=r"the date lies in the future: today is 2026-11-29 \(UTC\)"):
        parse_event_day("2026-11-30", NOW.date())


def test_only_events_of_the_schedule_are_accepted() -> None:
    assert parse_event("closed", {"closed", "ended"}) == "closed"
    with pytest.raises(ValueError, match="the schedule has no such event: expected closed or ended"):
        parse_event("archived", {"closed", "ended"})
    with pytest.raises(ValueError, match="none of its clocks starts with an event"):
        parse_event("closed", ())
