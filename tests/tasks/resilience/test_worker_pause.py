import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.job import Queue
from tasks.resilience.holds import ARCHIVE, OUTAGE_BACKOFF, Holds, Reason
from tasks.resilience.worker_pause import WorkerPause

pytestmark = pytest.mark.both_redises

FULL = (ARCHIVE, Reason.CANNOT_WRITE, "the archive could not create an object: No space left on device")


class Workers:
    """Two workers of one installation, on a clock that a test moves."""

    def __init__(self, redis: Redis) -> None:
        self.redis, self.registry, self.holds = redis, WorkerRegistry(redis), Holds(redis)
        self.seconds = 1000.0
        self.one, self.two = (WorkerPause(self.registry, self.holds, name, lambda: self.seconds) for name in NAMES)

    async def beat(self, *names: str) -> None:
        for name in names:
            await self.registry.heartbeat(name, list(Queue))

    async def fail(self, scope: str, reason: Reason, note: str) -> None:
        """Let an attempt of the first worker fail after a while."""
        self.seconds += 1
        self.one.record_failure(scope)
        await self.one.begin(scope, reason, note)

    async def succeed(self, account: str, *, has_written: bool = True) -> bool:
        """Let an attempt that the first worker begins now succeed."""
        self.seconds += 1
        return await self.one.record_success(account, self.seconds, has_written=has_written)

    async def paused(self) -> list[str]:
        return [each.name for each in await self.registry.list_paused()]

    def may_begin(self) -> bool:
        with self.one.attempt() as may_begin:
            return may_begin


NAMES = ("one", "two")


@pytest.fixture
async def workers(redis: Redis) -> Workers:
    workers = Workers(redis)
    await workers.beat(*NAMES)
    return workers


async def test_a_paused_worker_begins_no_attempt_while_another_goes_on(workers: Workers) -> None:
    assert not await workers.one.begin(*FULL)
    assert (workers.one.is_closed, workers.may_begin()) == (True, False)
    assert (workers.two.is_closed, await workers.paused()) == (False, ["one"])
    assert await workers.holds.list_all() == []


async def test_one_evaluation_at_a_time_is_the_probe_and_a_failed_one_doubles_the_wait(workers: Workers) -> None:
    await workers.one.begin(*FULL)
    for wait in (5, 10, 20, 40, 60, 60):
        workers.seconds += wait - 0.1
        assert workers.one.is_closed
        workers.seconds += 0.2
        assert not workers.one.is_closed
        with workers.one.attempt() as may_begin:
            assert may_begin
            assert not workers.may_begin(), "there is a probe already"
            await workers.one.begin(*FULL)
        assert not workers.may_begin()


async def test_a_failure_of_a_running_attempt_does_not_prolong_the_pause(workers: Workers) -> None:
    for _ in range(5):
        await workers.one.begin(*FULL)
    workers.seconds += OUTAGE_BACKOFF.initial
    assert workers.may_begin()


async def test_another_probe_follows_at_once_when_one_proves_nothing(workers: Workers) -> None:
    await workers.one.begin(*FULL)
    workers.seconds += OUTAGE_BACKOFF.initial
    assert workers.may_begin()
    assert workers.may_begin()


async def test_a_successful_probe_ends_the_pause_and_resets_the_wait(workers: Workers) -> None:
    await workers.one.begin(*FULL)
    workers.seconds += OUTAGE_BACKOFF.initial
    await workers.succeed("default")
    assert (workers.one.is_paused, await workers.paused()) == (False, [])
    await workers.one.begin(*FULL)
    workers.seconds += OUTAGE_BACKOFF.initial
    assert workers.may_begin()


async def test_a_success_of_an_attempt_from_before_the_pause_neither_ends_it_nor_proves_anything(
    workers: Workers,
) -> None:
    began_at, before = workers.seconds, await workers.registry.time()
    await workers.fail(*FULL)
    assert not await workers.one.record_success("default", began_at, has_written=True)
    assert workers.one.is_paused
    assert workers.one.proved_at(ARCHIVE) == 0
    assert await workers.succeed("default")
    assert workers.one.proved_at(ARCHIVE) > before
    assert workers.two.proved_at(ARCHIVE) == 0


async def test_a_success_with_one_account_proves_nothing_about_another(workers: Workers) -> None:
    await workers.fail("kyb", Reason.OUTAGE, "the connection to RiskOS failed: refused")
    assert not await workers.succeed("default")
    assert workers.one.proved_at("kyb") == 0
    assert not await workers.succeed("kyb", has_written=False)
    assert workers.one.proved_at("kyb") == 0
    assert not await workers.succeed("kyb"), "it proves nothing new about the archive"
    assert workers.one.proved_at("kyb") > 0


async def test_the_service_is_on_hold_for_all_when_every_worker_has_paused(workers: Workers) -> None:
    await workers.one.begin(*FULL)
    assert await workers.two.begin(*FULL)
    hold = await workers.holds.get(ARCHIVE)
    assert hold
    assert (hold.reason, hold.note, hold.needs_probe) == (*FULL[1:], True)
    await workers.one.update()
    assert (workers.one.is_paused, workers.two.is_paused, await workers.paused()) == (False, False, [])


async def test_workers_place_no_hold_when_they_paused_for_different_services(workers: Workers) -> None:
    await workers.one.begin(*FULL)
    assert not await workers.two.begin("default", Reason.OUTAGE, "the connection to RiskOS failed: refused")
    assert await workers.holds.list_all() == []


async def test_the_service_is_on_hold_for_all_when_the_last_running_worker_is_gone(workers: Workers) -> None:
    await workers.one.begin(*FULL)
    await workers.one.update()
    assert await workers.holds.list_all() == []
    await workers.registry.deregister("two")
    await workers.one.update()
    assert [hold.scope for hold in await workers.holds.list_all()] == [ARCHIVE]
    assert not workers.one.is_paused


async def test_a_pause_and_its_end_are_logged_with_reason_and_duration(workers: Workers) -> None:
    with capture_logs() as log:
        await workers.one.begin(*FULL)
        await workers.succeed("default")
    paused, resumed = log
    assert (paused["event"], paused["scope"], paused["note"]) == ("worker.paused", ARCHIVE, FULL[2])
    assert (resumed["event"], resumed["scope"], resumed["lasted"]) == ("worker.resumed", ARCHIVE, 1.0)


async def test_the_record_of_a_paused_worker_expires_when_it_is_gone(workers: Workers, redis: Redis) -> None:
    await workers.one.begin(*FULL)
    assert 0 < await redis.ttl("docv:paused:one") <= 15
    await workers.registry.deregister("one")
    assert await redis.exists("docv:paused:one") == 0


async def test_a_pause_and_its_wait_survive_when_redis_loses_the_record(workers: Workers, redis: Redis) -> None:
    await workers.one.begin(*FULL)
    workers.seconds += OUTAGE_BACKOFF.initial
    with workers.one.attempt() as may_begin:
        assert may_begin
        await workers.one.begin(*FULL)
    await redis.delete("docv:paused:one")
    await workers.one.update()
    assert (workers.one.is_closed, await workers.paused()) == (True, ["one"])
    workers.seconds += OUTAGE_BACKOFF.initial
    assert workers.one.is_closed, "the failed probe doubled the wait"
