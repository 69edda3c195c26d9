import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from tasks.errors import ArchiveHeld
from tasks.resilience.holds import ARCHIVE, OUTAGE_BACKOFF, Holds, Reason, backfill_of, hold_key
from tests.holds import refused

pytestmark = pytest.mark.both_redises

MINUTE = 60.0


@pytest.fixture
def holds(redis: Redis) -> Holds:
    return Holds(redis)


async def end_pause(redis: Redis, account: str = "default") -> None:
    await redis.hset(hold_key(account), "until", 1)


async def record_outage(holds: Holds, *, probe: bool) -> float:
    return await holds.place_until_probe("default", Reason.OUTAGE, "most fail", OUTAGE_BACKOFF, probe=probe)


async def test_get_returns_none_when_there_is_no_hold(holds: Holds) -> None:
    assert await holds.get("default") is None
    assert await holds.list_all() == []


async def test_place_until_probe_holds_the_account(holds: Holds) -> None:
    assert await refused(holds, "default", 401, probe=False) == 30

    hold = await holds.get("default")

    assert hold
    assert (hold.scope, hold.reason, hold.needs_probe) == ("default", "401", True)
    assert 0 <= hold.age < MINUTE
    assert 0 < hold.remaining <= 30


async def test_a_hold_concerns_only_its_account(holds: Holds) -> None:
    await refused(holds, "default", 401, probe=False)
    assert await holds.get("another") is None


async def test_a_failure_of_a_request_in_flight_does_not_change_the_hold(holds: Holds, redis: Redis) -> None:
    await refused(holds, "default", 401, probe=False)
    before = await redis.hgetall(hold_key("default"))

    for status in (403, 401):
        assert 0 < await refused(holds, "default", status, probe=False) <= 30

    assert await redis.hgetall(hold_key("default")) == before


async def test_a_late_failure_does_not_begin_the_next_pause(holds: Holds, redis: Redis) -> None:
    await refused(holds, "default", 401, probe=False)
    await end_pause(redis)
    assert await refused(holds, "default", 401, probe=False) == 0


async def test_each_failed_probe_doubles_the_pause_up_to_15_minutes(holds: Holds) -> None:
    pauses = [await refused(holds, "default", 401, probe=number > 0) for number in range(7)]
    assert pauses == [30, 60, 120, 240, 480, 900, 900]


async def test_a_prolonged_hold_keeps_its_beginning_and_has_the_latest_reason(holds: Holds, redis: Redis) -> None:
    await refused(holds, "default", 401, probe=False)
    await redis.hincrby(hold_key("default"), "since", -90_000)

    await refused(holds, "default", 403, probe=True)

    hold = await holds.get("default")
    assert hold
    assert hold.reason == "403"
    assert 90 <= hold.age < 90 + MINUTE


async def test_a_hold_goes_on_after_its_pause_until_the_probe_is_answered(holds: Holds, redis: Redis) -> None:
    await refused(holds, "default", 401, probe=False)
    await end_pause(redis)
    hold = await holds.get("default")
    assert hold
    assert hold.remaining == 0


async def test_the_pause_starts_at_its_minimum_again_after_a_hold_has_ended(holds: Holds) -> None:
    await refused(holds, "default", 401, probe=False)
    await refused(holds, "default", 401, probe=True)

    assert await holds.end("default")

    assert await holds.get("default") is None
    assert not await holds.end("default")
    assert await refused(holds, "default", 401, probe=False) == 30


@pytest.mark.real_redis_only("fakeredis lets time go on during a script")
async def test_place_for_places_a_hold_that_ends_after_its_time(holds: Holds, redis: Redis) -> None:
    assert await holds.place_for("default", Reason.SLOW_DOWN, "", 20) == 20

    hold = await holds.get("default")

    assert hold
    assert (hold.reason, hold.needs_probe) == ("429", False)
    expires, until = await redis.pexpiretime(hold_key("default")), int(await redis.hget(hold_key("default"), "until"))
    assert abs(expires - until) <= 1_000, "Redis may read its clock twice in a script"


async def test_place_for_holds_for_at_least_a_second(holds: Holds) -> None:
    assert await holds.place_for("default", Reason.SLOW_DOWN, "", 0) == 1


async def test_place_for_does_not_shorten_a_hold(holds: Holds) -> None:
    await holds.place_for("default", Reason.SLOW_DOWN, "", 60)
    assert 50 < await holds.place_for("default", Reason.SLOW_DOWN, "", 1) <= 60
    assert await holds.place_for("default", Reason.SLOW_DOWN, "", 120) == 120


