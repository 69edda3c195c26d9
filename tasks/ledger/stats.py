"""Count the evaluations of the ledger by their state."""

import json

from redis.asyncio import Redis

from tasks.ledger.counters import LedgerStats
from tasks.ledger.entries import KEY_PREFIX, held_key
from tasks.model.account import DEFAULT_ACCOUNT
from tasks.model.job import Queue

_SETS = ("queued:live", "queued:backfill", "leased", "parked", "held:runs")
_AGED = ("queued:live", "queued:backfill", "parked")


async def read_stats(redis: "Redis") -> LedgerStats:
    """Count the evaluations by their state."""
    accounts = [DEFAULT_ACCOUNT, *sorted(map(str, await redis.smembers(KEY_PREFIX + "accounts")))]
    async with redis.pipeline(transaction=True) as pipe:
        pipe.time()
        for key in (*_SETS, *(held_key(queue, account) for account in accounts for queue in Queue)):
            pipe.zcard(KEY_PREFIX + key)
        for key in _AGED:
            pipe.zrange(KEY_PREFIX + key, 0, 0, withscores=True)
        pipe.hlen(KEY_PREFIX + "dead")
        (seconds, micro), live, backfill, leased, parked, of_runs, *rest, dead = await pipe.execute()
    held, oldest = rest[: -len(_AGED)], rest[-len(_AGED) :]
    now = seconds + micro / 1e6
    due = await redis.hget(KEY_PREFIX + "entries", oldest[2][0][0]) if oldest[2] else None
    age = [now - rows[0][1] / 1000 if rows else 0.0 for rows in oldest]
    return LedgerStats(
        queued={Queue.LIVE: live, Queue.BACKFILL: backfill},
        oldest={Queue.LIVE: age[0], Queue.BACKFILL: age[1]},
        leased=leased,
        parked=parked,
        held={Queue.LIVE: sum(held[::2]), Queue.BACKFILL: sum(held[1::2]) + of_runs},
        next_due=max(0.0, -age[2]) if oldest[2] else None,
        next_cause=json.loads(due).get("cause") if due else None,
        dead_letters=dead,
        held_by_account={
            account: live + backfill
            for account, live, backfill in zip(accounts, held[::2], held[1::2], strict=True)
            if live + backfill
        },
    )
