"""Submitted IDs are in the ledger before the request is answered, and invalid IDs are listed."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from scripts.serve.api.submit import MOST_IDS
from tasks.ledger.ledger import Ledger
from tasks.model.job import Queue
from tasks.model.outcome import Evidence
from tests.scripts.serve.conftest import INTAKE, Client, dump_redis, running_client
from worker.config.settings import Settings

CANARY = "canary-91be"


def some_ids(count: int) -> list[str]:
    return [str(uuid4()) for _ in range(count)]


async def test_submitted_ids_are_in_the_ledger_and_on_their_queue(client: Client, redis: Redis, eval_id: str) -> None:
    answer = await client.submit({"eval_ids": [eval_id], "queue": "backfill", "run": "q3", "refresh": True})
    assert (answer.status, answer.json) == (202, {"accepted": 1, "repeated": 0, "under_way": 0, "bad": []})
    (entry,) = await Ledger(redis).lease([eval_id], token="t")
    assert (entry.queue, entry.refresh, entry.trigger.source) == (Queue.BACKFILL, True, "intake")
    assert (await Ledger(redis).runs.get_counters("q3")).total == 1
    assert await redis.llen("docv:backfill") == 1


async def test_the_defaults_are_live_without_run_and_refresh(client: Client, redis: Redis, eval_id: str) -> None:
    assert (await client.submit({"eval_ids": [eval_id]})).status == 202
    (entry,) = await Ledger(redis).lease([eval_id], token="t")
    assert (entry.queue, entry.refresh, entry.trigger.run) == (Queue.LIVE, False, None)


@pytest.mark.parametrize("settle", [30, 30.5, 86_400])
async def test_ids_with_a_settle_delay_are_accepted_and_not_queued_yet(
    client: Client, redis: Redis, eval_id: str, settle: float
) -> None:
    answer = await client.submit({"eval_ids": [eval_id], "settle": settle})
    assert (answer.status, answer.json) == (202, {"accepted": 1, "repeated": 0, "under_way": 0, "bad": []})
    assert await redis.llen("docv:live") == 0
    seconds, _ = await redis.time()
    due = await redis.zscore("docv:ledger:parked", eval_id)
    assert due is not None
    assert due / 1000 - seconds == pytest.approx(settle, abs=10)
    again = await client.submit({"eval_ids": [eval_id], "settle": settle})
    assert (again.json["accepted"], again.json["under_way"]) == (0, 1)


async def test_an_id_with_a_delay_of_zero_is_queued_at_once(client: Client, redis: Redis, eval_id: str) -> None:
    assert (await client.submit({"eval_ids": [eval_id], "settle": 0})).json["accepted"] == 1
    assert await redis.llen("docv:live") == 1


async def test_evidence_of_a_producer_is_stored(client: Client, redis: Redis) -> None:
    military, plain = str(uuid4()), str(uuid4())
    facts = {military.upper(): {"document_type": f"Military {CANARY}", "event_at": "2026-01-31T12:00:00Z"}}
    answer = await client.submit({"eval_ids": [military, plain], "evidence": facts})
    assert (answer.status, answer.json["accepted"]) == (202, 2)
    jobs = await Ledger(redis).lease([military, plain], token="t")
    assert [(job.evidence, job.event_at) for job in jobs] == [((Evidence.MILITARY_ID,), 1_769_860_800.0), ((), None)]
    assert CANARY not in await dump_redis(redis)


async def test_invalid_evidence_is_refused_and_nothing_is_accepted(client: Client, redis: Redis) -> None:
    ids = [str(uuid4()) for _ in range(9)]
    answer = await client.submit({"eval_ids": ids, "evidence": {each: {"colour": CANARY} for each in ids}})
    assert (answer.status, answer.json["error"].count(":")) == (422, 1)
    assert CANARY not in answer.json["error"]
    assert await redis.hlen("docv:ledger:entries") == 0


async def test_each_id_is_counted_once(client: Client) -> None:
    before, new = some_ids(2)
    await client.submit({"eval_ids": [before]})
    answer = await client.submit({"eval_ids": [new, new.upper(), before, "no-id\n", 7, None]})
    assert answer.status == 202
    assert {name: answer.json[name] for name in ("accepted", "repeated", "under_way")} == {
        "accepted": 1,
        "repeated": 1,
        "under_way": 1,
    }
    assert [(bad["index"], bad["text"]) for bad in answer.json["bad"]] == [
        (3, "no-id�"),
        (4, "<int>"),
        (5, "<NoneType>"),
    ]
    metrics = await client.metrics()
    assert 'docv_intake_ids_total{result="bad"} 3.0' in metrics
    assert 'docv_intake_ids_total{result="accepted"} 2.0' in metrics


async def test_a_request_without_a_valid_id_is_refused_with_the_same_schema(client: Client, redis: Redis) -> None:
    answer = await client.submit({"eval_ids": ["a", "a"]})
    assert (answer.status, len(answer.json["bad"])) == (422, 2)
    assert not await redis.keys("docv:*")


async def test_the_maximum_number_of_ids_is_accepted(client: Client, redis: Redis) -> None:
    ids = some_ids(MOST_IDS)
    answer = await client.submit({"eval_ids": ids, "queue": "backfill"})
    assert (answer.status, answer.json["accepted"]) == (202, MOST_IDS)
    assert await redis.hlen("docv:ledger:entries") == MOST_IDS
    assert (await client.submit({"eval_ids": [*ids, "x"]})).status == 422


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "eval_ids: "),
        ({"eval_ids": []}, "eval_ids: "),
        ({"eval_ids": "text"}, "eval_ids: "),
        ({"eval_ids": ["a"], "queue": "fast"}, "queue: "),
        ({"eval_ids": ["a"], "refresh": "yes"}, "refresh: "),
        ({"eval_ids": ["a"], "refresh": 1}, "refresh: "),
        ({"eval_ids": ["a"], "run": "two words"}, "run: the name of a run has"),
        ({"eval_ids": ["a"], "run": 7}, "run: "),
        ({"eval_ids": ["a"], "colour": "red"}, "colour: "),
        ({"eval_ids": ["a"], "settle": -1}, "settle: Input should be greater than or equal to 0"),
        ({"eval_ids": ["a"], "settle": 86_401}, "settle: Input should be less than or equal to 86400"),
        ({"eval_ids": ["a"], "settle": 10**400}, "settle: "),
        ({"eval_ids": ["a"], "settle": 1e300}, "settle: Input should be less than or equal to 86400"),
        ({"eval_ids": ["a"], "settle": "30"}, "settle: Input should be a valid number"),
        ({"eval_ids": ["a"], "settle": True}, "settle: Input should be a valid number"),
        ({"eval_ids": ["a"], "settle": None}, "settle: Input should be a valid number"),
        ({"eval_ids": ["a"], "evidence": {"a": {"reason_codes": "R844"}}}, "evidence: reason_codes must be a list"),
        ({"eval_ids": ["a"], "evidence": None}, "evidence: expected IDs of eval_ids"),
        ({"eval_ids": ["a"], "evidence": {"b": {}, "c": {}}}, "evidence: 2 of its IDs are not in eval_ids"),
        ({"eval_ids": ["a"], "evidence": {str(n): 7 for n in range(9)}}, "evidence: expected IDs of eval_ids"),
    ],
)
async def test_an_invalid_body_is_refused_in_one_sentence(
    client: Client, redis: Redis, body: Any, sentence: str
) -> None:
    answer = await client.submit(body)
    assert answer.status == 422
    assert sentence in answer.json["error"]
    assert not await redis.keys("docv:*")


async def test_nothing_is_accepted_when_redis_is_full(client: Client, redis: Redis, eval_id: str) -> None:
    await redis.config_set("maxmemory", 1)
    try:
        answer = await client.submit({"eval_ids": [eval_id]}, Idempotency_Key="k")
    finally:
        await redis.config_set("maxmemory", 0)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert (await client.submit({"eval_ids": [eval_id]}, Idempotency_Key="k")).status == 202


# -- Idempotency


async def test_a_repeated_request_is_processed_once_and_gets_the_same_answer(client: Client, redis: Redis) -> None:
    body = {"eval_ids": [*some_ids(3), CANARY], "run": "q3"}
    first = await client.submit(body, Idempotency_Key="k-1")
    await redis.delete("docv:ledger:entries")
    second = await client.submit(body, Idempotency_Key="k-1")
    assert (second.status, second.json) == (first.status, first.json)
    assert second.json["bad"][0]["text"] == CANARY
    assert second.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert not await redis.exists("docv:ledger:entries")
    assert CANARY not in await dump_redis(redis)


async def test_concurrent_repetitions_are_processed_once(client: Client, redis: Redis) -> None:
    body = {"eval_ids": some_ids(500)}
    answers = await asyncio.gather(*(client.submit(body, Idempotency_Key="k") for _ in range(10)))
    done = [answer for answer in answers if answer.status == 202 and "Idempotency-Replayed" not in answer.headers]
    assert len(done) == 1
    assert {answer.status for answer in answers} <= {202, 409}
    assert all(answer.headers["Retry-After"] == "1" for answer in answers if answer.status == 409)


async def test_an_idempotency_key_belongs_to_one_body(client: Client) -> None:
    await client.submit({"eval_ids": some_ids(1)}, Idempotency_Key="k")
    other = await client.submit({"eval_ids": some_ids(1)}, Idempotency_Key="k")
    assert other.status == 422
    assert "another body" in other.json["error"]


async def test_idempotency_keys_are_separate_for_each_caller(settings: Settings) -> None:
    second = "token-of-a-producer-2"
    both = settings.model_validate(settings.model_dump() | {"intake_tokens": f"{INTAKE},{second}"})
    async with running_client(both) as client:
        body = {"eval_ids": some_ids(1)}
        await client.submit(body, Idempotency_Key="k")
        other = await client.submit(body, Idempotency_Key="k", Authorization=f"Bearer {second}")
        assert (other.status, other.json["under_way"]) == (202, 1)
        assert "Idempotency-Replayed" not in other.headers


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "schlüssel"])
async def test_an_invalid_idempotency_key_is_refused(client: Client, key: str) -> None:
    answer = await client.submit({"eval_ids": some_ids(1)}, Idempotency_Key=key)
    assert answer.status == 400
    assert "Idempotency-Key" in answer.json["error"]


@pytest.mark.parametrize(
    "body",
    [
        r'{"\ud800": 1}',
        r'{"eval_ids": ["\ud800"]}',
        r'{"eval_ids": ["x"], "account": "\udfff"}',
        r'{"eval_ids": ["x"], "evidence": {"\ud800": {}}}',
    ],
)
async def test_a_lone_surrogate_is_refused(client: Client, body: str) -> None:
    answer = await client.send("POST", "/evaluations", body.encode(), Authorization=f"Bearer {INTAKE}")
    assert (answer.status, answer.json) == (422, {"error": "a name or a string in the body is not valid Unicode"})


async def test_a_surrogate_pair_is_valid_text(client: Client) -> None:
    body = rb'{"eval_ids": ["\ud83d\ude00"]}'
    answer = await client.send("POST", "/evaluations", body, Authorization=f"Bearer {INTAKE}")
    assert (answer.status, answer.json["bad"][0]["text"]) == (422, "😀")
