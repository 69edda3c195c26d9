import asyncio

import pytest
from redis.asyncio import Redis

from scripts.overview.release_holds import end_hold
from tasks.errors import (
    AccountHeld,
    ArchiveHeld,
    BundleTooLarge,
    ConnectionFailed,
    Fault,
    ManifestChanged,
    ServiceFailed,
    SpoolError,
    StorageError,
    UnexpectedAnswer,
)
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.job import Queue
from tasks.resilience.archive_gate import ArchiveGate
from tasks.resilience.circuit_breaker import CircuitBreaker
from tasks.resilience.holds import ARCHIVE, Holds, Reason, hold_key
from tasks.resilience.worker_pause import WorkerPause
from tests.holds import failed, refused

pytestmark = pytest.mark.both_redises

ENOUGH = 10


@pytest.fixture
def holds(redis: Redis) -> Holds:
    return Holds(redis)


@pytest.fixture
async def breaker(redis: Redis, holds: Holds) -> CircuitBreaker:
    """Return a breaker that has just recorded a success."""
    breaker = CircuitBreaker(redis, "default", holds)
    breaker.record_success()
    await breaker.flush()
    return breaker


async def fail(
    breaker: CircuitBreaker,
    error: Exception | None = None,
    *,
    suspect: bool = False,
    excused_at: float | None = None,
    archive_probe: bool = False,
) -> bool:
    return await failed(
        breaker,
        breaker._redis,
        error or ServiceFailed(500),
        suspect=suspect,
        excused_at=excused_at,
        archive_probe=archive_probe,
    )


async def failures_until_a_hold(breaker: CircuitBreaker, holds: Holds) -> int:
    for count in range(1, 100):
        await fail(breaker)
        if await holds.list_all():
            return count
    raise AssertionError("there is no hold")


async def next_pause(redis: Redis, scope: str = "default") -> int:
    """Return the seconds of the pause after the next failed probe; each doubles it."""
    return int(await redis.hget(hold_key(scope), "pause")) // 1000


async def now(redis: Redis) -> float:
    """Return Redis's time, and wait until it has advanced."""
    seconds, micro = await redis.time()
    await asyncio.sleep(0.002)
    return float(seconds) + int(micro) / 1e6


async def trip(breaker: CircuitBreaker, error: Exception | None = None) -> None:
    for _ in range(ENOUGH):
        await fail(breaker, error)


# What counts as an outage


@pytest.mark.parametrize(
    ("successes", "failures"),
    [(0, ENOUGH), (5, ENOUGH), (9, ENOUGH), (10, ENOUGH + 1), (20, ENOUGH + 1), (500, ENOUGH + 1)],
)
async def test_ten_failures_are_an_outage_when_they_are_more_than_half_of_the_last_twenty(
    breaker: CircuitBreaker, holds: Holds, successes: int, failures: int
) -> None:
    for _ in range(successes):
        breaker.record_success()
    assert await failures_until_a_hold(breaker, holds) == failures


async def test_failures_are_not_an_outage_when_every_second_evaluation_succeeds(
    breaker: CircuitBreaker, holds: Holds
) -> None:
    for _ in range(50):
        breaker.record_success()
        assert not await fail(breaker)
    assert await holds.list_all() == []


UNEXPECTED = UnexpectedAnswer("a page", 200)


@pytest.mark.parametrize("tail", [0, 150])
async def test_unexpected_answers_are_not_an_outage_while_other_evaluations_succeed(
    breaker: CircuitBreaker, holds: Holds, tail: int
) -> None:
    """Only evaluations that fail may be left at the end of a run."""
    for _ in range(200):
        breaker.record_success()
        assert not await fail(breaker, UNEXPECTED)
    for _ in range(tail):
        assert not await fail(breaker, UNEXPECTED)
    assert await holds.list_all() == []


async def test_unexpected_answers_are_an_outage_when_nearly_all_evaluations_get_them(
    breaker: CircuitBreaker, holds: Holds
) -> None:
    for _ in range(50):
        breaker.record_success()
        await fail(breaker, UNEXPECTED)
    failures = [await fail(breaker, UNEXPECTED) for _ in range(200)]
    assert 140 <= failures.index(True) < 191
    assert [hold.reason for hold in await holds.list_all()] == [Reason.OUTAGE]


