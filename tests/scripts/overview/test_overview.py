from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from scripts.overview.measured_speed import save_speed
from scripts.overview.overview import Overview, read_overview
from tasks.ledger.counters import LedgerStats, RunCounters
from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.model.outcome import Outcome
from tasks.resilience.adaptive_rate import RateStatus
from tasks.resilience.holds import Hold, Reason
from worker.config.accounts import load_accounts
from worker.config.settings import Settings

NOTHING = dict.fromkeys(Queue, 0)
ACCOUNTS = load_accounts(Settings(_env_file=None, environment="production", backfill_share=1))
HELD = Hold("default", Reason.UNAUTHORIZED, "", age=1, remaining=29, needs_probe=True)


def overview(speed: float, holds: Sequence[Hold] = ()) -> Overview:
    stats = LedgerStats(NOTHING, NOTHING, 0, 0, NOTHING, None, None, 0)
    rates = {"default": RateStatus(10, 10, manual=False, used_today=0)}
    return Overview(stats, list(holds), {}, rates, NOTHING, 0, ACCOUNTS, speeds={"default": speed})


def run(pending: int, parked: int = 0, last_due: float = 0.0) -> RunCounters:
    return RunCounters(pending, dict.fromkeys(Outcome, 0), {"parked": parked}, last_due=last_due)


@pytest.mark.parametrize(
    ("known", "counters", "seconds"),
    [
        (overview(0), run(900), 90),
        (overview(2), run(900), 450),
        (overview(500), run(900), 90),
        (overview(0.01, [HELD]), run(900), 90),
        (overview(2), run(909, parked=9, last_due=590), 590),
        (overview(2), run(9, parked=9, last_due=590), 590),
    ],
    ids=["the rate", "slower workers", "faster workers", "a hold", "nine parked", "only parked ones"],
)
def test_the_time_left_is_set_by_the_slowest_of_rate_workers_and_parked_evaluations(
    known: Overview, counters: RunCounters, seconds: float
) -> None:
    assert known.seconds_left(counters) == seconds


async def test_the_speed_of_a_run_in_progress_replaces_the_saved_speed_of_earlier_runs(
    redis: Redis,
) -> None:
    eval_ids = [f"0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a{number:02x}" for number in range(12)]
    await save_speed(redis, "default", 0.5, limit=10)
    assert (await read_overview(redis, ACCOUNTS)).speeds == {"default": 0.5}
    ledger = Ledger(redis)
    await ledger.accept(eval_ids, EnqueueOptions(Queue.BACKFILL, "default", Trigger("run", run="q3")))
    for job in await ledger.lease(eval_ids[:10], token="one"):
        await ledger.complete(job, Outcome.ARCHIVED)
    assert (await read_overview(redis, ACCOUNTS)).speeds["default"] > 0.5
