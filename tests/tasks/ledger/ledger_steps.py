"""Steps of the ledger's tests in Redis. They let time pass by changing scores, so they never wait."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Failure, Job, Queue, Trigger
from tasks.model.outcome import Outcome

PREFIX = "docv:ledger:"
STATES = ("queued:live", "queued:backfill", "leased", "parked", "held:live", "held:backfill")
HOUR = 3600.0
PATIENCE = {Queue.LIVE: HOUR, Queue.BACKFILL: HOUR}
Ending = Callable[[Ledger, Job], Awaitable[None]]
ENDINGS: dict[str, Ending] = {
    "complete": lambda ledger, entry: ledger.complete(entry, Outcome.ARCHIVED),
    "retry_later": lambda ledger, entry: ledger.retry_later(
        entry, wait=60, attempts=1, failure=Failure("service_failed")
    ),
    "await_hold": lambda ledger, entry: ledger.await_hold(entry, cause="account_held"),
    "release": lambda ledger, entry: ledger.release(entry),
    "dead_letter": lambda ledger, entry: ledger.dead_letter(entry, attempts=6, failure=Failure("service_failed")),
}
RELEASES = ("retry_later", "release", "await_hold")


def some_ids(count: int) -> list[str]:
    return [str(uuid4()) for _ in range(count)]


async def accept(
    ledger: Ledger,
    *eval_ids: str,
    queue: Queue = Queue.BACKFILL,
    run: str | None = None,
    **options: Any,
) -> list[str]:
    return await ledger.accept(eval_ids, EnqueueOptions(queue, "default", Trigger("enqueue", run=run), **options))


async def lease_one(ledger: Ledger, eval_id: str, token: str = "ours") -> Job:  # noqa: S107  # not a password
    (entry,) = await ledger.lease([eval_id], token=token)
    return entry


async def accept_and_lease(ledger: Ledger, eval_id: str, *, run: str | None = None) -> Job:
    await accept(ledger, eval_id, run=run)
    return await lease_one(ledger, eval_id)


async def claim(
    ledger: Ledger, *, of_held: int = 0, limit: int = 1000, patience: dict[Queue, float] = PATIENCE
) -> dict[Queue, list[str]]:
    limits = {"default": dict.fromkeys(Queue, of_held)}
    return await ledger.claim(patience=patience, of_held=limits, limit=limit)


async def backdate(redis: Redis, state: str, *eval_ids: str) -> None:
    """Move the times of these evaluations in a state far into the past."""
    assert await redis.zadd(PREFIX + state, dict.fromkeys(eval_ids, 1), xx=True, ch=True) == len(eval_ids)


async def now_in_milliseconds(redis: Redis) -> float:
    seconds, micro = await redis.time()
    return seconds * 1000 + micro / 1000


async def state_of(redis: Redis, eval_id: str) -> str:
    """Return the one state of an evaluation, or "none" if it is not in the ledger."""
    states = [state for state in STATES if await redis.zscore(PREFIX + state, eval_id) is not None]
    assert len(states) == int(await redis.hexists(PREFIX + "entries", eval_id))
    return states[0] if states else "none"


async def dump(redis: Redis) -> dict[str, object]:
    """Return all keys and values in Redis, to check that nothing changed."""
    found: dict[str, object] = {}
    async for key in redis.scan_iter():
        is_hash = await redis.type(key) == "hash"
        found[key] = await redis.hgetall(key) if is_hash else await redis.zrange(key, 0, -1, withscores=True)
    return found
