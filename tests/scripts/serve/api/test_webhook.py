"""An event answered with 200 is in the ledger, and nothing of it is stored anywhere else."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from structlog.testing import capture_logs

from scripts.serve.http.limits import HttpLimits
from tasks.ledger.ledger import Ledger
from tasks.model.job import Queue
from tasks.model.outcome import Evidence
from tests.faults.redis_server import RedisServer
from tests.scripts.serve.conftest import TOKEN, Client, dump_redis, event, running_client, settings_for
from worker.config.settings import Settings

# It contains a space, so it is not a valid event ID. Valid event IDs are stored.
CANARY = "canary 5d1e77c0"


async def read_entry(redis: Redis, eval_id: str) -> dict[str, Any] | None:
    text = await redis.hget("docv:ledger:entries", eval_id)
    return json.loads(text) if text else None


async def test_an_event_is_in_the_ledger_and_on_its_queue(client: Client, redis: Redis, eval_id: str) -> None:
    result = {"documentType": {"type": "Military"}, "reasonCodes": ["R844"]}
    step = {"enrichment_provider": "SocureDocRequest", "response": {"documentVerification": result}}
    payload = event(eval_id, data={"data_enrichments": [step]})
    answer = await client.deliver(payload)
    assert (answer.status, answer.json) == (200, {"result": "accepted"})
    (entry,) = await Ledger(redis).lease([eval_id], token="t")
    assert (entry.queue, entry.account, entry.refresh) == (Queue.LIVE, "default", False)
    assert set(entry.evidence) == {Evidence.MILITARY_ID, Evidence.UNDER_AGE, Evidence.DOCV_STEP}
    assert (entry.event_at, entry.without_request) == (1_767_225_600, False)
    assert (entry.trigger.source, entry.trigger.run) == ("webhook", None)
    assert (entry.trigger.event_type, entry.trigger.event_id) == ("evaluation_completed", payload["event_id"])
    assert await redis.llen("docv:live") == 1


@pytest.mark.parametrize(
    ("event_type", "ask_without_docv", "without_request"),
    [
        ("evaluation_completed", False, True),
        ("evaluation_completed", True, False),
        ("reevaluation", False, False),
        ("case_attachment_added", False, False),
    ],
)
async def test_no_request_is_sent_for_a_completed_evaluation_without_a_docv_step(
    settings: Settings, redis: Redis, eval_id: str, event_type: str, *, ask_without_docv: bool, without_request: bool
) -> None:
    payload = event(eval_id, event_type=event_type, data={"data_enrichments": [{"enrichment_provider": "SocureKYC"}]})
    async with running_client(settings.model_copy(update={"ask_without_docv": ask_without_docv})) as client:
        assert (await client.deliver(payload)).json == {"result": "accepted"}
    (job,) = await Ledger(redis).lease([eval_id], token="t")
    assert (job.evidence, job.without_request) == ((Evidence.NO_DOCV_STEP,), without_request)


async def test_a_recent_event_waits_in_the_ledger_until_it_has_settled(client: Client, redis: Redis) -> None:
    assert (await client.deliver(event(event_at="2999-01-01T00:00:00Z"))).status == 200
    stats = await Ledger(redis).get_stats()
    assert (stats.parked, await redis.llen("docv:live")) == (1, 0)
    assert stats.next_due is not None
    assert 10 < stats.next_due <= 15


async def test_a_repeated_event_is_answered_and_ignored(client: Client, redis: Redis, eval_id: str) -> None:
    payload = event(eval_id)
    await client.deliver(payload)
    await redis.hdel("docv:ledger:entries", eval_id)
    answer = await client.deliver(payload)
    assert (answer.status, answer.json) == (200, {"result": "repeated"})
    assert await read_entry(redis, eval_id) is None


async def test_an_event_id_with_other_content_is_another_event(client: Client, redis: Redis) -> None:
    one, other = str(uuid4()), str(uuid4())
    for eval_id in (one, other):
        assert (await client.deliver(event(eval_id, event_id="same"))).json == {"result": "accepted"}
    assert await redis.hlen("docv:ledger:entries") == 2


async def test_an_event_without_an_id_is_never_a_repetition(client: Client, redis: Redis) -> None:
    payload = event(event_id=None)
    for _ in range(2):
        assert (await client.deliver(payload)).json == {"result": "accepted"}
    assert await redis.hlen("docv:ledger:entries") == 1


async def test_a_changed_evaluation_is_requested_again(client: Client, redis: Redis, eval_id: str) -> None:
    await client.deliver(event(eval_id, event_type="case_attachment_added"))
    entry = await read_entry(redis, eval_id)
    assert entry
    assert entry["refresh"] is True


@pytest.mark.parametrize(
    ("change", "result"),
    [
        ({"event_type": "case_notes_added"}, "ignored_type"),
        ({"data": {"environment_name": ""}}, "test_ping"),
        ({"data": {"environment_name": "Production"}}, "other_environment"),
    ],
)
async def test_an_ignored_event_is_answered_and_counted(
    client: Client, redis: Redis, change: dict[str, Any], result: str
) -> None:
    answer = await client.deliver(event(**change))
    assert (answer.status, answer.json) == (200, {"result": result})
    assert not await redis.keys("docv:*")
    assert f'docv_webhook_events_total{{result="{result}"}} 1.0' in await client.metrics()


async def test_an_unusable_event_is_stored_without_its_text(client: Client, redis: Redis) -> None:
    payload = event(data={"eval_id": CANARY})
    with capture_logs() as logged:
        answer = await client.deliver(payload)
    assert (answer.status, answer.json) == (200, {"result": "unusable"})
    ((_, kept),) = await redis.xrange("docv:refusals")
    assert (kept["cause"], kept["source"]) == ("bad_event", "webhook")
    assert (kept["message"], kept["event_type"]) == (payload["event_id"], "evaluation_completed")
    line = next(line for line in logged if line["event"] == "webhook.unusable")
    assert (line["event_type"], line["cause"]) == ("evaluation_completed", "bad_eval_id")
    assert line["event_id"] == payload["event_id"]
    assert CANARY not in f"{logged} {kept}"


async def test_no_event_is_acknowledged_when_redis_is_full(client: Client, redis: Redis) -> None:
    payload = event()
    await redis.config_set("maxmemory", 1)
    try:
        answer = await client.deliver(payload)
    finally:
        await redis.config_set("maxmemory", 0)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert "full" in answer.json["error"]
    assert (await client.deliver(payload)).json == {"result": "accepted"}


async def test_no_event_is_acknowledged_when_redis_is_down_or_frozen(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "own-redis")
    await server.start()
    try:
        async with running_client(settings_for(server.url, tmp_path), HttpLimits(redis_seconds=1.0)) as client:
            payload = event()
            server.freeze()
            frozen = await client.deliver(payload)
            unusable = await client.deliver(event(data={"eval_id": None}))
            ignored = await client.deliver(event(event_type="decision_update"))
            server.thaw()
            await server.kill()
            down = await client.deliver(payload)
            assert (frozen.status, unusable.status, down.status, ignored.status) == (503, 503, 503, 200)
            assert frozen.headers["Retry-After"] == down.headers["Retry-After"] == "5"
            assert 'result="not_kept"} 3.0' in await client.metrics()
            await server.start()
            assert (await client.deliver(payload)).status == 200
            assert (await client.deliver(payload)).json == {"result": "repeated"}
    finally:
        await server.kill()


async def test_concurrent_events_are_all_accepted(client: Client, redis: Redis) -> None:
    eval_ids = [str(uuid4()) for _ in range(50)]
    answers = await asyncio.gather(*(client.deliver(event(eval_id)) for eval_id in eval_ids))
    assert {answer.status for answer in answers} == {200}
    assert set(await redis.hkeys("docv:ledger:entries")) == set(eval_ids)


# -- Arbitrary bodies

NAMES = st.sampled_from(
    ["event_id", "event_at", "event_type", "data", "eval_id", "environment_name", "documentType", "reasonCodes", CANARY]
)
LEAVES = st.sampled_from(
    ["evaluation_completed", "reevaluation", "Sandbox", "", "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "R844", CANARY]
)
VALUES = st.recursive(
    LEAVES | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
TYPES = st.sampled_from(["evaluation_completed", "reevaluation", "case_attachment_added"])
BODIES = VALUES | st.fixed_dictionaries(
    {"event_type": TYPES | VALUES, "data": VALUES}, optional={"event_id": VALUES, "event_at": VALUES}
)


@given(BODIES)
@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=150
)
async def test_any_body_is_answered_and_leaves_no_trace(
    client: Client, redis: Redis, caplog: pytest.LogCaptureFixture, body: Any
) -> None:
    with capture_logs() as logged, caplog.at_level(logging.DEBUG):
        by_webhook = await client.deliver(body)
        by_intake = await client.submit(body, Idempotency_Key="key")
    assert by_webhook.status in {200, 400}
    assert by_intake.status in {400, 422}
    assert CANARY not in by_webhook.body.decode()
    assert CANARY not in str(logged)
    assert CANARY not in caplog.text
    assert CANARY not in await dump_redis(redis)


async def test_every_event_is_refused_when_no_webhook_secret_is_set(settings: Settings) -> None:
    async with running_client(settings.model_copy(update={"webhook_secrets": ()})) as client:
        assert (await client.deliver(event())).status == 401
        assert 'result="refused_login"} 1.0' in await client.metrics()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/webhooks/riskos/", 404),
        ("POST", "/webhooks/socure", 404),
        ("PUT", "/webhooks/riskos", 401),
        ("POST", "/webhook/riskos", 401),
    ],
)
async def test_a_wrong_path_gets_another_status_than_a_wrong_secret(
    client: Client, method: str, path: str, status: int
) -> None:
    assert (await client.send(method, path, Authorization=f"Bearer {TOKEN}")).status == status
