import pytest
from redis.asyncio import Redis

from tasks.hold import Holds, Reason, hold_key
from tests.holds import refused

MINUTE = 60.0


@pytest.fixture
def holds(redis: Redis) -> Holds:
    return Holds(redis)


async def pause_is_over(redis: Redis, account: str = "default") -> None:
    await redis.hset(hold_key(account), "until", 1)


async def test_an_account_is_not_on_hold_unless_somebody_says_so(holds: Holds) -> None:
    assert await holds.of("default") is None
    assert await holds.all() == []


async def test_an_account_whose_key_is_refused_stands_still(holds: Holds) -> None:
    assert await refused(holds, "default", 401, probe=False) == 30

    hold = await holds.of("default")

    assert hold
    assert (hold.scope, hold.reason, hold.probed) == ("default", "401", True)
    assert 0 <= hold.lasting < MINUTE
    assert 0 < hold.left <= 30


async def test_a_hold_concerns_one_account_only(holds: Holds) -> None:
    await refused(holds, "default", 401, probe=False)
    assert await holds.of("another") is None


async def test_requests_that_were_under_way_when_the_hold_began_change_nothing(holds: Holds, redis: Redis) -> None:
    await refused(holds, "default", 401, probe=False)
    before = await redis.hgetall(hold_key("default"))

    for status in (403, 401):
        assert 0 < await refused(holds, "default", status, probe=False) <= 30

    assert await redis.hgetall(hold_key("default")) == before


async def test_requests_that_come_back_late_do_not_place_the_next_pause(holds: Holds, redis: Redis) -> None:
    await refused(holds, "default", 401, probe=False)
    await pause_is_over(redis)
    assert await refused(holds, "default", 401, probe=False) == 0


async def test_each_failed_probe_doubles_the_pause_up_to_a_quarter_of_an_hour(holds: Holds) -> None:
    pauses = [await refused(holds, "default", 401, probe=number > 0) for number in range(7)]
    assert pauses == [30, 60, 120, 240, 480, 900, 900]


async def test_a_hold_remembers_when_it_began_and_why_it_goes_on(holds: Holds, redis: Redis) -> None:
    await refused(holds, "default", 401, probe=False)
    await redis.hincrby(hold_key("default"), "since", -90_000)

    await refused(holds, "default", 403, probe=True)

    hold = await holds.of("default")
    assert hold
    assert hold.reason == "403"
    assert 90 <= hold.lasting < 90 + MINUTE


async def test_a_hold_whose_pause_is_over_goes_on_until_the_probe_has_an_answer(holds: Holds, redis: Redis) -> None:
    await refused(holds, "default", 401, probe=False)
    await pause_is_over(redis)
    hold = await holds.of("default")
    assert hold
    assert hold.left == 0


async def test_an_account_that_is_let_go_starts_with_the_shortest_pause_again(holds: Holds) -> None:
    await refused(holds, "default", 401, probe=False)
    await refused(holds, "default", 401, probe=True)

    assert await holds.lift("default")

    assert await holds.of("default") is None
    assert not await holds.lift("default")
    assert await refused(holds, "default", 401, probe=False) == 30


async def test_an_account_asked_to_slow_down_goes_on_by_itself(holds: Holds, redis: Redis) -> None:
    assert await holds.for_a_time("default", Reason.SLOW_DOWN, "", 20) == 20

    hold = await holds.of("default")

    assert hold
    assert (hold.reason, hold.probed) == ("429", False)
    assert abs(await redis.pexpiretime(hold_key("default")) - int(await redis.hget(hold_key("default"), "until"))) <= 1


async def test_an_account_asked_to_slow_down_for_no_time_waits_a_second(holds: Holds) -> None:
    assert await holds.for_a_time("default", Reason.SLOW_DOWN, "", 0) == 1


async def test_the_longest_of_several_waits_counts(holds: Holds) -> None:
    await holds.for_a_time("default", Reason.SLOW_DOWN, "", 60)
    assert 50 < await holds.for_a_time("default", Reason.SLOW_DOWN, "", 1) <= 60
    assert await holds.for_a_time("default", Reason.SLOW_DOWN, "", 120) == 120


async def test_a_429_does_not_end_a_hold_that_a_probe_must_end(holds: Holds, redis: Redis) -> None:
    await refused(holds, "default", 401, probe=False)
    before = await redis.hgetall(hold_key("default"))

    assert 0 < await holds.for_a_time("default", Reason.SLOW_DOWN, "", 600) <= 30

    assert await redis.hgetall(hold_key("default")) == before
    assert await redis.pttl(hold_key("default")) == -1


async def test_a_key_refused_while_the_account_slows_down_is_a_hold_that_does_not_end_by_itself(
    holds: Holds, redis: Redis
) -> None:
    await holds.for_a_time("default", Reason.SLOW_DOWN, "", 5)
    assert await refused(holds, "default", 401, probe=False) == 30
    assert await redis.pttl(hold_key("default")) == -1
    hold = await holds.of("default")
    assert hold
    assert hold.probed


async def test_all_holds_are_listed_by_account(holds: Holds) -> None:
    await holds.for_a_time("sandbox", Reason.SLOW_DOWN, "", 20)
    await refused(holds, "berlin", 401, probe=False)
    assert [(hold.scope, hold.reason) for hold in await holds.all()] == [("berlin", "401"), ("sandbox", "429")]
