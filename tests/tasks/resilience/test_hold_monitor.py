"""Each second a process sees what stands still: of each of its accounts, of their backfills, of the archive."""

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
def standing(holds: Holds, redis: Redis, gate: ArchiveGate) -> HoldMonitor:
    return HoldMonitor(["default", "kyb"], holds, redis, RateLimiter(redis), gate)


async def seen(standing: HoldMonitor) -> dict[tuple[str, Queue], list[str]]:
    found = await standing.refresh()
    return {
        (account, queue): [hold.scope for hold in held] for account, of in found.items() for queue, held in of.items()
    }


async def test_a_hold_concerns_its_account_that_of_a_backfill_its_queue_that_of_the_archive_everybody(
    standing: HoldMonitor, holds: Holds, gate: ArchiveGate
) -> None:
    assert not any((await seen(standing)).values())
    await holds.place_manual("kyb", "")
    await holds.place_for(backfill_of("default"), Reason.QUOTA, "", 60)
    await holds.place_until_probe(ARCHIVE, Reason.CANNOT_WRITE, "", OUTAGE_BACKOFF, probe=False)
    assert await seen(standing) == {
        ("default", Queue.LIVE): [ARCHIVE],
        ("default", Queue.BACKFILL): [ARCHIVE, backfill_of("default")],
        ("kyb", Queue.LIVE): ["kyb", ARCHIVE],
        ("kyb", Queue.BACKFILL): ["kyb", ARCHIVE],
    }
    with pytest.raises(ArchiveHeld):
        await gate.enter()


async def test_a_hold_is_told_once_when_it_begins_and_once_when_it_ends(standing: HoldMonitor, holds: Holds) -> None:
    with capture_logs() as logs:
        await holds.place_manual("kyb", "because")
        await standing.refresh()
        await standing.refresh()
        await holds.end("kyb")
        await standing.refresh()
        await standing.refresh()
    assert [(each["event"], each["what"]) for each in logs] == [
        ("hold.started", "account kyb"),
        ("hold.ended", "account kyb"),
    ]


@pytest.mark.real_redis_only("fakeredis has no INFO")
async def test_however_many_accounts_there_are_two_round_trips_do(
    holds: Holds, redis: Redis, gate: ArchiveGate
) -> None:
    standing = HoldMonitor([f"account-{number}" for number in range(100)], holds, redis, RateLimiter(redis), gate)
    before = await reads(redis)
    await standing.refresh()
    # One for the accounts, one for the runs.
    assert await reads(redis) - before - 1 == 2


async def reads(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_reads_processed"])
