"""Measure how long it takes to cancel a backfill in the middle: `python -m tests.bench.cancel [IDS [FED]]`."""

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from uuid import UUID

from redis.asyncio import Redis

from tasks.ledger.cancellation import Cancellation
from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.model.outcome import Outcome
from worker.clients.embedded_redis import embedded_redis
from worker.clients.redis import open_redis

_RUN = "bench"
_AT_ONCE = 1_000


async def measure(redis: "Redis", ids: int, fed: int) -> None:
    """Feed a part of a run, bring some of its evaluations into each state, and cancel the run."""
    ledger = Ledger(redis)
    await ledger.runs.begin(_RUN, total=ids, fingerprint="its IDs")
    order = EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run=_RUN))
    for start in range(0, fed, _AT_ONCE):
        some = [str(UUID(int=number, version=4)) for number in range(start, start + _AT_ONCE)]
        await ledger.runs.feed(_RUN, some, order, position=start, backlog=ids)
        if start % (10 * _AT_ONCE) == 0:
            await _work_on(ledger, some)
    before, began = await ledger.runs.get_counters(_RUN), time.perf_counter()
    counts = await Cancellation(redis).cancel_run(_RUN)
    seconds, after = time.perf_counter() - began, await ledger.runs.get_counters(_RUN)
    assert counts is not None
    assert after.total == ids == after.states["leased"] + sum(after.outcomes.values())
    assert counts.cancelled == after.outcomes[Outcome.CANCELLED] == before.pending - counts.in_flight
    print(f"{ids:,} evaluations, {fed:,} of them fed: {counts.cancelled:,} cancelled in {seconds:.1f} s")  # noqa: T201


async def _work_on(ledger: Ledger, eval_ids: list[str]) -> None:
    leased = await ledger.lease(eval_ids[:40], token="ours")
    for number, job in enumerate(leased):
        match number % 4:
            case 0:
                await ledger.complete(job, Outcome.ARCHIVED)
            case 1:
                await ledger.retry_later(job, wait=3600, attempts=1, failure=Failure("service_failed"))
            case 2:
                await ledger.await_hold(job, cause="account_held")


async def _main(url: str, ids: int, fed: int) -> None:
    async with open_redis(url) as redis:
        await measure(redis, ids, fed)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    ids = numbers[0] if numbers else 1_000_000
    with tempfile.TemporaryDirectory() as folder, embedded_redis(Path(folder)) as server:
        asyncio.run(_main(server.url, ids, numbers[1] if len(numbers) > 1 else ids // 2))
