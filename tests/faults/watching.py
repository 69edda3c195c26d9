"""Look at a cluster while it plays: how far it is, what stands still, who paid for it."""

import asyncio
import json

from tasks.resilience.holds import Holds, Reason
from tests.faults.cluster import Cluster


async def charged(cluster: Cluster) -> int:
    """Return how many attempts the evaluations that are under way have lost."""
    entries = await cluster.client.hvals("docv:ledger:entries")
    return sum(int(json.loads(entry)["attempts"]) for entry in entries)


async def half_done(cluster: Cluster, run: str, total: int) -> None:
    """Wait until half of a run has ended."""
    while await cluster.settled(run) < total // 2:
        await asyncio.sleep(0.02)


async def reason_of_hold(cluster: Cluster, scope: str = "default") -> Reason | None:
    """Return why something stands still, None where it does not."""
    hold = await Holds(cluster.client).get(scope)
    return hold.reason if hold else None


async def until_held(cluster: Cluster, *reasons: Reason, scope: str = "default", seconds: float = 30) -> None:
    """Wait until something stands still for one of these reasons."""
    async with asyncio.timeout(seconds):
        while await reason_of_hold(cluster, scope) not in reasons:
            await asyncio.sleep(0.05)


async def until_let_go(cluster: Cluster, scope: str, seconds: float) -> None:
    """Wait until something does not stand still any more."""
    async with asyncio.timeout(seconds):
        while await reason_of_hold(cluster, scope):
            await asyncio.sleep(0.05)
