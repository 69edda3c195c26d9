"""Reports are checked against the archive, and recorded completely even if the process dies at any call."""

import itertools
from datetime import date
from pathlib import Path
from typing import Any

from scripts.retention.event_recorder import EventRecorder, ReportResult
from scripts.retention.event_rows import RefusedRow, ReportRow
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome
from tasks.retention.event import event_prefix, read_events
from tasks.storage.bucket import ObjectAttributes
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.manifest import read_manifest
from tasks.storage.manifest_records import ErasedRecord
from tests.archives import archive, eval_ids
from tests.scripts.erase.test_erasure import CrashingWrapper, SimulatedCrash

(EVAL_ID,) = eval_ids(1)
EVALUATION = Evaluation(EVAL_ID, "sandbox")
CLOSED, CONTACT = (ReportRow("line 2", EVAL_ID, event, date(2026, 1, 31)) for event in ("closed", "last_contact"))


async def record(bucket: Any, *rows: ReportRow) -> list[ReportResult | RefusedRow]:
    recorder = EventRecorder(bucket, "sandbox", "records")
    if refused := await recorder.check(rows):
        return [problem for _, problem in refused]
    return await recorder.record(rows)


async def test_the_same_command_completes_a_recording_that_died_at_any_call(tmp_path: Path) -> None:
    results = list[list[ReportResult | RefusedRow]]()
    for number in itertools.count():
        bucket = LocalBucket(tmp_path / str(number))
        await archive(bucket, EVAL_ID, Outcome.NO_DOCUMENTS)
        await record(bucket, CLOSED)
        corrected = ReportRow("line 2", EVAL_ID, "closed", date(2026, 2, 1))
        is_done = False
        try:
            await record(CrashingWrapper(bucket, itertools.count(-number)), corrected, CONTACT)
            is_done = True
        except SimulatedCrash:
            results.append(await record(bucket, corrected, CONTACT))

        events = await read_events(bucket, EVALUATION)
        assert {name: each.date for name, each in events.items()} == {
            "closed": date(2026, 2, 1),
            "last_contact": date(2026, 1, 31),
        }
        assert len([each async for some in bucket.list_objects(event_prefix(EVALUATION)) for each in some]) == 3
        if is_done:
            break
    assert results[0] == [ReportResult.RECORDED] * 2
    assert results[-1] == [ReportResult.UNCHANGED, ReportResult.RECORDED]


async def test_no_event_is_recorded_for_an_evaluation_that_was_erased_since_the_check(tmp_path: Path) -> None:
    bucket = LocalBucket(tmp_path)
    recorder = EventRecorder(bucket, "sandbox", "records")
    await archive(bucket, EVAL_ID, Outcome.NO_DOCUMENTS)
    assert await recorder.check([CLOSED]) == []

    stored = await read_manifest(bucket, EVALUATION)
    assert stored
    erased = ErasedRecord(receipt="receipts/a.json", at="2026-11-23T04:00:00.000Z")
    marker = stored.manifest.model_copy(update={"erased": erased})
    await bucket.replace(
        EVALUATION.manifest_key, marker.as_json(), ObjectAttributes("application/json"), stored.stored.etag
    )

    refused = RefusedRow("line 2", f"{EVAL_ID} was erased")
    assert await recorder.record([CLOSED]) == [refused]
    assert await recorder.check([CLOSED]) == [(CLOSED, refused)]
    assert await read_events(bucket, EVALUATION) == {}
