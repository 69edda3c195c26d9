"""Kill workers again and again while they work."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from tests.faults.cluster import Cluster, Worker

_STUCK_SECONDS = 120.0


async def kill_repeatedly(
    cluster: Cluster,
    workers: list[Worker],
    *command: str,
    kills: int,
    total: int,
    ended: Callable[[], Awaitable[int]],
    dice: random.Random,
) -> None:
    """Kill workers and replace them at once, spread over the whole run.

    Args:
        cluster: the cluster of the workers.
        workers: the workers; each killed one is replaced in this list.
        command: starts a replacement.
        kills: how many workers to kill.
        total: how many evaluations the run has.
        ended: returns how many of them have ended.
        dice: chooses moments and victims.
    """
    for kill in range(kills):
        # There are no kills in the last tenth, so that every killed worker has evaluations left.
        await _wait_until_ended(ended, round(0.9 * total * (kill + dice.random()) / kills), cluster)
        await cluster.wait_until(lambda: any(worker.is_ready for worker in workers))
        await asyncio.sleep(dice.random() * 0.1)
        victim = dice.choice([worker for worker in workers if worker.is_ready] or workers)
        await cluster.kill(victim)
        workers[workers.index(victim)] = await cluster.start_worker(*command)


async def _wait_until_ended(ended: Callable[[], Awaitable[int]], wanted: int, cluster: Cluster) -> None:
    deadline, most = time.monotonic() + _STUCK_SECONDS, -1
    while (now := await ended()) < wanted:
        if now > most:
            deadline, most = time.monotonic() + _STUCK_SECONDS, now
        assert time.monotonic() < deadline, f"stuck at {now}: {await cluster.ledger.get_stats()}"
        await asyncio.sleep(0.03)
