"""The name of a managed Redis moves to another server while events arrive; old connections stay open."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.aging import age_queued_evaluations
from tests.faults.check import FolderArchive, examine
from tests.faults.cluster import Cluster, running_cluster
from tests.faults.forwarder import RedisFailover
from tests.faults.producer import INTAKE_TOKEN, Producer, producing
from tests.faults.scale import Scale

_AGAIN_SECONDS = 10.0
_WITHOUT_PRIMARY_SECONDS = 3.0
Fault = Callable[[RedisFailover], Awaitable[None]]


async def swap_roles(redises: RedisFailover) -> None:
    """Swap the roles; the former primary becomes a replica."""
    await redises.demote()


async def kill(redises: RedisFailover) -> None:
    """Kill the primary, and make a replica the primary."""
    former = redises.primary
    await former.kill()
    await redises.promote()
    await redises.start_again(former)


async def restart_elsewhere(redises: RedisFailover) -> None:
    """Restart the primary at another address."""
    await redises.restart_elsewhere()


async def freeze(redises: RedisFailover) -> None:
    """Freeze the primary, so that old connections are never answered, and make a replica the primary."""
    redises.primary.freeze()
    await redises.promote()


async def measure(cluster: Cluster, producer: Producer, fault: Fault) -> float:
    """Cause a fault, and move the name seconds later; return the seconds until workers and server work again."""
    redises = cluster.redis
    assert isinstance(redises, RedisFailover)
    await producer.wait_until_archived(len(producer.accepted), 90)
    await fault(redises)
    began = time.monotonic()
    while await producer.is_ready():
        assert time.monotonic() - began < _WITHOUT_PRIMARY_SECONDS + 30, "it is ready without a primary"
        await asyncio.sleep(0.1)
    await asyncio.sleep(_WITHOUT_PRIMARY_SECONDS)
    redises.move_name()
    moved, accepted = time.monotonic(), len(producer.accepted)
    await producer.wait_until_archived(accepted, 90)
    while not await producer.is_ready():
        await asyncio.sleep(0.1)
    return time.monotonic() - moved


async def check_recovery(cluster: Cluster, scale: Scale, figures: Callable[[str], None], name: str) -> None:
    """Check that workers and server work soon after each fault, and that no accepted evaluation is lost."""
    await cluster.start_workers(2)
    async with producing(cluster) as producer:
        pauses = [await measure(cluster, producer, fault) for fault in list_faults(scale)]
    await age_queued_evaluations(cluster.client)
    async with asyncio.timeout(90):
        while not all(map(producer.is_archived, producer.accepted)):
            await asyncio.sleep(0.1)
    result = await asyncio.to_thread(examine, FolderArchive(cluster.archive), producer.accepted)
    figures(f"Redis moved, {name}: {result.sentence()}, at work again {max(pauses):.1f} s after the name moved")
    # Evaluations answered with 503 may be archived all the same; this test does not count them.
    assert (result.lost, result.half, result.wrong) == ((), (), ()), result
    assert all(worker.is_alive for worker in cluster.workers)
    assert scale.allows(max(pauses), most=_AGAIN_SECONDS), pauses


def list_faults(scale: Scale) -> list[Fault]:
    """Return the faults of a form."""
    return [swap_roles] * 5 + [kill, restart_elsewhere, freeze] if scale.long else [swap_roles]


async def test_workers_and_server_keep_working_after_the_name_of_redis_moved(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    async with running_cluster(
        tmp_path / "stage", replicas=2, DOCV_INTAKE_TOKENS=INTAKE_TOKEN, DOCV_REDIS_REPLICAS="1"
    ) as cluster:
        await check_recovery(cluster, scale, figures, "messages in Redis")


async def test_workers_and_server_keep_working_after_redis_moved_with_messages_in_rabbitmq(
    scale: Scale, figures: Callable[[str], None], rabbitmq_url: str, tmp_path: Path
) -> None:
    async with running_cluster(
        tmp_path / "stage",
        replicas=2,
        DOCV_INTAKE_TOKENS=INTAKE_TOKEN,
        DOCV_REDIS_REPLICAS="1",
        DOCV_BROKER_URL=rabbitmq_url,
    ) as cluster:
        await check_recovery(cluster, scale, figures, "messages in RabbitMQ")
