import pytest
from redis.asyncio import Redis

from tasks.errors import (
    AccountHeld,
    ArchiveHeld,
    BundleTooLarge,
    ConnectionFailed,
    ManifestChanged,
    RetryableError,
    ServiceFailed,
    StorageError,
    UnexpectedAnswer,
)
from tasks.resilience.circuit_breaker import CircuitBreaker
from tasks.resilience.holds import ARCHIVE, Holds, Reason, hold_key
from tests.holds import failed, refused

pytestmark = pytest.mark.both_redises

ENOUGH = 10


@pytest.fixture
def holds(redis: Redis) -> Holds:
    return Holds(redis)


@pytest.fixture
def breaker(redis: Redis, holds: Holds) -> CircuitBreaker:
    return CircuitBreaker(redis, "default", holds)


async def fail(
    breaker: CircuitBreaker, error: Exception | None = None, *, suspect: bool = False, archive_probe: bool = False
) -> bool:
    return await failed(
        breaker, breaker._redis, error or ServiceFailed(500), suspect=suspect, archive_probe=archive_probe
    )


async def failures_until_a_hold(breaker: CircuitBreaker, holds: Holds) -> int:
    for count in range(1, 100):
        await fail(breaker)
        if await holds.list_all():
            return count
    raise AssertionError("there is no hold")


def probe(error: RetryableError) -> RetryableError:
    error.probe = True
    return error


async def next_pause(redis: Redis, scope: str = "default") -> int:
    """Return for how many seconds a scope stands still after the next failed probe; it doubles with each."""
    return int(await redis.hget(hold_key(scope), "pause")) // 1000


async def trip(breaker: CircuitBreaker, error: Exception | None = None) -> None:
    for _ in range(ENOUGH):
        await fail(breaker, error)


# What is an outage


@pytest.mark.parametrize(
    ("well", "failures"), [(0, ENOUGH), (5, ENOUGH), (9, ENOUGH), (10, ENOUGH + 1), (20, ENOUGH + 1), (500, ENOUGH + 1)]
)
async def test_an_outage_is_ten_failures_that_are_more_than_half_of_the_last_twenty(
    breaker: CircuitBreaker, holds: Holds, well: int, failures: int
) -> None:
    for _ in range(well):
        breaker.record_success()
    assert await failures_until_a_hold(breaker, holds) == failures


async def test_where_every_second_one_goes_well_nothing_stands_still(breaker: CircuitBreaker, holds: Holds) -> None:
    for _ in range(50):
        breaker.record_success()
        assert not await fail(breaker)
    assert await holds.list_all() == []


UNEXPECTED = UnexpectedAnswer("a page", 200)


@pytest.mark.parametrize("tail", [0, 150])
async def test_unexpected_answers_are_no_outage_while_others_go_well_among_them(
    breaker: CircuitBreaker, holds: Holds, tail: int
) -> None:
    """At the end of a run only the evaluations that fail may be left."""
    for _ in range(200):
        breaker.record_success()
        assert not await fail(breaker, UNEXPECTED)
    for _ in range(tail):
        assert not await fail(breaker, UNEXPECTED)
    assert await holds.list_all() == []


async def test_unexpected_answers_to_nearly_all_are_an_outage(breaker: CircuitBreaker, holds: Holds) -> None:
    for _ in range(50):
        breaker.record_success()
        await fail(breaker, UNEXPECTED)
    failures = [await fail(breaker, UNEXPECTED) for _ in range(200)]
    assert 140 <= failures.index(True) < 191
    assert [hold.reason for hold in await holds.list_all()] == [Reason.OUTAGE]


