"""Kill workers again and again while they work."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from tests.faults.cluster import Cluster, Worker

_STUCK_SECONDS = 120.0


async def kill_again_and_again(
    cluster: Cluster,
    crew: list[Worker],
    *command: str,
    kills: int,
    total: int,
    ended: Callable[[], Awaitable[int]],
    dice: random.Random,
) -> None:
    """Kill workers and replace them at once, spread over the whole of the work.

    Args:
        cluster: where they work.
        crew: the workers; those that are killed are replaced in it.
        command: what a replacement is started with.
        kills: how many are killed.
        total: how many evaluations there are.
        ended: tells how many of them have ended.
        dice: choose moments and victims.
    """
    for kill in range(kills):
        # The last tenth is left over, so that nobody is killed when there is nothing left to do.
        await _reached(ended, round(0.9 * total * (kill + dice.random()) / kills), cluster)
        await cluster.until(lambda: any(worker.ready for worker in crew))
        await asyncio.sleep(dice.random() * 0.1)
        victim = dice.choice([worker for worker in crew if worker.ready] or crew)
        await cluster.kill(victim)
        crew[crew.index(victim)] = await cluster.start_worker(*command)


async def _reached(ended: Callable[[], Awaitable[int]], wanted: int, cluster: Cluster) -> None:
    deadline, most = time.monotonic() + _STUCK_SECONDS, -1
    while (now := await ended()) < wanted:
        if now > most:
            deadline, most = time.monotonic() + _STUCK_SECONDS, now
        assert time.monotonic() < deadline, f"stuck at {now}: {await cluster.ledger.get_stats()}"
        await asyncio.sleep(0.03)
