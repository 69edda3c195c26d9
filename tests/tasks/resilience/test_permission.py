from uuid import uuid4

import pytest
from redis.asyncio import Redis

from tasks.resilience.permission import ForbiddenAnswer, PermissionMonitor, Verdict

pytestmark = pytest.mark.both_redises

ANSWERS = "docv:answers:default"
ANSWERED = "docv:answered:default"
ONE, ANOTHER, THIRD = (str(uuid4()) for _ in range(3))
LONG_AGO = 1.0
"""A time before all answers of a test, in seconds since the epoch."""


@pytest.fixture
def monitor(redis: Redis) -> PermissionMonitor:
    return PermissionMonitor(redis, "default")


async def let_answers_age(redis: Redis, seconds: int) -> None:
    """Make the recorded answers older by some seconds."""
    answers = await redis.lrange(ANSWERS, 0, -1)
    for index, answer in enumerate(answers):
        at, _, eval_id = answer.partition(" ")
        await redis.lset(ANSWERS, index, f"{int(at) - seconds * 1000} {eval_id}".strip())


async def record_403s(monitor: PermissionMonitor, count: int) -> ForbiddenAnswer:
    """Record 403s of different evaluations; return the last result."""
    found = None
    for _ in range(count):
        found = await monitor.record_forbidden(str(uuid4()), None)
    assert found
    return found


async def test_the_first_403_of_an_evaluation_decides_nothing(monitor: PermissionMonitor) -> None:
    monitor.record_answered(ANOTHER)
    assert (await monitor.record_forbidden(ONE, None)).verdict is Verdict.FIRST


async def test_a_second_403_is_attributed_to_the_evaluation_when_another_got_an_answer_since(
    monitor: PermissionMonitor, redis: Redis
) -> None:
    await monitor.record_forbidden(ONE, None)
    elsewhere = PermissionMonitor(redis, "default")
    elsewhere.record_answered(ANOTHER)
    await elsewhere.flush()
    assert (await monitor.record_forbidden(ONE, LONG_AGO)).verdict is Verdict.EVALUATION


async def test_the_control_is_the_evaluation_that_got_an_answer_last(monitor: PermissionMonitor, redis: Redis) -> None:
    monitor.record_answered(THIRD)
    monitor.record_answered(ANOTHER)
    await monitor.flush()
    seconds, _ = await redis.time()
    found = await monitor.record_forbidden(ONE, seconds + 10)
    assert (found.verdict, found.control) == (Verdict.NEEDS_CONTROL, ANOTHER)


@pytest.mark.parametrize("in_one_step", [True, False])
async def test_an_evaluation_is_not_its_own_control(
    monitor: PermissionMonitor, redis: Redis, *, in_one_step: bool
) -> None:
    seconds, _ = await redis.time()
    for eval_id in (ANOTHER, THIRD, ONE, ONE):
        monitor.record_answered(eval_id)
        if not in_one_step:
            await monitor.flush()
    found = await monitor.record_forbidden(ONE, seconds + 10)
    assert (found.verdict, found.control) == (Verdict.NEEDS_CONTROL, THIRD)


async def test_a_second_403_decides_nothing_when_no_other_evaluation_ever_got_an_answer(
    monitor: PermissionMonitor,
) -> None:
    monitor.record_answered(ONE)
    await monitor.record_forbidden(ONE, None)
    assert (await monitor.record_forbidden(ONE, LONG_AGO)).verdict is Verdict.UNKNOWN


async def test_twenty_403s_in_a_row_are_attributed_to_the_account_with_three_examples(
    monitor: PermissionMonitor,
) -> None:
    monitor.record_answered(ONE)
    assert (await record_403s(monitor, 19)).verdict is Verdict.FIRST
    found = await monitor.record_forbidden(ANOTHER, None)
    assert found.verdict is Verdict.ACCOUNT
    assert len(set(found.examples)) == 3
    assert all(eval_id in found.note for eval_id in found.examples)


@pytest.mark.parametrize("where", [0, 10, 18])
async def test_403s_are_not_attributed_to_the_account_when_one_of_the_last_twenty_answers_differs(
    monitor: PermissionMonitor, redis: Redis, where: int
) -> None:
    await record_403s(monitor, 19)
    at = (await redis.lindex(ANSWERS, where)).partition(" ")[0]
    await redis.lset(ANSWERS, where, at)
    assert (await monitor.record_forbidden(ONE, None)).verdict is Verdict.FIRST


async def test_403s_are_not_attributed_to_the_account_when_another_process_got_another_answer(
    monitor: PermissionMonitor, redis: Redis
) -> None:
    elsewhere = PermissionMonitor(redis, "default")
    await record_403s(monitor, 10)
    for _ in range(500):
        elsewhere.record_answered(ANOTHER)
    await elsewhere.flush()
    assert await redis.llen(ANSWERS) == 20
    assert (await record_403s(monitor, 19)).verdict is Verdict.FIRST
    assert (await record_403s(monitor, 1)).verdict is Verdict.ACCOUNT


async def test_a_403_of_an_evaluation_does_not_count_against_the_account(
    monitor: PermissionMonitor, redis: Redis
) -> None:
    monitor.record_answered(ANOTHER)
    for _ in range(50):
        assert (await monitor.record_forbidden(str(uuid4()), LONG_AGO)).verdict is Verdict.EVALUATION
    assert await redis.llen(ANSWERS) == 1


@pytest.mark.parametrize(
    ("evaluations", "age", "verdict"),
    [
        (3, 301, Verdict.ACCOUNT),
        (3, 240, Verdict.FIRST),
        (2, 301, Verdict.FIRST),
    ],
)
async def test_a_few_403s_are_attributed_to_the_account_after_five_minutes_without_another_answer(
    monitor: PermissionMonitor, redis: Redis, evaluations: int, age: int, verdict: Verdict
) -> None:
    await record_403s(monitor, evaluations - 1)
    await let_answers_age(redis, age)
    assert (await monitor.record_forbidden(ONE, None)).verdict is verdict


async def test_answers_do_not_count_after_an_hour(monitor: PermissionMonitor, redis: Redis) -> None:
    monitor.record_answered(THIRD)
    await monitor.flush()
    await let_answers_age(redis, 3601)
    await record_403s(monitor, 2)
    await let_answers_age(redis, 301)
    assert (await monitor.record_forbidden(ONE, None)).verdict is Verdict.ACCOUNT


async def test_accounts_are_judged_separately(monitor: PermissionMonitor, redis: Redis) -> None:
    await record_403s(monitor, 19)
    assert (await PermissionMonitor(redis, "other").record_forbidden(ONE, None)).verdict is Verdict.FIRST


async def test_flush_writes_nothing_when_there_were_no_answers(monitor: PermissionMonitor, redis: Redis) -> None:
    await monitor.flush()
    assert await redis.exists(ANSWERS, ANSWERED) == 0
