import asyncio

import pytest
from redis.asyncio import Redis

from tasks.errors import ArchiveHeld, StorageError
from tasks.resilience.archive_gate import ArchiveGate
from tasks.resilience.circuit_breaker import CircuitBreaker
from tasks.resilience.holds import ARCHIVE, OUTAGE_BACKOFF, Holds, Reason, hold_key
from tests.holds import failed

pytestmark = pytest.mark.both_redises


@pytest.fixture
def holds(redis: Redis) -> Holds:
    return Holds(redis)


@pytest.fixture
def breaker(redis: Redis, holds: Holds) -> CircuitBreaker:
    return CircuitBreaker(redis, "default", holds)


@pytest.fixture
def gate(holds: Holds, breaker: CircuitBreaker) -> ArchiveGate:
    return ArchiveGate(holds, breaker)


async def close(gate: ArchiveGate, holds: Holds, redis: Redis, reason: Reason = Reason.CANNOT_WRITE) -> None:
    """Put the archive on hold, close the gate, and let the pause pass."""
    await holds.place_until_probe(ARCHIVE, reason, "", OUTAGE_BACKOFF, probe=False)
    await redis.hset(hold_key(ARCHIVE), "until", 1)
    gate.set_hold(await holds.get(ARCHIVE))


async def test_enter_passes_when_there_is_no_hold(gate: ArchiveGate) -> None:
    gate.set_hold(None)
    assert [await gate.enter() for _ in range(3)] == [None] * 3


async def test_enter_sends_nothing_to_redis_when_the_gate_is_open(gate: ArchiveGate, holds: Holds) -> None:
    await holds.place_for(ARCHIVE, Reason.CANNOT_READ, "", 600)
    assert await gate.enter() is None


async def test_enter_raises_with_reason_and_time_when_the_gate_is_closed(gate: ArchiveGate, holds: Holds) -> None:
    await holds.place_for(ARCHIVE, Reason.CANNOT_READ, "", 600)
    gate.set_hold(await holds.get(ARCHIVE))
    with pytest.raises(ArchiveHeld, match="cannot_read") as held:
        await gate.enter()
    assert 500 < held.value.wait <= 600


async def test_one_caller_of_all_processes_is_the_probe_when_the_pause_is_over(
    gate: ArchiveGate, holds: Holds, breaker: CircuitBreaker, redis: Redis
) -> None:
    await close(gate, holds, redis)
    another = ArchiveGate(holds, breaker)
    another.set_hold(await holds.get(ARCHIVE))
    entered = await asyncio.gather(*[each.enter() for each in (gate, another) * 5], return_exceptions=True)
    assert [answer for answer in entered if not isinstance(answer, ArchiveHeld)] == [Reason.CANNOT_WRITE]


async def test_enter_passes_when_the_hold_ended_before_the_gate_was_updated(
    gate: ArchiveGate, holds: Holds, redis: Redis
) -> None:
    await close(gate, holds, redis)
    await holds.end(ARCHIVE)
    assert await gate.enter() is None


@pytest.mark.parametrize("reason", [Reason.CANNOT_WRITE, Reason.CANNOT_READ])
async def test_a_probe_that_wrote_ends_the_hold(gate: ArchiveGate, holds: Holds, redis: Redis, reason: Reason) -> None:
    await close(gate, holds, redis, reason)
    assert await gate.enter() is reason
    await gate.record_probe_success(reason, has_written=True)
    assert await holds.get(ARCHIVE) is None
    assert await gate.enter() is None


async def test_a_probe_that_only_read_ends_the_hold_when_reads_had_failed(
    gate: ArchiveGate, holds: Holds, redis: Redis
) -> None:
    await close(gate, holds, redis, Reason.CANNOT_READ)
    await gate.record_probe_success(Reason.CANNOT_READ, has_written=False)
    assert await holds.get(ARCHIVE) is None


async def test_a_probe_that_only_read_lets_another_follow_at_once_when_writes_had_failed(
    gate: ArchiveGate, holds: Holds, redis: Redis
) -> None:
    await close(gate, holds, redis)
    for _ in range(3):
        assert await gate.enter() is Reason.CANNOT_WRITE
        await gate.record_probe_success(Reason.CANNOT_WRITE, has_written=False)
    await gate.enter()
    with pytest.raises(ArchiveHeld):
        await gate.enter()


async def test_the_failures_of_an_outage_are_forgotten_when_its_hold_ends(
    gate: ArchiveGate, holds: Holds, breaker: CircuitBreaker, redis: Redis
) -> None:
    breaker.record_success()
    for _ in range(10):
        await failed(breaker, redis, StorageError("create", "GenericError"))
    await close(gate, holds, redis)
    await gate.record_probe_success(Reason.CANNOT_WRITE, has_written=True)
    assert not await failed(breaker, redis, StorageError("create", "GenericError"))
    assert await holds.get(ARCHIVE) is None


async def test_a_probe_does_not_end_a_hold_that_a_person_placed_in_the_meantime(
    gate: ArchiveGate, holds: Holds, redis: Redis
) -> None:
    await close(gate, holds, redis)
    reason = await gate.enter()
    assert reason
    await holds.place_manual(ARCHIVE, "moving the bucket")
    await gate.record_probe_success(reason, has_written=True)
    hold = await holds.get(ARCHIVE)
    assert hold
    assert hold.is_manual


async def test_check_not_closed_since_raises_only_for_callers_that_passed_before_the_gate_closed(
    gate: ArchiveGate, holds: Holds, redis: Redis
) -> None:
    before = gate.generation
    gate.check_not_closed_since(before)
    await close(gate, holds, redis)
    with pytest.raises(ArchiveHeld, match="cannot_write"):
        gate.check_not_closed_since(before)
    probe_generation = gate.generation
    gate.set_hold(await holds.get(ARCHIVE))
    gate.check_not_closed_since(probe_generation)


async def test_check_not_closed_since_passes_when_the_gate_is_open_again(
    gate: ArchiveGate, holds: Holds, redis: Redis
) -> None:
    before = gate.generation
    await close(gate, holds, redis)
    gate.set_hold(None)
    gate.check_not_closed_since(before)
