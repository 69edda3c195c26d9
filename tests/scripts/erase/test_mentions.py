"""The IDs of erased evaluations are removed from Redis; places where they may remain are listed."""

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from scripts.erase.mentions import FILE, NOTES, TAKEN, remove_mentions
from tasks.ledger.ledger import Ledger
from tasks.model.account import DEFAULT_ACCOUNT
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.queueing.publisher import Publisher, count_backlog
from tasks.resilience.holds import Holds
from worker.app import make_publishing_app
from worker.config.settings import Settings


@pytest.fixture
def publisher(redis_url: str) -> Iterator[Publisher]:
    with closing(Publisher(make_publishing_app(Settings(redis_url=SecretStr(redis_url))))) as publisher:
        yield publisher


async def dump_redis(redis: Redis) -> str:
    """Return the text of everything in Redis."""
    found = []
    async for key in redis.scan_iter("*"):
        match await redis.type(key):
            case "list":
                found += await redis.lrange(key, 0, -1)
            case "hash":
                found += [text for pair in (await redis.hgetall(key)).items() for text in pair]
            case "zset":
                found += await redis.zrange(key, 0, -1)
            case "string":
                found.append(await redis.get(key))
    return "\n".join(map(str, found))


async def test_ids_are_removed_from_messages_and_other_ids_stay(redis: Redis, publisher: Publisher) -> None:
    erased, *others = [str(uuid4()) for _ in range(4)]
    publisher.publish(Queue.BACKFILL, [others[0], erased, others[1]], 100)
    publisher.publish(Queue.LIVE, [erased], 1)
    publisher.publish(Queue.LIVE, [others[2]], 1)
    texts = await redis.lrange("docv:backfill", 0, -1)
    await remove_mentions(redis, [erased])
    assert (await count_backlog(redis)).waiting == {Queue.LIVE: 1, Queue.BACKFILL: 1}
    (text,) = await redis.lrange("docv:backfill", 0, -1)
    body = _body(text)
    assert body[1] == {"eval_ids": others[:2], "accepted": True}
    assert _body(texts[0])[1]["eval_ids"] == [others[0], erased, others[1]]
    assert erased not in text
    assert _body((await redis.lrange("docv:live", 0, -1))[0])[1]["eval_ids"] == [others[2]]


async def test_ids_are_removed_from_queues_longer_than_a_page(
    redis: Redis, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.erase.mentions._PAGE", 3)
    erased, others = [str(uuid4()) for _ in range(6)], [str(uuid4()) for _ in range(6)]
    publisher.publish(Queue.LIVE, [*erased[:4], *others[:3], *erased[4:], *others[3:]], 1)
    await remove_mentions(redis, erased)
    texts = await redis.lrange("docv:live", 0, -1)
    assert sorted(_body(text)[1]["eval_ids"][0] for text in texts) == sorted(others)


async def test_ids_are_removed_from_stored_answers(redis: Redis) -> None:
    erased, other = str(uuid4()), str(uuid4())
    await redis.rpush("docv:breaker:default", "+", erased, other)
    await redis.rpush("docv:answers:default", f"1 {erased}", "2 ")
    await redis.hset("docv:answered:default", mapping={"last": erased, "last_at": 1, "before": other})
    await redis.hset("docv:ledger:run:q3", mapping={"total": 3, "refused": f"{other} {erased}"})
    await redis.hset("docv:ledger:run:q4", mapping={"total": 1, "refused": erased})
    for key in ("cancelled", "taken_back"):
        await redis.zadd(f"docv:ledger:{key}", {erased: 1, other: 2})
    await remove_mentions(redis, [erased])
    left = await dump_redis(redis)
    assert erased not in left
    assert left.count(other) == 5
    assert await redis.hget("docv:ledger:run:q3", "total") == "3"


async def test_places_where_ids_remain_are_listed(redis: Redis, publisher: Publisher) -> None:
    erased, other = str(uuid4()), str(uuid4())
    publisher.publish(Queue.LIVE, [erased], 1)
    unacked = await redis.lpop("docv:live")
    await redis.hset("docv:unacked", "a-tag", f'[{unacked}, "", "live"]')
    holds, note = Holds(redis), f"such as for {erased}"
    await holds.place_manual("default", note)
    found = await remove_mentions(redis, [erased, other])
    assert [hold.note for hold in await holds.list_all()] == [note]
    assert {TAKEN, NOTES} <= set(found[erased])
    assert {TAKEN, NOTES}.isdisjoint(found[other])
    assert FILE not in found[erased], "Redis rewrites it"
    assert "logs" in found[other]


async def test_entries_of_other_evaluations_are_unchanged(redis: Redis, publisher: Publisher) -> None:
    others = [str(uuid4()) for _ in range(3)]
    order = EnqueueOptions(Queue.BACKFILL, DEFAULT_ACCOUNT, Trigger("enqueue", "q3"))
    await Ledger(redis).accept(others, order)
    publisher.publish(Queue.BACKFILL, others, 100)
    before = await dump_redis(redis)
    assert all(other in before for other in others)
    await remove_mentions(redis, [str(uuid4())])
    assert sorted((await dump_redis(redis)).splitlines()) == sorted(before.splitlines())


def _body(text: str) -> list[dict[str, Any]]:
    return list(json.loads(base64.b64decode(json.loads(text)["body"])))
