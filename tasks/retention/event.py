"""Events that start the clocks of a schedule, such as the end of a relationship.

    events/{environment}/{eval_id}/{time}-{hash}.json

Each report of an event is a record of its own, so that the archive alone shows what was known when. The record that
was received last counts; one without a date withdraws the event.
"""

import asyncio
import contextlib
import datetime as dt
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, ValidationError

from tasks.errors import IntegrityError
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket, ObjectAttributes, put
from tasks.storage.manifest_records import UTC_TIME, ArchiveRecord

EVENTS = "events/"
"""Prefix of the keys of all events."""
_LABELS = ObjectAttributes("application/json")
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MAX_BYTES = 4096
_AT_ONCE = 8


class EventRecord(ArchiveRecord):
    """A reported event of one evaluation."""

    schema_: Literal[1] = Field(default=1, alias="schema", description="Version of this format.")
    eval_id: str
    environment: str
    event: str = Field(description="Name of the event, which a rule of the schedule has as its clock.")
    date: dt.date | None = Field(description="Day of the event; null withdraws an earlier report.")
    received_at: str = Field(pattern=UTC_TIME, description="When the report was received.")
    by: str = Field(description="The login or user that reported it.")

    @property
    def received(self) -> dt.date:
        """The day on which the report was received, UTC."""
        return dt.datetime.fromisoformat(self.received_at).astimezone(dt.UTC).date()


def parse_event(text: str, events: Collection[str]) -> str:
    """Return the name of an event, which has to be one of those that the schedule knows.

    Raises:
        ValueError: it is not one of them; the message never quotes it.
    """
    if text not in events:
        known = f"expected {' or '.join(sorted(events))}" if events else "none of its clocks starts with an event"
        raise ValueError(f"the schedule has no such event: {known}")
    return text


def parse_event_day(text: str, today: dt.date) -> dt.date:
    """Return the day of an event.

    Args:
        today: the day, UTC; a later one is refused.

    Raises:
        ValueError: it is not a day in the form YYYY-MM-DD, or is a later one; the message never quotes it.
    """
    day = None
    if _DAY.fullmatch(text):
        with contextlib.suppress(ValueError):
            day = dt.date.fromisoformat(text)
    if day is None:
        raise ValueError("the date is not valid: expected YYYY-MM-DD")
    if day > today:
        raise ValueError(f"the date lies in the future: today is {today} (UTC)")
    return day


@dataclass(frozen=True, slots=True)
class EventReport:
    """A report of an event, before it is recorded.

    Attributes:
        event: name of the event.
        date: its day; None withdraws an earlier report.
        by: the login or user that reports it.
    """

    event: str
    date: dt.date | None
    by: str


def latest_events(records: Iterable[EventRecord]) -> dict[str, EventRecord]:
    """Return the record that counts for each event: the one that was received last."""
    found: dict[str, EventRecord] = {}
    for record in sorted(records, key=lambda each: each.received_at):
        found[record.event] = record
    return found


async def read_events(
    bucket: Bucket, evaluation: Evaluation, keys: Iterable[str] | None = None
) -> Mapping[str, EventRecord]:
    """Return the record that counts for each event of an evaluation.

    Args:
        keys: keys of its records, if they are known already; None to list them.

    Raises:
        IntegrityError: a record is damaged or of a newer format.
        StorageError: the bucket does not answer.
    """
    if keys is None:
        keys = [each.key async for some in bucket.list_objects(event_prefix(evaluation)) for each in some]
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def read(key: str) -> EventRecord | None:
        async with at_once:
            found = await bucket.read(key, _MAX_BYTES)
        return _parse(found.data, evaluation) if found else None

    records = await asyncio.gather(*map(read, keys))
    return latest_events(each for each in records if each)


async def record_event(
    bucket: Bucket, evaluation: Evaluation, report: EventReport, now: dt.datetime
) -> EventRecord | None:
    """Record an event; return the new record, or None if the archive already has the same date.

    Raises:
        IntegrityError: an earlier record is damaged.
        StorageError: the record may not have been written.
    """
    known = (await read_events(bucket, evaluation)).get(report.event)
    if (known.date if known else None) == report.date:
        return None
    # A report always sorts behind the one that it replaces, even if the clock of this machine is behind.
    earliest = [dt.datetime.fromisoformat(known.received_at) + dt.timedelta(microseconds=1)] if known else []
    moment = max([now.astimezone(dt.UTC), *earliest])
    record = EventRecord(
        eval_id=evaluation.eval_id,
        environment=evaluation.environment,
        event=report.event,
        date=report.date,
        received_at=moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        by=report.by,
    )
    data = record.as_json()
    digest = hashlib.sha256(data).hexdigest()
    key = f"{event_prefix(evaluation)}{moment:%Y%m%dT%H%M%S.%fZ}-{digest[:8]}.json"
    await put(bucket, key, data, digest, _LABELS)
    return record


def event_prefix(evaluation: Evaluation) -> str:
    """Return the prefix of the keys of an evaluation's events."""
    return f"{EVENTS}{evaluation.environment}/{evaluation.eval_id}/"


def _parse(data: bytes, evaluation: Evaluation) -> EventRecord:
    try:
        record = EventRecord.model_validate_json(data)
    except ValidationError:
        raise IntegrityError("a retention event is damaged or of a newer format") from None
    if (record.eval_id, record.environment) != (evaluation.eval_id, evaluation.environment):
        raise IntegrityError("a retention event is of another evaluation")
    return record
