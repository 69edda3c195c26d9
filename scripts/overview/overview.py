"""Everything that is under way, as `status` and the operations page show it."""

from dataclasses import dataclass

from redis.asyncio import Redis

from scripts.overview.estimate import estimate_requests
from scripts.overview.rate_status import read_rate
from tasks.ledger.counters import LedgerStats, RunCounters
from tasks.ledger.ledger import Ledger
from tasks.ledger.rejected_messages import RejectedMessages
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.job import Queue
from tasks.resilience.adaptive_rate import RateStatus
from tasks.resilience.holds import ARCHIVE, Hold, Holds, backfill_of, scope_of_run
from tasks.resilience.run_holds import list_run_holds
from worker.config.accounts import Accounts
from worker.config.accounts_file import AccountSettings


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything that is under way.

    Attributes:
        stats: evaluations by state.
        holds: accounts, runs and the archive as far as they are on hold.
        runs: the newest runs and their counters.
        rates: how fast each account sends.
        workers: how many serve each queue.
        rejected: messages that did not fit the contract.
        accounts: those that this process knows.
    """

    stats: LedgerStats
    holds: list[Hold]
    runs: dict[str, RunCounters]
    rates: dict[str, RateStatus]
    workers: dict[Queue, int]
    rejected: int
    accounts: Accounts

    @property
    def rate(self) -> RateStatus:
        """How fast the account sends that is meant where none is named, or else the first."""
        return self.rates[self._or_first(None).name]

    @property
    def unknown_accounts(self) -> dict[str, int]:
        """How many evaluations wait for accounts that are not known here, and by which name."""
        return {name: count for name, count in self.stats.held_by_account.items() if name not in self.rates}

    def seconds_left(self, run: RunCounters) -> float:
        """Return how long a run will take at the rate that is kept just now."""
        account = self._or_first(run.account)
        return estimate_requests(run.pending, account.settings, rate=self.rates[account.name].effective).seconds

    def holds_of(self, account: str) -> list[Hold]:
        """Return the holds that concern what is asked for with an account."""
        return [hold for hold in self.holds if hold.scope in {ARCHIVE, account, backfill_of(account)}]

    def is_run_held(self, name: str, run: RunCounters) -> bool:
        """Return whether a run is on hold, by itself or with its account."""
        of_run = any(hold.scope == scope_of_run(name) for hold in self.holds)
        return of_run or bool(self.holds_of(run.account))

    def _or_first(self, account: str | None) -> AccountSettings:
        return self.accounts.find(account) or next(iter(self.accounts))


async def read_overview(redis: "Redis", accounts: Accounts, newest: int = 20) -> Overview:
    """Return everything that is under way, with so many of the newest runs."""
    ledger = Ledger(redis)
    # What can stand still is asked one by one: to look for holds among all keys takes long where there are many.
    scopes = [ARCHIVE, *(scope for name in accounts.names for scope in (name, backfill_of(name)))]
    return Overview(
        stats=await ledger.get_stats(),
        holds=[*filter(None, await Holds(redis).get_each(*scopes)), *await list_run_holds(redis)],
        runs=await ledger.get_counters(await ledger.list_runs(newest)),
        rates={each.name: await read_rate(redis, each) for each in accounts},
        workers=await WorkerRegistry(redis).count(),
        rejected=await RejectedMessages(redis).count(),
        accounts=accounts,
    )
