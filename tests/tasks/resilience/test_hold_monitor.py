"""The holds of accounts, backfills and the archive, as a process refreshes them each second."""

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from tasks.errors import ArchiveHeld
from tasks.model.job import Queue
from tasks.resilience.archive_gate import ArchiveGate
from tasks.resilience.circuit_breaker import CircuitBreaker
from tasks.resilience.hold_monitor import HoldMonitor
from tasks.resilience.holds import ARCHIVE, OUTAGE_BACKOFF, Holds, Reason, backfill_of
from tasks.resilience.rate_limiter import RateLimiter

pytestmark = pytest.mark.both_redises


@pytest.fixture
def holds(redis: Redis) -> Holds:
    return Holds(redis)


@pytest.fixture
def gate(holds: Holds, redis: Redis) -> ArchiveGate:
    return ArchiveGate(holds, CircuitBreaker(redis, "default", holds))


@pytest.fixture
def monitor(holds: Holds, redis: Redis, gate: ArchiveGate) -> HoldMonitor:
    return HoldMonitor(["default", "kyb"], holds, redis, RateLimiter(redis), gate)


async def held_scopes(monitor: HoldMonitor) -> dict[tuple[str, Queue], list[str]]:
    found = await monitor.refresh()
    return {
        (account, queue): [hold.scope for hold in held] for account, of in found.items() for queue, held in of.items()
    }


async def test_refresh_returns_the_holds_of_each_queue_of_each_account(
    monitor: HoldMonitor, holds: Holds, gate: ArchiveGate
) -> None:
    assert not any((await held_scopes(monitor)).values())
    await holds.place_manual("kyb", "")
    await holds.place_for(backfill_of("default"), Reason.QUOTA, "", 60)
    await holds.place_until_probe(ARCHIVE, Reason.CANNOT_WRITE, "", OUTAGE_BACKOFF, probe=False)
    assert await held_scopes(monitor) == {
        ("default", Queue.LIVE): [ARCHIVE],
        ("default", Queue.BACKFILL): [ARCHIVE, backfill_of("default")],
        ("kyb", Queue.LIVE): ["kyb", ARCHIVE],
        ("kyb", Queue.BACKFILL): ["kyb", ARCHIVE],
    }
    with pytest.raises(ArchiveHeld):
        await gate.enter()


async def test_refresh_logs_a_hold_once_when_it_begins_and_once_when_it_ends(
    monitor: HoldMonitor, holds: Holds
) -> None:
    with capture_logs() as logs:
        await holds.place_manual("kyb", "because")
        await monitor.refresh()
        await monitor.refresh()
        await holds.end("kyb")
        await monitor.refresh()
        await monitor.refresh()
    assert [(each["event"], each["what"]) for each in logs] == [
        ("hold.started", "account kyb"),
        ("hold.ended", "account kyb"),
    ]


@pytest.mark.real_redis_only("fakeredis has no INFO")
async def test_refresh_makes_two_round_trips_for_any_number_of_accounts(
    holds: Holds, redis: Redis, gate: ArchiveGate
) -> None:
    monitor = HoldMonitor([f"account-{number}" for number in range(100)], holds, redis, RateLimiter(redis), gate)
    before = await count_reads(redis)
    await monitor.refresh()
    # One round trip for the accounts, one for the runs.
    assert await count_reads(redis) - before - 1 == 2


async def count_reads(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_reads_processed"])