async def test_place_for_does_not_replace_a_hold_that_needs_a_probe(holds: Holds, redis: Redis) -> None:
    await refused(holds, "default", 401, probe=False)
    before = await redis.hgetall(hold_key("default"))

    assert 0 < await holds.place_for("default", Reason.SLOW_DOWN, "", 600) <= 30

    assert await redis.hgetall(hold_key("default")) == before
    assert await redis.pttl(hold_key("default")) == -1


async def test_place_until_probe_replaces_a_hold_that_ends_after_a_time(holds: Holds, redis: Redis) -> None:
    await holds.place_for("default", Reason.SLOW_DOWN, "", 5)
    assert await refused(holds, "default", 401, probe=False) == 30
    assert await redis.pttl(hold_key("default")) == -1
    hold = await holds.get("default")
    assert hold
    assert hold.needs_probe


async def test_list_all_returns_the_holds_in_order_of_their_scopes(holds: Holds) -> None:
    await holds.place_for("sandbox", Reason.SLOW_DOWN, "", 20)
    await refused(holds, "berlin", 401, probe=False)
    assert [(hold.scope, hold.reason) for hold in await holds.list_all()] == [("berlin", "401"), ("sandbox", "429")]


# Manual holds

AUTOMATIC: dict[str, Callable[[Holds], Awaitable[object]]] = {
    "a refused key": lambda holds: refused(holds, "default", 401, probe=False),
    "a refused probe": lambda holds: refused(holds, "default", 403, probe=True),
    "an outage": lambda holds: record_outage(holds, probe=False),
    "a failed probe of an outage": lambda holds: record_outage(holds, probe=True),
    "a 429": lambda holds: holds.place_for("default", Reason.SLOW_DOWN, "slow down", 600),
    "a probe that was answered": lambda holds: holds.end_after_probe("default"),
    "a probe that proved nothing": lambda holds: holds.release_probe("default"),
}


@pytest.mark.parametrize("change", AUTOMATIC.values(), ids=AUTOMATIC)
async def test_a_manual_hold_is_not_replaced_or_ended_by_this_program(
    holds: Holds, redis: Redis, change: Callable[[Holds], Awaitable[object]]
) -> None:
    await holds.place_manual("default", "the month is being closed")
    before = await redis.hgetall(hold_key("default"))

    await change(holds)

    assert await redis.hgetall(hold_key("default")) == before
    assert await redis.pttl(hold_key("default")) == -1
    hold = await holds.get("default")
    assert hold
    assert (hold.reason, hold.note) == (Reason.BY_HAND, "the month is being closed")
    assert (hold.is_manual, hold.needs_probe) == (True, False)


async def test_end_ends_a_manual_hold(holds: Holds) -> None:
    await holds.place_manual("default", "")
    assert await holds.end("default")
    assert await holds.get("default") is None


@pytest.mark.parametrize("change", list(AUTOMATIC.values())[:5], ids=list(AUTOMATIC)[:5])
async def test_place_manual_replaces_every_other_hold(
    holds: Holds, redis: Redis, change: Callable[[Holds], Awaitable[object]]
) -> None:
    await change(holds)
    await redis.hincrby(hold_key("default"), "since", -600_000)

    await holds.place_manual("default", "enough")

    hold = await holds.get("default")
    assert hold
    assert (hold.reason, hold.note, hold.is_manual, hold.needs_probe) == ("by_hand", "enough", True, False)
    assert hold.age < 600, "it is a new hold, which begins now"
    assert await redis.pttl(hold_key("default")) == -1


async def test_place_manual_replaces_a_manual_hold_only_with_replace(holds: Holds) -> None:
    assert await holds.place_manual("default", "first", by="alice") is True
    assert await holds.place_manual("default", "second", by="bob") is False
    assert [(hold.note, hold.by) for hold in await holds.list_all()] == [("first", "alice")]
    assert await holds.place_manual("default", "third", by="carol", replace=True) is True
    assert [(hold.note, hold.by) for hold in await holds.list_all()] == [("third", "carol")]


# Outages


async def test_each_failed_probe_of_an_outage_doubles_the_pause_up_to_a_minute(holds: Holds) -> None:
    assert [await record_outage(holds, probe=number > 0) for number in range(6)] == [5, 10, 20, 40, 60, 60]


# Enter


@pytest.fixture
async def archive_held(holds: Holds, redis: Redis) -> None:
    """Put the archive on hold, and let its pause pass."""
    await holds.place_until_probe(ARCHIVE, Reason.CANNOT_WRITE, "", OUTAGE_BACKOFF, probe=False)
    await end_pause(redis, ARCHIVE)


async def test_enter_returns_none_when_there_is_no_hold(holds: Holds, redis: Redis) -> None:
    assert await holds.enter(ARCHIVE) is None
    assert await redis.exists(hold_key(ARCHIVE)) == 0


