"""Look up one evaluation in the ledger with plain reads, which a read-only user of Redis may send."""

import json
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from tasks.model.account import DEFAULT_ACCOUNT
from tasks.model.job import Queue
from tasks.model.members import read_member

KEY_PREFIX = "docv:ledger:"
DAMAGED = "damaged_entry"
"""The cause of evaluations whose entry in Redis cannot be read."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """An evaluation in the ledger. Times are seconds since the epoch on Redis's clock.

    Attributes:
        state: ``queued``, ``leased``, ``parked``, ``held``, ``dead`` or ``damaged``.
        cause: why its last attempt failed, or why it waits; None if neither applies.
        account: name of its account.
        queue: its queue.
        read_at: when this was read.
        due_at: when it is due; None unless it is parked.
        leased_until: when the lease ends, or ended; None unless it is leased.
    """

    state: str
    cause: str | None
    account: str
    queue: Queue
    read_at: float
    due_at: float | None = None
    leased_until: float | None = None

    @property
    def has_worker(self) -> bool:
        """Whether a worker has a lease that has not ended."""
        return self.leased_until is not None and self.leased_until > self.read_at


async def find_entry(redis: "Redis", eval_id: str) -> LedgerEntry | None:
    """Return the entry or the dead letter of an evaluation; None if the ledger has neither."""
    account = DEFAULT_ACCOUNT
    while True:
        entry = await _read_entry(redis, eval_id, account)
        # Held evaluations are in a set of their account, and only the entry says which account that is.
        if entry is None or entry.account == account:
            return entry
        account = entry.account


async def _read_entry(redis: "Redis", eval_id: str, account: str) -> LedgerEntry | None:
    async with redis.pipeline(transaction=True) as pipe:
        pipe.time()
        for key in ("entries", "dead", "damaged"):
            pipe.hget(KEY_PREFIX + key, eval_id)
        for key in ("leased", "parked", "held:runs", *(held_key(queue, account) for queue in Queue)):
            pipe.zscore(KEY_PREFIX + key, eval_id)
        (seconds, micro), job, letter, damaged, leased, parked, *held = await pipe.execute()
    if not (text := job or letter or damaged):
        return None
    read_at, facts = seconds + micro / 1e6, read_facts(text)
    if facts is None or not (job or letter):
        return LedgerEntry("damaged", DAMAGED, DEFAULT_ACCOUNT, Queue.BACKFILL, read_at)
    is_in = {"leased": leased is not None, "parked": parked is not None, "held": held != [None] * len(held)}
    state = next((name for name, there in is_in.items() if there), "queued") if job else "dead"
    return LedgerEntry(
        state=state,
        cause=read_text(facts.get("cause")),
        account=facts["account"],
        queue=read_member(Queue, facts["queue"]),
        read_at=read_at,
        due_at=parked / 1000 if state == "parked" else None,
        leased_until=leased / 1000 if state == "leased" else None,
    )


def read_facts(text: str | bytes) -> dict[str, Any] | None:
    """Return the fields of an entry or of a dead letter; None if it is too damaged to name its account and queue."""
    try:
        facts = json.loads(text)
        is_whole = isinstance(facts["account"], str) and isinstance(facts["queue"], str)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return facts if is_whole else None


def read_text(value: object) -> str | None:
    """Return a text of an entry; None if there is none, or if it is damaged."""
    return value if isinstance(value, str) else None


def held_key(queue: Queue, account: str) -> str:
    """Return the key, without the prefix, of the evaluations of a queue that are held for an account."""
    return f"held:{queue}" if account == DEFAULT_ACCOUNT else f"held:{queue}:{account}"
