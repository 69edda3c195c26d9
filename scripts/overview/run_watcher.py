"""Look at a run again and again while it goes on."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

from redis.asyncio import Redis

from scripts.overview.run_progress import open_progress
from scripts.overview.run_snapshot import RunSnapshot
from tasks.ledger.ledger import Ledger
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.account import DEFAULT_ACCOUNT
from tasks.model.job import Queue
from tasks.resilience.holds import ARCHIVE, Holds, backfill_of, scope_of_run
from tasks.resilience.run_holds import list_run_holds
from worker.runtime import cancel_requested


class Speed:
    """How fast something went lately.

    Args:
        lately: seconds that count.
    """

    def __init__(self, lately: float = 30.0) -> None:
        self._lately = lately
        self._points: deque[tuple[float, int]] = deque()

    def observe(self, done: int, now: float) -> float:
        """Learn how much is done; return how much that is a second, 0 while it is not known.

        Args:
            done: all so far.
            now: seconds of a clock that never goes back.
        """
        self._points.append((now, done))
        while now - self._points[0][0] > self._lately and len(self._points) > 1:
            self._points.popleft()
        since, before = self._points[0]
        return (done - before) / (now - since) if now > since else 0.0


async def watch_run(
    redis: "Redis", run: str, account: str = DEFAULT_ACCOUNT, *, patience: float = 10.0
) -> AsyncIterator[RunSnapshot]:
    """Yield a look at a run a few times a second, for as long as somebody wants them.

    Args:
        redis: the client.
        run: name of the run.
        account: with which it is asked for; the holds of another one are none of its concern.
        patience: seconds without a worker before it is said that there is none; one may just be starting.
    """
    ledger, holds, presence, speed = Ledger(redis), Holds(redis), WorkerRegistry(redis), Speed()
    served = time.monotonic()
    while not cancel_requested():
        counters = await ledger.get_run(run)
        if (await presence.count())[Queue.BACKFILL]:
            served = time.monotonic()
        of_run = [hold for hold in await list_run_holds(redis) if hold.scope == scope_of_run(run)]
        yield RunSnapshot(
            counters=counters,
            stats=await ledger.get_stats(),
            holds=[*of_run, *filter(None, await holds.get_each(account, backfill_of(account), ARCHIVE))],
            served=time.monotonic() - served < patience,
            per_second=speed.observe(counters.total - counters.pending, time.monotonic()),
        )
        await asyncio.sleep(0.2)


async def follow_run(
    redis: "Redis", run: str, total: int, account: str, check_worker: Callable[[RunSnapshot], None]
) -> RunSnapshot:
    """Show the progress of a run until nothing is pending, or nothing goes on without a person; return the last look.

    Raises:
        asyncio.CancelledError: the command was told to stop.
    """
    with open_progress(run, total) as progress:
        async for seen in watch_run(redis, run, account):
            progress.update(seen)
            if not seen.counters.pending or seen.refusals:
                return seen
            check_worker(seen)
    raise asyncio.CancelledError
