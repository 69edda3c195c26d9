"""Look one evaluation up in the ledger with plain reads, which a read-only user of Redis may send, too."""

import json
from dataclasses import dataclass

from redis.asyncio import Redis

from tasks.model.account import DEFAULT_ACCOUNT
from tasks.model.job import Queue

KEY_PREFIX = "docv:ledger:"


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """An evaluation in the ledger. Times are seconds since the epoch, of Redis's clock.

    Attributes:
        state: ``queued``, ``leased``, ``parked``, ``held`` or ``dead``.
        cause: what stopped its last attempt, or made it wait; None before that.
        account: name of its account.
        queue: how urgent it is.
        read_at: when this was read.
        due_at: when it is due; None unless it is parked.
    """

    state: str
    cause: str | None
    account: str
    queue: Queue
    read_at: float
    due_at: float | None = None


async def find_entry(redis: "Redis", eval_id: str) -> LedgerEntry | None:
    """Return what the ledger has of an evaluation, dead letters included; None if it does not know it."""
    account = DEFAULT_ACCOUNT
    while True:
        entry = await _read_entry(redis, eval_id, account)
        # Evaluations that wait for their account are kept apart by account, and only the entry names its own.
        if entry is None or entry.account == account:
            return entry
        account = entry.account


async def _read_entry(redis: "Redis", eval_id: str, account: str) -> LedgerEntry | None:
    async with redis.pipeline(transaction=True) as pipe:
        pipe.time()
        for key in ("entries", "dead"):
            pipe.hget(KEY_PREFIX + key, eval_id)
        for key in ("leased", "parked", "held:runs", *(held_key(queue, account) for queue in Queue)):
            pipe.zscore(KEY_PREFIX + key, eval_id)
        (seconds, micro), job, letter, leased, parked, *held = await pipe.execute()
    if not (text := job or letter):
        return None
    facts = json.loads(text)
    is_in = {"leased": leased is not None, "parked": parked is not None, "held": held != [None] * len(held)}
    state = next((name for name, there in is_in.items() if there), "queued") if job else "dead"
    return LedgerEntry(
        state=state,
        cause=facts.get("cause"),
        account=facts["account"],
        queue=Queue(facts["queue"]),
        read_at=seconds + micro / 1e6,
        due_at=parked / 1000 if state == "parked" else None,
    )


def held_key(queue: Queue, account: str) -> str:
    """Return the key, without the prefix, of the evaluations of a queue that wait for an account."""
    return f"held:{queue}" if account == DEFAULT_ACCOUNT else f"held:{queue}:{account}"
