"""Count the evaluations of the ledger by their state."""

import math
from typing import Any

from redis.asyncio import Redis

from tasks.ledger.counters import LedgerStats
from tasks.ledger.entries import KEY_PREFIX, held_key, read_facts, read_text
from tasks.model.account import DEFAULT_ACCOUNT
from tasks.model.job import Queue

_SETS = ("queued:live", "queued:backfill", "leased", "parked", "held:runs")
_PARKED_SAMPLE = 200
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
        for key in ("dead", "damaged"):
            pipe.hlen(KEY_PREFIX + key)
        (seconds, micro), live, backfill, leased, parked, of_runs, *rest, dead, damaged = await pipe.execute()
    held, oldest = rest[: -len(_AGED)], rest[-len(_AGED) :]
    now = seconds + micro / 1e6
    due = await redis.hget(KEY_PREFIX + "entries", oldest[2][0][0]) if oldest[2] else None
    parked_for = (read_facts(due) or {}) if due else {}
    # A damaged score may be infinite.
    age = [now - rows[0][1] / 1000 if rows and math.isfinite(rows[0][1]) else 0.0 for rows in oldest]
    return LedgerStats(
        queued={Queue.LIVE: live, Queue.BACKFILL: backfill},
        oldest={Queue.LIVE: max(0.0, age[0]), Queue.BACKFILL: max(0.0, age[1])},
        leased=leased,
        parked=parked,
        held={Queue.LIVE: sum(held[::2]), Queue.BACKFILL: sum(held[1::2]) + of_runs},
        next_due=max(0.0, -age[2]) if oldest[2] else None,
        next_cause=read_text(parked_for.get("cause")),
        next_why=read_text(parked_for.get("why")) or "",
        dead_letters=dead,
        damaged=damaged,
        held_by_account={
            account: live + backfill
            for account, live, backfill in zip(accounts, held[::2], held[1::2], strict=True)
            if live + backfill
        },
    )


async def read_last_due(redis: "Redis") -> dict[str, float]:
    """Return the seconds until the last parked evaluation of each run is due, from the 200 that are due last."""
    seconds, micro = await redis.time()
    found: Any = await redis.zrange(KEY_PREFIX + "parked", -_PARKED_SAMPLE, -1, withscores=True)
    if not found:
        return {}
    last: dict[str, float] = {}
    jobs = await redis.hmget(KEY_PREFIX + "entries", [eval_id for eval_id, _ in found])
    for (_, due), job in zip(found, jobs, strict=True):
        runs = (read_facts(job) or {}).get("runs") if job else ()
        if isinstance(runs, list) and math.isfinite(due):
            last |= {str(run): max(0.0, due / 1000 - seconds - micro / 1e6) for run in runs}
    return last