async def test_unexpected_answers_for_a_minute_are_an_outage(
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


async def test_unexpected_answers_do_not_make_an_outage_of_a_few_other_failures(
    breaker: CircuitBreaker, holds: Holds
) -> None:
    for _ in range(100):
        breaker.record_success()
        await fail(breaker, UNEXPECTED)
    for _ in range(ENOUGH):
        assert not await fail(breaker)
    assert await holds.list_all() == []


async def test_failures_that_go_well_again_in_between_are_no_outage(breaker: CircuitBreaker, holds: Holds) -> None:
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
async def test_an_outage_of_riskos_holds_the_account_and_says_why(
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


async def test_failures_of_riskos_and_of_the_archive_are_counted_apart(breaker: CircuitBreaker, holds: Holds) -> None:
    for _ in range(ENOUGH - 1):
        await fail(breaker)
        await fail(breaker, StorageError("create", "GenericError"))
    assert await holds.list_all() == []


async def test_failures_of_two_accounts_are_counted_apart(breaker: CircuitBreaker, redis: Redis, holds: Holds) -> None:
    another = CircuitBreaker(redis, "another", holds)
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
async def test_what_says_nothing_of_a_service_is_never_an_outage(
    breaker: CircuitBreaker, holds: Holds, redis: Redis, error: Exception
) -> None:
    for _ in range(30):
        assert not await fail(breaker, error, archive_probe=True)
    assert await holds.list_all() == []
    assert await redis.keys("*breaker*") == []


# Who counts


async def test_evaluations_that_failed_before_are_no_outage_however_many(breaker: CircuitBreaker, holds: Holds) -> None:
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


async def test_evaluations_that_failed_before_bring_an_outage_no_nearer(breaker: CircuitBreaker, holds: Holds) -> None:
    for number in range(ENOUGH - 1):
        assert not await fail(breaker)
        for _ in range(number):
            assert not await fail(breaker, suspect=True)
    assert await holds.list_all() == []


async def test_after_a_person_let_it_go_an_evaluation_that_failed_before_stops_nothing(
    breaker: CircuitBreaker, holds: Holds
) -> None:
    await trip(breaker)
    await holds.end("default")
    assert not await fail(breaker, suspect=True)
    assert await holds.list_all() == []


async def test_what_all_processes_saw_counts(breaker: CircuitBreaker, redis: Redis, holds: Holds) -> None:
    another = CircuitBreaker(redis, "default", holds)
    for _ in range(ENOUGH // 2):
        await fail(breaker)
        await fail(another)
    assert [hold.reason for hold in await holds.list_all()] == [Reason.OUTAGE]


async def test_what_went_well_in_another_process_prevents_an_outage(
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


async def test_what_went_well_is_told_once(breaker: CircuitBreaker, redis: Redis) -> None:
    await fail(breaker)
    breaker.record_success()
    await breaker.flush()
    await breaker.flush()
    window = await redis.lrange("docv:breaker:default", 0, -1)
    assert [each == "+" for each in window] == [False, True]


async def test_where_nothing_failed_nothing_is_written_down(breaker: CircuitBreaker, redis: Redis) -> None:
    breaker.record_success()
    await breaker.flush()
    assert await redis.keys("*breaker*") == []


async def test_what_failed_is_not_remembered_for_ever(breaker: CircuitBreaker, redis: Redis) -> None:
    await fail(breaker)
    assert 0 < await redis.ttl("docv:breaker:default") <= 3600


async def test_what_failed_before_the_service_came_back_says_nothing_any_more(
    breaker: CircuitBreaker, holds: Holds
) -> None:
    await trip(breaker)
    await holds.end_after_probe("default")
    await breaker.reset("default")
    for _ in range(ENOUGH - 1):
        assert not await fail(breaker)
    assert await holds.list_all() == []


async def test_what_went_well_before_the_service_came_back_says_nothing_any_more(
    breaker: CircuitBreaker, holds: Holds
) -> None:
    for _ in range(20):
        breaker.record_success()
    await breaker.reset("default")
    assert await failures_until_a_hold(breaker, holds) == ENOUGH


# Who is to blame


async def test_the_first_failures_are_charged_until_most_fail(breaker: CircuitBreaker) -> None:
    blamed = [await fail(breaker) for _ in range(ENOUGH + 2)]
    assert blamed == [False] * (ENOUGH - 1) + [True] * 3


@pytest.mark.parametrize("suspect", [False, True])
async def test_who_comes_back_from_an_outage_late_is_not_charged(
    breaker: CircuitBreaker, redis: Redis, *, suspect: bool
) -> None:
    await trip(breaker)
    assert await fail(breaker, suspect=suspect)
    assert await next_pause(redis) == 10


@pytest.mark.parametrize(("suspect", "blamed"), [(False, True), (True, False)])
async def test_a_failed_probe_doubles_the_pause_and_is_charged_to_who_failed_before(
    breaker: CircuitBreaker, holds: Holds, redis: Redis, *, suspect: bool, blamed: bool
) -> None:
    await trip(breaker)
    assert await fail(breaker, probe(ServiceFailed(503)), suspect=suspect) is blamed
    (hold,) = await holds.list_all()
    assert await next_pause(redis) == 20
    assert hold.note == "RiskOS answered with status 503"


@pytest.mark.parametrize(("suspect", "blamed"), [(False, True), (True, False)])
async def test_a_failed_probe_of_the_archive_is_treated_alike(
    breaker: CircuitBreaker, holds: Holds, redis: Redis, *, suspect: bool, blamed: bool
) -> None:
    await trip(breaker, StorageError("create", "GenericError"))
    probed = await fail(breaker, StorageError("read", "PermissionError"), suspect=suspect, archive_probe=True)
    assert probed is blamed
    (hold,) = await holds.list_all()
    assert (hold.scope, hold.reason) == (ARCHIVE, Reason.CANNOT_READ)
    assert await next_pause(redis, ARCHIVE) == 20


async def test_the_probe_of_the_archive_that_riskos_failed_says_nothing_of_the_archive(
    breaker: CircuitBreaker, holds: Holds, redis: Redis
) -> None:
    await trip(breaker, StorageError("create", "GenericError"))
    assert not await fail(breaker, ServiceFailed(500), archive_probe=True)
    (hold,) = await holds.list_all()
    assert (hold.scope, hold.reason) == (ARCHIVE, Reason.CANNOT_WRITE)
    assert await next_pause(redis, ARCHIVE) == 10


async def test_a_probe_for_the_key_that_the_service_failed_goes_on_probing(
    breaker: CircuitBreaker, holds: Holds, redis: Redis
) -> None:
    await refused(holds, "default", 401, probe=False)
    assert await fail(breaker, probe(ServiceFailed(500)))
    (hold,) = await holds.list_all()
    assert hold.needs_probe
    assert await next_pause(redis) == 60


async def test_a_hold_that_ends_by_itself_is_no_excuse(breaker: CircuitBreaker, holds: Holds) -> None:
    await holds.place_for("default", Reason.SLOW_DOWN, "", 600)
    assert not await fail(breaker)


async def test_an_outage_does_not_end_what_a_person_stopped_and_charges_as_ever(
    breaker: CircuitBreaker, holds: Holds
) -> None:
    await holds.place_manual("default", "")
    assert not any([await fail(breaker) for _ in range(ENOUGH * 2)])
    assert [hold.reason for hold in await holds.list_all()] == [Reason.BY_HAND]
