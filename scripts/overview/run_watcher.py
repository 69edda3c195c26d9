"""Watch a run until it ends."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Protocol

from redis.asyncio import Redis

from scripts.overview.measured_speed import SpeedRecorder
from scripts.overview.run_progress import open_progress
from scripts.overview.run_snapshot import RunSnapshot
from tasks.ledger.counters import RunCounters
from tasks.ledger.ledger import Ledger
from tasks.ledger.stats import read_last_due
from tasks.ledger.worker_registry import WorkerRegistry, is_worker_of_process
from tasks.model.account import DEFAULT_ACCOUNT
from tasks.model.job import Queue
from tasks.resilience.holds import ARCHIVE, Holds, backfill_of, scope_of_run
from tasks.resilience.run_holds import list_run_holds
from worker.clients.errors import ServiceUnavailable
from worker.config.accounts_file import AccountSettings
from worker.runtime import cancel_requested

_LEAST = 10
"""Number of evaluations that have to end before a speed is reported."""


class Speed:
    """Measures the speed of the last seconds.

    Args:
        lately: length of the window, in seconds.
    """

    def __init__(self, lately: float = 30.0) -> None:
        self._lately = lately
        self._points: deque[tuple[float, int]] = deque()

    def observe(self, done: int, now: float) -> float:
        """Record how many are done; return how many are done per second, or 0 while too few are done.

        Args:
            done: number of evaluations that are done so far.
            now: seconds of a monotonic clock.
        """
        if len(self._points) == 1 and self._points[0][1] == done:
            self._points.clear()  # nothing has ended yet, so this was startup time
        self._points.append((now, done))
        while now - self._points[0][0] > self._lately and len(self._points) > 1:
            self._points.popleft()
        since, before = self._points[0]
        is_known = done - before >= _LEAST or now - since >= self._lately / 2
        return (done - before) / (now - since) if now > since and is_known else 0.0


class OwnWorker(Protocol):
    """The worker process that a command starts for its run."""

    @property
    def pid(self) -> int:
        """The ID of the process; another one after a restart."""
        ...

    def check(self, seen: RunSnapshot) -> None:
        """Check that the run can go on, and restart the worker if it died.

        Raises:
            ServiceUnavailable: the run cannot go on.
        """
        ...


async def watch_run(
    redis: "Redis",
    run: str,
    account: str = DEFAULT_ACCOUNT,
    *,
    worker: OwnWorker | None = None,
    patience: float = 10.0,
) -> AsyncIterator[RunSnapshot]:
    """Yield snapshots of a run, a few per second, until the caller stops.

    Args:
        redis: the client.
        run: name of the run.
        account: name of its account; holds of other accounts do not concern it.
        worker: the worker of the command; None if workers elsewhere do the work.
        patience: seconds without a worker before a snapshot reports it, because a worker elsewhere may be restarting.
    """
    ledger, holds, registry, speed = Ledger(redis), Holds(redis), WorkerRegistry(redis), Speed()
    served, registered_pid = time.monotonic(), 0
    while not cancel_requested():
        counters = await _read_counters(redis, ledger, run)
        names = await registry.list_names([Queue.BACKFILL])
        if names:
            served = time.monotonic()
        if worker and any(is_worker_of_process(name, worker.pid) for name in names):
            registered_pid = worker.pid
        of_run = [hold for hold in await list_run_holds(redis) if hold.scope == scope_of_run(run)]
        yield RunSnapshot(
            counters=counters,
            stats=await ledger.get_stats(),
            holds=[*of_run, *filter(None, await holds.get_each(account, backfill_of(account), ARCHIVE))],
            served=bool(names) or time.monotonic() - served < patience,
            is_worker_starting=worker is not None and not names and worker.pid != registered_pid,
            per_second=speed.observe(counters.total - counters.pending, time.monotonic()),
        )
        await asyncio.sleep(0.2)


async def _read_counters(redis: "Redis", ledger: Ledger, run: str) -> RunCounters:
    counters = await ledger.runs.get_counters(run)
    if not counters.states.get("parked"):
        return counters
    return replace(counters, last_due=(await read_last_due(redis)).get(run, 0.0))


class RunLost(ServiceUnavailable):
    """Redis no longer has a run that this command began: it was emptied, or a failover chose an empty replica."""

    def __init__(self) -> None:
        super().__init__(
            "Redis has lost the run; run the same command again: archived evaluations are not requested again"
        )


def check_run(counters: RunCounters, total: int) -> None:
    """Check that Redis still has a run of ``total`` evaluations.

    Raises:
        RunLost: it has fewer of them, or none.
    """
    if counters.total < total:
        raise RunLost


async def follow_run(
    redis: "Redis", run: str, total: int, account: AccountSettings, worker: OwnWorker | None
) -> RunSnapshot:
    """Show the progress of a run until nothing is pending, or only an operator can continue; return the last snapshot.

    The speed that the workers reached is stored for the plan of the next backfill.

    Raises:
        RunLost: Redis no longer has the run.
        ServiceUnavailable: ``worker`` cannot go on with it.
        asyncio.CancelledError: the command was told to stop.
    """
    recorder = SpeedRecorder(redis, account)
    with open_progress(run, total) as progress:
        async for seen in watch_run(redis, run, account.name, worker=worker):
            check_run(seen.counters, total)
            progress.update(seen)
            is_busy = bool(seen.counters.active) and not seen.holds
            await recorder.observe(seen.counters, time.monotonic(), is_busy=is_busy)
            if not seen.counters.pending or seen.refusals:
                return seen
            if worker:
                worker.check(seen)
    raise asyncio.CancelledError
