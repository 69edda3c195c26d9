"""The metrics that all processes share, as read from Redis."""

from uuid import uuid4

import pytest
from redis.asyncio import Redis

from tasks.consumer.system_metrics import SystemMetrics
from tasks.ledger.last_success import LastSuccess, NightlyCommand
from tasks.ledger.ledger import Ledger
from tasks.ledger.rejected_messages import RejectedMessages
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.account import Allowance
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.resilience.adaptive_rate import AdaptiveRate
from tasks.resilience.holds import Holds, Reason, backfill_of
from tasks.resilience.rate_headers import DAY, RateLimitHeaders, RateLimitWindow
from worker.metrics.shared_metrics import SharedGauge

ACCOUNT = "default"


async def test_collect_returns_a_value_for_every_metric_when_redis_is_empty(redis: Redis) -> None:
    found = await SystemMetrics(redis, {ACCOUNT: Allowance(daily_quota=1_000)}).collect()
    assert found.keys() == set(SharedGauge) - {SharedGauge.REDIS_UP}
    for gauge, values in found.items():
        assert values
        assert {len(labels) for labels in values} == {len(gauge.labels)}
    assert found[SharedGauge.QUOTA_LEFT] == {(ACCOUNT,): 1_000}
    assert not any(found[SharedGauge.HOLDS].values())
    assert found[SharedGauge.VERIFIED] == found[SharedGauge.DEAD_LETTERS_OLDEST] == {(): 0}
    assert found[SharedGauge.DISPOSED] == {(): 0}


async def test_the_age_of_the_oldest_dead_letter_and_the_last_successes_are_shown(redis: Redis) -> None:
    eval_ids, ledger = [str(uuid4()) for _ in range(2)], Ledger(redis)
    await ledger.accept(eval_ids, EnqueueOptions(Queue.LIVE, ACCOUNT, Trigger("enqueue")))
    for job, cause in zip(await ledger.lease(eval_ids, token="one"), ("service_failed", "store_failed"), strict=True):
        await ledger.dead_letter(job, attempts=6, failure=Failure(cause))
    await redis.zincrby("docv:ledger:dead:store_failed", -7_200_000, eval_ids[1])
    for command in NightlyCommand:
        await LastSuccess(redis, command).record()
    found = await SystemMetrics(redis, {ACCOUNT: Allowance()}).collect()
    now, _ = await redis.time()
    assert 7_200 <= found[SharedGauge.DEAD_LETTERS_OLDEST][()] < 7_300
    assert now - 100 < found[SharedGauge.VERIFIED][()] <= now
    assert now - 100 < found[SharedGauge.DISPOSED][()] <= now


@pytest.mark.parametrize("text", ["inf", "nan", "yesterday"])
async def test_a_damaged_time_of_the_last_verification_counts_as_missing(redis: Redis, text: str) -> None:
    await redis.set("docv:verify:last_success", text)
    assert await LastSuccess(redis, NightlyCommand.VERIFY).get() == 0


async def test_collect_counts_the_evaluations_holds_messages_and_workers(redis: Redis) -> None:
    eval_ids = [str(uuid4()) for _ in range(5)]
    ledger = Ledger(redis)
    await ledger.accept(eval_ids, EnqueueOptions(Queue.LIVE, ACCOUNT, Trigger("enqueue")))
    await ledger.lease(eval_ids[:2], token="one")
    await Holds(redis).place_manual(backfill_of(ACCOUNT), "a note")
    await RejectedMessages(redis).add(cause="bad_message", why="because", source="live")
    await WorkerRegistry(redis).heartbeat("worker", [Queue.LIVE])
    found = await SystemMetrics(redis, {ACCOUNT: Allowance()}).collect()
    assert found[SharedGauge.LEDGER_EVALUATIONS] == {("queued",): 3, ("leased",): 2, ("parked",): 0, ("held",): 0}
    assert found[SharedGauge.QUEUE_EVALUATIONS] == {("live",): 3, ("backfill",): 0}
    assert found[SharedGauge.QUEUE_WORKERS] == {("live",): 1, ("backfill",): 0}
    assert found[SharedGauge.REJECTED_MESSAGES] == {(): 1}
    assert [labels for labels, value in found[SharedGauge.HOLDS].items() if value] == [
        (ACCOUNT, "backfill", Reason.BY_HAND)
    ]
    assert found[SharedGauge.QUOTA_LEFT] == {}
    assert not any(eval_id in str(found) for eval_id in eval_ids)


async def test_collect_labels_each_known_account_and_sums_up_the_unknown_ones(redis: Redis) -> None:
    ledger, holds = Ledger(redis), Holds(redis)
    for account in ("kyb", "unknown-account"):
        eval_ids = [str(uuid4()) for _ in range(2)]
        await ledger.accept(eval_ids, EnqueueOptions(Queue.LIVE, account, Trigger("enqueue")))
        for entry in await ledger.lease(eval_ids, token="ours"):
            await ledger.await_hold(entry, cause="account_held")
    await holds.place_manual("kyb", "a note")
    await AdaptiveRate(redis, "kyb", Allowance(rate=5.0), holds).set_rate(2.0)
    allowances = {ACCOUNT: Allowance(rate=7.0, daily_quota=9), "kyb": Allowance(rate=5.0)}
    found = await SystemMetrics(redis, allowances).collect()
    assert found[SharedGauge.HELD_EVALUATIONS] == {(ACCOUNT,): 0, ("kyb",): 2, ("other",): 2}
    assert found[SharedGauge.RATE_CONFIGURED] == {(ACCOUNT,): 7.0, ("kyb",): 2.0}
    assert found[SharedGauge.QUOTA] == {(ACCOUNT,): 9}
    assert [labels for labels, value in found[SharedGauge.HOLDS].items() if value] == [
        ("kyb", "account", Reason.BY_HAND)
    ]
    assert "unknown-account" not in str(found)


@pytest.mark.parametrize(
    ("configured", "leave", "quota"), [(None, 0, 1000), (None, 10, 990), (700, 10, 700), (2000, 10, 990)]
)
async def test_the_quota_is_capped_by_the_daily_limit_of_riskos(
    redis: Redis, configured: int | None, leave: int, quota: int
) -> None:
    allowance = Allowance(daily_quota=configured, leave_daily=leave)
    headers = RateLimitHeaders((RateLimitWindow(DAY, limit=1000, remaining=999),))
    await AdaptiveRate(redis, ACCOUNT, allowance, Holds(redis)).on_headers(headers, 0.0, 0.0)
    found = await SystemMetrics(redis, {ACCOUNT: allowance}).collect()
    assert (found[SharedGauge.QUOTA], found[SharedGauge.QUOTA_LEFT]) == ({(ACCOUNT,): quota}, {(ACCOUNT,): quota})
