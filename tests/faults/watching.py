"""Watch a cluster during a test: its progress, its holds, and its lost attempts."""

import asyncio
import json

from tasks.resilience.holds import Holds, Reason
from tests.faults.cluster import Cluster


async def count_lost_attempts(cluster: Cluster) -> int:
    """Return how many attempts the evaluations in flight have lost."""
    entries = await cluster.client.hvals("docv:ledger:entries")
    return sum(int(json.loads(entry)["attempts"]) for entry in entries)


async def wait_until_half_ended(cluster: Cluster, run: str, total: int) -> None:
    """Wait until half of a run has ended."""
    while await cluster.count_ended(run) < total // 2:
        await asyncio.sleep(0.02)


async def get_hold_reason(cluster: Cluster, scope: str = "default") -> Reason | None:
    """Return the reason of a hold; None if there is no hold."""
    hold = await Holds(cluster.client).get(scope)
    return hold.reason if hold else None


async def wait_until_held(cluster: Cluster, *reasons: Reason, scope: str = "default", seconds: float = 90) -> None:
    """Wait until something is on hold for one of these reasons."""
    async with asyncio.timeout(seconds):
        while await get_hold_reason(cluster, scope) not in reasons:
            await asyncio.sleep(0.05)


async def wait_until_released(cluster: Cluster, scope: str, seconds: float) -> None:
    """Wait until something is not on hold any more."""
    async with asyncio.timeout(seconds):
        while await get_hold_reason(cluster, scope):
            await asyncio.sleep(0.05)
