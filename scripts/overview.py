"""Everything that is under way, as `status` and the operations page show it."""

from dataclasses import dataclass

from redis.asyncio import Redis

from scripts.estimate import estimate
from scripts.rate import see_rate
from tasks.account import DEFAULT_ACCOUNT
from tasks.census import Census, RunCounters
from tasks.entry import Queue
from tasks.hold import ARCHIVE, Hold, Holds, backfill_of
from tasks.ledger import Ledger
from tasks.pace import Rate
from tasks.presence import Presence
from tasks.refusals import Refusals
from worker.settings import Settings

# What can stand still is asked one by one: to look for holds among all keys takes long where there are many.
_SCOPES = (ARCHIVE, DEFAULT_ACCOUNT, backfill_of(DEFAULT_ACCOUNT))


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything that is under way.

    Attributes:
        census: evaluations by state.
        holds: accounts that stand still.
        runs: the newest runs and their counters.
        rate: how fast the account sends.
        workers: how many serve each queue.
        refused: messages that did not fit the contract.
        settings: what part of the rate a backfill may use.
    """

    census: Census
    holds: list[Hold]
    runs: dict[str, RunCounters]
    rate: Rate
    workers: dict[Queue, int]
    refused: int
    settings: Settings

    def seconds_left(self, run: RunCounters) -> float:
        """Return how long a run will take at the rate that is kept just now."""
        return estimate(run.pending, self.settings, rate=self.rate.kept).seconds


async def see_overview(redis: "Redis", settings: Settings, newest: int = 20) -> Overview:
    """Return everything that is under way, with so many of the newest runs."""
    ledger = Ledger(redis)
    return Overview(
        census=await ledger.census(),
        holds=[hold for hold in await Holds(redis).of_each(*_SCOPES) if hold],
        runs=await ledger.counters(await ledger.runs(newest)),
        rate=await see_rate(redis, settings),
        workers=await Presence(redis).count(),
        refused=await Refusals(redis).count(),
        settings=settings,
    )