async def test_unexpected_answers_are_an_outage_when_nothing_succeeded_for_a_minute(
    breaker: CircuitBreaker, holds: Holds, redis: Redis
) -> None:
    for _ in range(100):
        breaker.record_success()
        await fail(breaker, UNEXPECTED)
    for _ in range(25):
        assert not await fail(breaker, UNEXPECTED)
    await redis.decrby("docv:breaker:default:unexpected:last-well", 60)
    assert await fail(breaker, UNEXPECTED)
    assert [hold.reason for hold in await holds.list_all()] == [Reason.OUTAGE]


async def test_unexpected_answers_do_not_add_to_other_failures(breaker: CircuitBreaker, holds: Holds) -> None:
    for _ in range(100):
        breaker.record_success()
        await fail(breaker, UNEXPECTED)
    for _ in range(ENOUGH):
        assert not await fail(breaker)
    assert await holds.list_all() == []


async def test_failures_are_not_an_outage_when_there_are_successes_between_them(
    breaker: CircuitBreaker, holds: Holds
) -> None:
    for _ in range(3):
        for _ in range(ENOUGH - 1):
            assert not await fail(breaker)
        for _ in range(ENOUGH + 1):
            breaker.record_success()
        await breaker.flush()
    assert await holds.list_all() == []


@pytest.mark.parametrize(
    "error", [ServiceFailed(503), ConnectionFailed("timeout"), UnexpectedAnswer("a page", 200)], ids=repr
)
async def test_an_outage_of_riskos_holds_the_account_with_the_reason(
    breaker: CircuitBreaker, holds: Holds, error: Exception
) -> None:
    await trip(breaker, error)
    (hold,) = await holds.list_all()
    assert (hold.scope, hold.reason, hold.note) == ("default", Reason.OUTAGE, str(error))
    assert hold.needs_probe
    assert hold.remaining <= 5


@pytest.mark.parametrize(
    ("doing", "reason"),
    [("read", Reason.CANNOT_READ), ("create", Reason.CANNOT_WRITE), ("replace", Reason.CANNOT_WRITE)],
)
async def test_an_outage_of_the_archive_holds_the_archive(
    breaker: CircuitBreaker, holds: Holds, doing: str, reason: Reason
) -> None:
    await trip(breaker, StorageError(doing, "GenericError"))
    (hold,) = await holds.list_all()
    assert (hold.scope, hold.reason, hold.needs_probe) == (ARCHIVE, reason, True)
    assert hold.note == f"the archive could not {doing} an object: GenericError"


async def test_failures_of_riskos_and_of_the_archive_are_counted_separately(
    breaker: CircuitBreaker, holds: Holds
) -> None:
    for _ in range(ENOUGH - 1):
        await fail(breaker)
        await fail(breaker, StorageError("create", "GenericError"))
    assert await holds.list_all() == []


async def test_failures_of_two_accounts_are_counted_separately(
    breaker: CircuitBreaker, redis: Redis, holds: Holds
) -> None:
    another = CircuitBreaker(redis, "another", holds)
    another.record_success()
    for _ in range(ENOUGH - 1):
        await fail(breaker)
        await fail(another)
    assert await holds.list_all() == []


