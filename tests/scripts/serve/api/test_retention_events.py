"""`POST /evaluations/{eval_id}/events` records events in the archive, only for callers that may report them."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from tasks.errors import StorageError
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome
from tasks.retention.event import event_prefix, read_events
from tasks.storage.bucket import Bucket
from tasks.storage.local_bucket import LocalBucket
from tests.archives import archive, eval_ids
from tests.scripts.serve.conftest import (
    INTAKE,
    MONITORING,
    OPERATOR,
    RECORDS,
    TOKEN,
    VIEWER,
    Client,
    Response,
    basic,
    running_client,
    settings_for,
)
from worker.config.settings import Settings

SCHEDULE = '[[rule]]\nname = "all"\nkeep_for = "5y"\nclock = "relationship_ended"\n'
(EVAL_ID,) = eval_ids(1)
EVALUATION = Evaluation(EVAL_ID, "sandbox")
ENDED = {"event": "relationship_ended", "date": "2026-01-31"}


@pytest.fixture
def settings(redis: Redis, redis_url: str, tmp_path: Path) -> Settings:
    assert redis
    (tmp_path / "retention.toml").write_text(SCHEDULE)
    return settings_for(redis_url, tmp_path, retention=tmp_path / "retention.toml")


@pytest.fixture
async def bucket(tmp_path: Path) -> Bucket:
    bucket = LocalBucket(tmp_path / "archive")
    await archive(bucket, EVAL_ID, Outcome.NO_DOCUMENTS)
    return bucket


@pytest.fixture
async def client(settings: Settings, bucket: Bucket) -> AsyncIterator[Client]:
    assert bucket
    async with running_client(settings) as client:
        yield client


async def report(client: Client, body: Any, eval_id: str = EVAL_ID, **headers: str) -> Response:
    headers = {"Authorization": f"Bearer {RECORDS}", **headers}
    return await client.send("POST", f"/evaluations/{eval_id}/events", body, **headers)


async def test_an_event_is_recorded_once_corrected_and_withdrawn(client: Client, bucket: Bucket) -> None:
    answers = [
        await report(client, ENDED),
        await report(client, ENDED, EVAL_ID.upper()),
        await report(client, ENDED | {"date": "2026-02-01"}),
        await report(client, ENDED | {"date": None}),
        await report(client, ENDED | {"date": None}),
    ]

    days = ["2026-01-31", "2026-01-31", "2026-02-01", None, None]
    assert [each.status for each in answers] == [201, 200, 201, 201, 200]
    assert [each.json for each in answers] == [
        {"eval_id": EVAL_ID, "event": "relationship_ended", "date": day, "recorded": recorded}
        for day, recorded in zip(days, [True, False, True, True, False], strict=True)
    ]
    event = (await read_events(bucket, EVALUATION))["relationship_ended"]
    assert (event.date, event.by.startswith("token-")) == (None, True)
    assert len([each async for some in bucket.list_objects(event_prefix(EVALUATION)) for each in some]) == 3


async def test_an_operator_reports_events_under_its_name(client: Client, bucket: Bucket) -> None:
    answer = await report(client, ENDED, Authorization=basic(OPERATOR))

    assert answer.status == 201
    assert (await read_events(bucket, EVALUATION))["relationship_ended"].by == "operator"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": f"Bearer {INTAKE}"}, 403),
        ({"Authorization": basic(VIEWER)}, 403),
        ({"Authorization": f"Bearer {MONITORING}"}, 403),
        ({"Authorization": f"Bearer {TOKEN}"}, 401),
        ({"Authorization": "Bearer x"}, 401),
        ({"Authorization": basic(OPERATOR), "Origin": "https://elsewhere.example"}, 403),
        ({"Authorization": basic(OPERATOR), "Sec_Fetch_Site": "cross-site"}, 403),
    ],
)
async def test_nothing_is_recorded_when_the_caller_may_not_report_events(
    client: Client, bucket: Bucket, headers: dict[str, str], status: int
) -> None:
    assert (await report(client, ENDED, **headers)).status == status
    assert await read_events(bucket, EVALUATION) == {}


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b"{", 400, "the body is not valid JSON"),
        ([], 400, "the body must be a JSON object"),
        ({}, 422, "event: Field required; date: Field required"),
        ({"event": "relationship_ended"}, 422, "date: Field required"),
        (ENDED | {"by": "me"}, 422, "by: Extra inputs are not permitted"),
        (ENDED | {"date": 20260131}, 422, "date: Input should be a valid string"),
        (ENDED | {"date": ""}, 422, "the date is not valid: expected YYYY-MM-DD"),
        (ENDED | {"date": "2025-02-29"}, 422, "the date is not valid: expected YYYY-MM-DD"),
        (ENDED | {"date": "2999-12-31"}, 422, "the date lies in the future"),
        (ENDED | {"event": "archived"}, 422, "the schedule has no such event: expected relationship_ended"),
    ],
)
async def test_a_body_that_is_not_a_valid_event_is_refused(
    client: Client, bucket: Bucket, body: Any, status: int, why: str
) -> None:
    answer = await report(client, body)

    assert answer.status == status
    assert answer.json["error"].startswith(why)
    assert await read_events(bucket, EVALUATION) == {}


async def test_an_evaluation_that_is_not_in_the_archive_gets_no_event(client: Client, tmp_path: Path) -> None:
    answers = [await report(client, ENDED, eval_id) for eval_id in (str(uuid4()), "x")]
    path = tmp_path / "archive" / EVALUATION.manifest_key
    erased = {"erased": {"receipt": "receipts/a.json", "at": "2026-11-23T04:00:00.000Z"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | erased))
    answers.append(await report(client, ENDED))
    path.write_text("{")
    answers.append(await report(client, ENDED))

    assert [each.status for each in answers] == [404, 400, 404, 502]
    assert [answers[at].json["error"] for at in (0, 2)] == [
        "this evaluation is not in the archive",
        "it was erased",
    ]
    assert not (tmp_path / "archive" / "events").exists()


async def test_the_account_selects_the_environment(client: Client) -> None:
    path = f"/evaluations/{EVAL_ID}/events?account=unknown"
    answer = await client.send("POST", path, ENDED, Authorization=f"Bearer {RECORDS}")

    assert (answer.status, answer.json["error"]) == (400, "there is no such account")


@pytest.mark.parametrize("failure", [StorageError("read", "it is down"), TimeoutError()])
async def test_the_answer_is_503_when_the_archive_does_not_answer(
    client: Client, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr("scripts.serve.api.retention_events.record_event", fail)
    answer = await report(client, ENDED)

    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert "the archive does not answer" in answer.json["error"]


async def test_no_event_is_recorded_without_a_schedule(settings: Settings, bucket: Bucket) -> None:
    async with running_client(settings.model_copy(update={"retention": None})) as client:
        answer = await report(client, ENDED)

    assert (answer.status, "DOCV_RETENTION" in answer.json["error"]) == (409, True)
    assert await read_events(bucket, EVALUATION) == {}


async def test_two_reports_at_once_are_both_recorded(client: Client, bucket: Bucket) -> None:
    answers = await asyncio.gather(*(report(client, ENDED | {"date": f"2026-01-0{day}"}) for day in (1, 2, 3)))

    assert {each.status for each in answers} == {201}
    assert (await read_events(bucket, EVALUATION))["relationship_ended"].date in {
        date(2026, 1, day) for day in (1, 2, 3)
    }


async def test_the_access_log_has_the_event_and_neither_its_date_nor_a_secret(client: Client) -> None:
    with capture_logs() as logged:
        await report(client, ENDED)

    begun, recorded = (each for each in logged if each.get("eval_id") == EVAL_ID)
    known = {"role": "records", "name": "relationship_ended", "log_level": "info"}
    assert begun.items() >= {**known, "event": "access.begun", "action": "event.recorded"}.items()
    assert recorded.items() >= {**known, "event": "event.recorded", "recorded": True}.items()
    assert "2026-01-31" not in str(logged)
    assert RECORDS not in str(logged)