async def test_enter_raises_with_reason_and_time_when_there_is_a_hold(holds: Holds) -> None:
    await holds.place_for(ARCHIVE, Reason.CANNOT_READ, "", 600)
    with pytest.raises(ArchiveHeld) as held:
        await holds.enter(ARCHIVE)
    assert held.value.reason == "cannot_read"
    assert 500 < held.value.wait <= 600


async def test_enter_sends_no_probe_when_the_hold_is_manual(holds: Holds) -> None:
    await holds.place_manual(ARCHIVE, "")
    with pytest.raises(ArchiveHeld, match="by_hand"):
        await holds.enter(ARCHIVE)


@pytest.mark.usefixtures("archive_held")
async def test_enter_makes_one_of_many_callers_the_probe_when_the_pause_is_over(holds: Holds) -> None:
    entered = await asyncio.gather(*[holds.enter(ARCHIVE) for _ in range(20)], return_exceptions=True)
    assert [answer for answer in entered if not isinstance(answer, ArchiveHeld)] == [Reason.CANNOT_WRITE]
    hold = await holds.get(ARCHIVE)
    assert hold
    assert 0 < hold.remaining <= MINUTE
    assert all(error.wait <= MINUTE for error in entered if isinstance(error, ArchiveHeld))


@pytest.mark.usefixtures("archive_held")
async def test_enter_makes_another_caller_the_probe_when_the_lease_of_the_first_expires(
    holds: Holds, redis: Redis
) -> None:
    assert await holds.enter(ARCHIVE) is Reason.CANNOT_WRITE
    with pytest.raises(ArchiveHeld):
        await holds.enter(ARCHIVE)
    await end_pause(redis, ARCHIVE)
    assert await holds.enter(ARCHIVE) is Reason.CANNOT_WRITE


@pytest.mark.usefixtures("archive_held")
async def test_release_probe_lets_another_probe_follow_at_once(holds: Holds) -> None:
    await holds.enter(ARCHIVE)
    await holds.release_probe(ARCHIVE)
    assert await holds.enter(ARCHIVE) is Reason.CANNOT_WRITE
    with pytest.raises(ArchiveHeld):
        await holds.enter(ARCHIVE)


async def test_release_probe_changes_nothing_when_there_is_no_hold_or_one_without_probe(
    holds: Holds, redis: Redis
) -> None:
    await holds.place_for("default", Reason.SLOW_DOWN, "", 600)
    before = await redis.hgetall(hold_key("default"))
    await holds.release_probe("default")
    await holds.release_probe("another")
    assert await redis.hgetall(hold_key("default")) == before
    assert await redis.exists(hold_key("another")) == 0


@pytest.mark.usefixtures("archive_held")
async def test_end_after_probe_lets_all_callers_pass_and_resets_the_pause(
    holds: Holds,
) -> None:
    await holds.enter(ARCHIVE)
    await holds.place_until_probe(ARCHIVE, Reason.CANNOT_WRITE, "", OUTAGE_BACKOFF, probe=True)
    await holds.end_after_probe(ARCHIVE)
    assert await holds.enter(ARCHIVE) is None
    await holds.end_after_probe(ARCHIVE)
    assert await holds.place_until_probe(ARCHIVE, Reason.CANNOT_WRITE, "", OUTAGE_BACKOFF, probe=False) == 5


# Descriptions


@pytest.mark.parametrize(
    ("scope", "what"),
    [
        ("default", "account default"),
        (backfill_of("default"), "the backfill of account default"),
        (ARCHIVE, "the archive"),
    ],
)
async def test_a_hold_describes_its_scope_in_words(holds: Holds, scope: str, what: str) -> None:
    await holds.place_for(scope, Reason.QUOTA, "", 20)
    assert [hold.what for hold in await holds.list_all()] == [what]


async def test_a_hold_has_the_note_of_its_reason(holds: Holds) -> None:
    notes = []
    for note, probe in (("first", False), ("not recorded", False), ("the probe's", True)):
        await holds.place_until_probe("default", Reason.OUTAGE, note, OUTAGE_BACKOFF, probe=probe)
        hold = await holds.get("default")
        assert hold
        notes.append(hold.note)
    assert notes == ["first", "first", "the probe's"]


async def test_get_each_returns_the_holds_in_the_order_of_the_scopes(holds: Holds) -> None:
    await holds.place_for(backfill_of("default"), Reason.QUOTA, "", 20)
    await holds.place_manual(ARCHIVE, "")
    found = await holds.get_each("default", backfill_of("default"), "another", ARCHIVE)
    assert [hold and hold.reason for hold in found] == [None, "quota", None, "by_hand"]