@pytest.mark.parametrize(
    "error",
    [
        ManifestChanged(),
        BundleTooLarge(10),
        AccountHeld("429", 5.0),
        ArchiveHeld("cannot_read", 5.0),
        RuntimeError("ours"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_errors_that_concern_no_service_are_never_an_outage(
    breaker: CircuitBreaker, holds: Holds, redis: Redis, error: Exception
) -> None:
    for _ in range(30):
        assert not await fail(breaker, error, archive_probe=True)
    assert await holds.list_all() == []
    assert not [key for key in await redis.keys("*breaker*") if not key.endswith(":last-well")]


@pytest.mark.parametrize("error", [ServiceFailed(500), UNEXPECTED, StorageError("create", "timeout")], ids=repr)
async def test_three_failures_are_an_outage_when_nothing_succeeded_for_an_hour(
    redis: Redis, holds: Holds, error: Exception
) -> None:
    breaker = CircuitBreaker(redis, "default", holds)
    assert [await fail(breaker, error) for _ in range(3)] == [False, False, True]
    (hold,) = await holds.list_all()
    assert hold.note == str(error)


@pytest.mark.parametrize("error", [ServiceFailed(500), UNEXPECTED], ids=repr)
async def test_the_first_success_in_an_hour_ends_an_outage_of_three_failures(
    redis: Redis, holds: Holds, error: Exception
) -> None:
    """Failures are faster than successes. If half of a run fails, three may fail before one succeeds."""
    breaker, another = (CircuitBreaker(redis, "default", holds) for _ in range(2))
    for _ in range(3):
        await fail(breaker, error)
    another.record_success()
    await another.flush()
    assert await holds.list_all() == []
    assert not await fail(breaker, error)


async def test_a_later_success_leaves_an_outage_to_its_probe(breaker: CircuitBreaker, holds: Holds) -> None:
    await trip(breaker)
    breaker.record_success()
    await breaker.flush()
    assert [hold.reason for hold in await holds.list_all()] == [Reason.OUTAGE]


async def test_the_first_success_in_an_hour_leaves_other_holds(redis: Redis, holds: Holds) -> None:
    breaker = CircuitBreaker(redis, "default", holds)
    await refused(holds, "default", 401, probe=False)
    breaker.record_success()
    await breaker.flush()
    assert [hold.reason for hold in await holds.list_all()] == [Reason.UNAUTHORIZED]


async def test_two_evaluations_that_always_fail_are_not_an_outage(redis: Redis, holds: Holds) -> None:
    breaker = CircuitBreaker(redis, "default", holds)
    for _ in range(2):
        assert not await fail(breaker)
    for _ in range(20):
        assert not await fail(breaker, suspect=True)
    assert await holds.list_all() == []


async def test_a_success_is_forgotten_after_an_hour(breaker: CircuitBreaker, redis: Redis, holds: Holds) -> None:
    assert 3590 < await redis.ttl("docv:breaker:default:last-well") <= 3600
    await redis.delete("docv:breaker:default:last-well")
    assert [await fail(breaker) for _ in range(3)] == [False, False, True]


# Refusals that any evaluation would get


REFUSED = StorageError("create", "access is denied (AccessDenied)", Fault.SERVICE)


async def test_one_refusal_of_the_store_holds_the_archive_with_the_code_of_the_store(
    breaker: CircuitBreaker, holds: Holds
) -> None:
    assert await fail(breaker, REFUSED)
    (hold,) = await holds.list_all()
    assert (hold.scope, hold.reason, hold.needs_probe) == (ARCHIVE, Reason.CANNOT_WRITE, True)
    assert hold.note == "the archive could not create an object: access is denied (AccessDenied)"


async def test_an_evaluation_refused_again_after_the_successful_probe_of_another_is_charged(
    breaker: CircuitBreaker, holds: Holds, redis: Redis
) -> None:
    await fail(breaker, REFUSED)
    excused_at = await now(redis)
    await ArchiveGate(holds, breaker).record_probe_success(Reason.CANNOT_WRITE, has_written=True)
    assert not await fail(breaker, REFUSED, suspect=True, excused_at=excused_at)
    assert await holds.list_all() == []
    assert await fail(breaker, REFUSED), "it was not refused before"
    assert await fail(breaker, REFUSED, suspect=True, excused_at=excused_at), "the archive is on hold"


async def test_a_success_that_is_not_the_probe_charges_no_evaluation(
    breaker: CircuitBreaker, holds: Holds, redis: Redis
) -> None:
    """A write that began before a policy changed may succeed after the change."""
    await fail(breaker, REFUSED)
    excused_at = await now(redis)
    breaker.record_success()
    await breaker.flush()
    await end_hold(redis, ARCHIVE)
    assert await fail(breaker, REFUSED, suspect=True, excused_at=excused_at)
    assert [hold.reason for hold in await holds.list_all()] == [Reason.CANNOT_WRITE]


# Failures that may be this machine's own fault


LOCAL = [
    (ConnectionFailed("ClientConnectorError, Connection refused", Fault.MACHINE), "default"),
    (StorageError("create", "No space left on device", Fault.MACHINE), ARCHIVE),
    (SpoolError("Read-only file system"), ARCHIVE),
]


@pytest.mark.parametrize(("error", "scope"), LOCAL, ids=repr)
async def test_a_fault_of_the_only_worker_holds_the_service(
    breaker: CircuitBreaker, holds: Holds, error: Exception, scope: str
) -> None:
    assert await fail(breaker, error)
    (hold,) = await holds.list_all()
    assert (hold.scope, hold.note, hold.needs_probe) == (scope, str(error), True)
    assert not breaker.pause.is_paused


@pytest.mark.parametrize(("error", "scope"), LOCAL, ids=repr)
async def test_a_fault_of_one_of_two_workers_pauses_that_worker(
    redis: Redis, holds: Holds, error: Exception, scope: str
) -> None:
    workers = WorkerRegistry(redis)
    for name in ("one", "two"):
        await workers.heartbeat(name, [Queue.LIVE])
    breaker = CircuitBreaker(redis, "default", holds, WorkerPause(workers, holds, "one"))
    assert await fail(breaker, error)
    assert await holds.list_all() == []
    (paused,) = await workers.list_paused()
    assert (paused.name, paused.scope, paused.note) == ("one", scope, str(error))


# Which evaluations count


async def test_evaluations_that_failed_before_are_never_an_outage(breaker: CircuitBreaker, holds: Holds) -> None:
    for _ in range(30):
        assert not await fail(breaker, suspect=True)
    assert await holds.list_all() == []


async def test_evaluations_that_failed_before_do_not_complete_an_outage(breaker: CircuitBreaker, holds: Holds) -> None:
    for _ in range(ENOUGH - 1):
        await fail(breaker)
    for _ in range(30):
        assert not await fail(breaker, suspect=True)
    assert await holds.list_all() == []
    assert await fail(breaker)


async def test_evaluations_that_failed_before_do_not_count_towards_an_outage(
    breaker: CircuitBreaker, holds: Holds
) -> None:
    for number in range(ENOUGH - 1):
        assert not await fail(breaker)
        for _ in range(number):
            assert not await fail(breaker, suspect=True)
    assert await holds.list_all() == []


async def test_an_evaluation_that_failed_before_places_no_hold_after_a_person_ended_it(
    breaker: CircuitBreaker, holds: Holds
) -> None:
    await trip(breaker)
    await holds.end("default")
    assert not await fail(breaker, suspect=True)
    assert await holds.list_all() == []


async def test_failures_of_all_processes_count_together(breaker: CircuitBreaker, redis: Redis, holds: Holds) -> None:
    another = CircuitBreaker(redis, "default", holds)
    for _ in range(ENOUGH // 2):
        await fail(breaker)
        await fail(another)
    assert [hold.reason for hold in await holds.list_all()] == [Reason.OUTAGE]


async def test_successes_of_another_process_prevent_an_outage(
    breaker: CircuitBreaker, redis: Redis, holds: Holds
) -> None:
    another = CircuitBreaker(redis, "default", holds)
    for error in (ServiceFailed(500), StorageError("create", "GenericError")):
        for _ in range(ENOUGH - 1):
            await fail(breaker, error)
    for _ in range(20):
        another.record_success()

    await another.flush()

    for error in (ServiceFailed(500), StorageError("create", "GenericError")):
        for _ in range(ENOUGH - 1):
            assert not await fail(breaker, error)
    assert await holds.list_all() == []


async def test_flush_reports_a_success_once(breaker: CircuitBreaker, redis: Redis) -> None:
    await fail(breaker)
    breaker.record_success()
    await breaker.flush()
    await breaker.flush()
    window = await redis.lrange("docv:breaker:default", 0, -1)
    assert [each == "+" for each in window] == [False, True]


async def test_flush_records_only_the_time_of_the_last_success_when_nothing_failed(
    breaker: CircuitBreaker, redis: Redis
) -> None:
    breaker.record_success()
    await breaker.flush()
    windows = {"default", "default:unexpected", ARCHIVE}
    assert set(await redis.keys("*breaker*")) == {f"docv:breaker:{window}:last-well" for window in windows}


async def test_failures_expire(breaker: CircuitBreaker, redis: Redis) -> None:
    await fail(breaker)
    assert 0 < await redis.ttl("docv:breaker:default") <= 3600


async def test_reset_forgets_failures(breaker: CircuitBreaker, holds: Holds) -> None:
    await trip(breaker)
    await holds.end_after_probe("default")
    await breaker.reset("default")
    for _ in range(ENOUGH - 1):
        assert not await fail(breaker)
    assert await holds.list_all() == []


async def test_reset_forgets_successes(breaker: CircuitBreaker, holds: Holds) -> None:
    for _ in range(20):
        breaker.record_success()
    await breaker.reset("default")
    assert await failures_until_a_hold(breaker, holds) == ENOUGH


# Which failures are charged


async def test_failures_are_charged_until_most_evaluations_fail(breaker: CircuitBreaker) -> None:
    excused = [await fail(breaker) for _ in range(ENOUGH + 2)]
    assert excused == [False] * (ENOUGH - 1) + [True] * 3


@pytest.mark.parametrize("suspect", [False, True])
async def test_a_failure_is_not_charged_when_the_outage_is_known_already(
    breaker: CircuitBreaker, redis: Redis, *, suspect: bool
) -> None:
    await trip(breaker)
    assert await fail(breaker, suspect=suspect)
    assert await next_pause(redis) == 10


@pytest.mark.parametrize("suspect", [False, True])
async def test_a_failed_probe_doubles_the_pause_and_is_not_charged(
    breaker: CircuitBreaker, holds: Holds, redis: Redis, *, suspect: bool
) -> None:
    await trip(breaker)
    assert await fail(breaker, ServiceFailed(503).as_probe(), suspect=suspect)
    (hold,) = await holds.list_all()
    assert await next_pause(redis) == 20
    assert hold.note == "RiskOS answered with status 503"


@pytest.mark.parametrize("suspect", [False, True])
async def test_a_failed_probe_of_the_archive_doubles_the_pause_and_is_not_charged(
    breaker: CircuitBreaker, holds: Holds, redis: Redis, *, suspect: bool
) -> None:
    await trip(breaker, StorageError("create", "GenericError"))
    probed = await fail(breaker, StorageError("read", "PermissionError"), suspect=suspect, archive_probe=True)
    assert probed
    (hold,) = await holds.list_all()
    assert (hold.scope, hold.reason) == (ARCHIVE, Reason.CANNOT_READ)
    assert await next_pause(redis, ARCHIVE) == 20


async def test_a_probe_of_the_archive_that_riskos_failed_does_not_change_its_hold(
    breaker: CircuitBreaker, holds: Holds, redis: Redis
) -> None:
    await trip(breaker, StorageError("create", "GenericError"))
    assert not await fail(breaker, ServiceFailed(500), archive_probe=True)
    (hold,) = await holds.list_all()
    assert (hold.scope, hold.reason) == (ARCHIVE, Reason.CANNOT_WRITE)
    assert await next_pause(redis, ARCHIVE) == 10


async def test_a_probe_of_the_key_doubles_the_pause_when_the_service_fails(
    breaker: CircuitBreaker, holds: Holds, redis: Redis
) -> None:
    await refused(holds, "default", 401, probe=False)
    assert await fail(breaker, ServiceFailed(500).as_probe())
    (hold,) = await holds.list_all()
    assert hold.needs_probe
    assert await next_pause(redis) == 60


async def test_a_failure_is_charged_when_the_hold_needs_no_probe(breaker: CircuitBreaker, holds: Holds) -> None:
    await holds.place_for("default", Reason.SLOW_DOWN, "", 600)
    assert not await fail(breaker)


async def test_failures_are_charged_and_place_no_other_hold_while_a_manual_hold_lasts(
    breaker: CircuitBreaker, holds: Holds
) -> None:
    await holds.place_manual("default", "")
    assert not any([await fail(breaker) for _ in range(ENOUGH * 2)])
    assert [hold.reason for hold in await holds.list_all()] == [Reason.BY_HAND]
