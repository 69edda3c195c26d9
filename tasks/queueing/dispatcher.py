"""Publish again what is due: what was parked, what a dead worker held, what got lost on the way."""

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
_AT_ONCE = 1000
_LONG = 3600.0
_SHORT = 60.0
_NONE = 5.0


async def dispatch(
    ledger: Ledger,
    publisher: Publisher,
    backlog: Backlog,
    holds: Mapping[str, Mapping[Queue, list[Hold]]],
    fetch_limit: Callable[[str], int] = lambda _: _AT_ONCE,
) -> tuple[int, dict[Queue, list[str]]]:
    """Publish what is due now; return how many evaluations that are, and those that a full Redis did not take.

    The latter have to be worked on without a message: only that makes room again.

    Args:
        backlog: how many messages are in the queues.
        holds: those that concern each queue of each account that this process knows. While one lasts nothing that
            waits for it moves; when it is time for a probe, one evaluation does.
        fetch_limit: how many of those that wait may go now where nothing holds their account.
    """
    of_held = {}
    for name, of_each in holds.items():
        most = fetch_limit(name)
        of_held[name] = {queue: _held_limit(of_each[queue], most) for queue in Queue}
    claimed = await ledger.claim(patience=_patience(backlog), of_held=of_held, limit=_AT_ONCE)
    no_room: dict[Queue, list[str]] = {}
    for queue, eval_ids in claimed.items():
        size = batch_size(queue, len(eval_ids))
        try:
            await asyncio.to_thread(publisher.publish, queue, eval_ids, size)
        except (KombuError, OutOfMemoryError) as error:
            if not is_full(error):
                raise
            no_room[queue] = eval_ids
        else:
            log_events.dispatched(queue, len(eval_ids))
    return sum(map(len, claimed.values())), no_room


def _held_limit(holds: list[Hold], most: int) -> int:
    if not holds:
        return most
    return 0 if any(hold.remaining > 0 for hold in holds) else 1


def _patience(backlog: Backlog) -> dict[Queue, float]:
    """Return for how long an evaluation may stay queued before its message counts as lost (seconds).

    While there are messages in the queue it may be in one of them: a backlog must not multiply them. A queue
    that is empty has none to wait for, except those that a worker has taken a moment ago.
    """
    empty = _SHORT if backlog.unacknowledged else _NONE
    return {queue: _LONG if backlog.waiting[queue] else empty for queue in Queue}
