"""Publish due evaluations again: parked ones, those of dead workers, and those whose message was lost."""

import asyncio
from collections.abc import Callable, Mapping

from kombu.exceptions import KombuError
from redis.exceptions import OutOfMemoryError

from tasks.ledger.ledger import Ledger
from tasks.model.job import Queue
from tasks.queueing.publisher import Backlog, Publisher, batch_size
from tasks.resilience.holds import Hold
from tasks.telemetry import log_events
from worker.clients.redis import is_full

INTERVAL = 1.0
"""Seconds between two rounds of a worker."""
_BACKLOG_PATIENCE = 3600.0
_BUSY_PATIENCE = 60.0
_IDLE_PATIENCE = 5.0
_CLAIM_LIMIT = 1000


async def dispatch(
    ledger: Ledger,
    publisher: Publisher,
    backlog: Backlog,
    holds: Mapping[str, Mapping[Queue, list[Hold]]],
    fetch_limit: Callable[[str], int] = lambda _: _CLAIM_LIMIT,
) -> tuple[int, dict[Queue, list[str]]]:
    """Publish due evaluations; return how many were due, and those whose message a full Redis refused.

    The caller has to process the latter without a message, because only processing frees memory in Redis.

    Args:
        backlog: how many messages are in the queues.
        holds: the holds that affect each queue of each account that this process knows. During a hold, no held
            evaluation is published. Once a probe is due, one is.
        fetch_limit: how many held evaluations of an account may be published now if the account has no hold.

    Raises:
        kombu.exceptions.KombuError: the broker does not answer; later calls publish the evaluations again.
    """
    of_held = {}
    for name, by_queue in holds.items():
        most = fetch_limit(name)
        of_held[name] = {queue: _held_limit(by_queue[queue], most) for queue in Queue}
    claimed = await ledger.claim(patience=_patience(backlog), of_held=of_held, limit=_CLAIM_LIMIT)
    refused: dict[Queue, list[str]] = {}
    for queue, eval_ids in claimed.items():
        size = batch_size(queue, len(eval_ids))
        try:
            await asyncio.to_thread(publisher.publish, queue, eval_ids, size)
        except (KombuError, OutOfMemoryError) as error:
            if not is_full(error):
                raise
            refused[queue] = eval_ids
        else:
            log_events.dispatched(queue, len(eval_ids))
    return sum(map(len, claimed.values())), refused


def _held_limit(holds: list[Hold], most: int) -> int:
    if not holds:
        return most
    return 0 if any(hold.remaining > 0 for hold in holds) else 1


def _patience(backlog: Backlog) -> dict[Queue, float]:
    """Return how long an evaluation may be queued before its message counts as lost (seconds).

    If the queue has messages, the evaluation may be in one of them, and publishing it again would only grow the
    backlog. If it has none, only a message that a worker has just taken can have the evaluation.
    """
    empty = _BUSY_PATIENCE if backlog.unacknowledged else _IDLE_PATIENCE
    return {queue: _BACKLOG_PATIENCE if backlog.waiting[queue] else empty for queue in Queue}
