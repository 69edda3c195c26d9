"""The data of `status` and of the operations page: queues, holds, runs, rates and workers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from redis.asyncio import Redis

from scripts.overview.estimate import estimate_requests
from scripts.overview.measured_speed import read_speed
from scripts.overview.rate_status import read_rate
from tasks.ledger.counters import LedgerStats, RunCounters
from tasks.ledger.ledger import Ledger
from tasks.ledger.leftovers import Leftovers
from tasks.ledger.rejected_messages import RejectedMessages
from tasks.ledger.stats import read_last_due
from tasks.ledger.worker_registry import PausedWorker, WorkerRegistry
from tasks.model.job import Queue
from tasks.resilience.adaptive_rate import RateStatus
from tasks.resilience.holds import ARCHIVE, Hold, Holds, backfill_of, scope_of_run
from tasks.resilience.run_holds import list_run_holds
from worker.config.accounts import Accounts
from worker.config.accounts_file import AccountSettings

_MINUTE, _LEAST = 60.0, 10


@dataclass(frozen=True, slots=True)
class Overview:
    """The state of queues, holds, runs, rates and workers.

    Attributes:
        stats: evaluations by state.
        holds: holds of accounts, of runs and of the archive.
        runs: the newest runs and their counters.
        rates: the rate of each account.
        workers: the number of workers that serve each queue.
        rejected: the number of messages that broke the contract.
        accounts: the accounts that this process knows.
        paused: workers that have paused because a service fails for them.
        leftovers: the number of objects that workers wrote after an erasure.
        speeds: evaluations per second that workers reached lately, by account, as far as that is known.
    """

    stats: LedgerStats
    holds: list[Hold]
    runs: dict[str, RunCounters]
    rates: dict[str, RateStatus]
    workers: dict[Queue, int]
    rejected: int
    accounts: Accounts
    paused: Sequence[PausedWorker] = ()
    leftovers: int = 0
    speeds: Mapping[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> RateStatus:
        """The rate of the default account, or else of the first one."""
        return self.rates[self._or_first(None).name]

    @property
    def unknown_accounts(self) -> dict[str, int]:
        """The number of evaluations that wait for accounts that are not known here, by account."""
        return {name: count for name, count in self.stats.held_by_account.items() if name not in self.rates}

    def seconds_left(self, run: RunCounters) -> float:
        """Return how long a run will take at the recent speed, but at least until its parked evaluations are due."""
        account = self._or_first(run.account)
        rate = self.rates[account.name].effective
        # During a hold, workers send fewer requests than they could.
        measured = None if self.holds_of(account.name) else self.speeds.get(account.name)
        estimate = estimate_requests(run.active, account.settings, rate=rate, measured=measured, last_due=run.last_due)
        return estimate.seconds

    def holds_of(self, account: str) -> list[Hold]:
        """Return the holds that stop evaluations of an account."""
        return [hold for hold in self.holds if hold.scope in {ARCHIVE, account, backfill_of(account)}]

    def is_run_held(self, name: str, run: RunCounters) -> bool:
        """Return whether a run, or its account, is on hold."""
        of_run = any(hold.scope == scope_of_run(name) for hold in self.holds)
        return of_run or bool(self.holds_of(run.account))

    def _or_first(self, account: str | None) -> AccountSettings:
        return self.accounts.find(account) or next(iter(self.accounts))


async def read_overview(redis: "Redis", accounts: Accounts, newest: int = 20) -> Overview:
    """Read the overview, with at most ``newest`` runs."""
    ledger, workers = Ledger(redis), WorkerRegistry(redis)
    # Each scope is read by name: finding holds by a scan of all keys takes long if there are many keys.
    rates = {each.name: await read_rate(redis, each) for each in accounts}
    runs = await _read_runs(redis, ledger, newest)
    scopes = [ARCHIVE, *(scope for name in accounts.names for scope in (name, backfill_of(name)))]
    return Overview(
        stats=await ledger.get_stats(),
        holds=[*filter(None, await Holds(redis).get_each(*scopes)), *await list_run_holds(redis)],
        runs=runs,
        rates=rates,
        workers=await workers.count(),
        rejected=await RejectedMessages(redis).count(),
        accounts=accounts,
        paused=await workers.list_paused(),
        leftovers=await Leftovers(redis).count(),
        speeds=await _read_speeds(redis, ledger, runs, rates),
    )


async def _read_runs(redis: "Redis", ledger: Ledger, newest: int) -> dict[str, RunCounters]:
    runs = await ledger.runs.get_many_counters(await ledger.runs.list_newest(newest))
    if not any(run.states.get("parked") for run in runs.values()):
        return runs
    last_due = await read_last_due(redis)
    return {name: replace(run, last_due=last_due.get(name, 0.0)) for name, run in runs.items()}


async def _read_speeds(
    redis: "Redis", ledger: Ledger, runs: Mapping[str, RunCounters], rates: Mapping[str, RateStatus]
) -> dict[str, float]:
    """Return the speed of each account: of the last minute, of the run if it is younger, or of earlier runs."""
    speeds = {account: rate.observed or await read_speed(redis, account) or 0.0 for account, rate in rates.items()}
    for name, run in runs.items():
        if run.active and run.account in speeds:
            age, done = await ledger.runs.get_age(name) or 0.0, run.total - run.pending
            if done >= _LEAST and 0 < age < _MINUTE:
                speeds[run.account] = max(speeds[run.account], done / age)
    return speeds
