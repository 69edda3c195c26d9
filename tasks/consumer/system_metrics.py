"""Read the metrics that all processes share from Redis."""

import asyncio
from collections.abc import Mapping

from redis.asyncio import Redis

from tasks.ledger.dead_letter_age import read_dead_letter_age
from tasks.ledger.last_success import LastSuccess, NightlyCommand
from tasks.ledger.ledger import Ledger
from tasks.ledger.refused_runs import count_live_refusals, list_refused_runs
from tasks.ledger.rejected_messages import RejectedMessages
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.account import Allowance
from tasks.model.job import Queue
from tasks.resilience.adaptive_rate import AdaptiveRate
from tasks.resilience.holds import ARCHIVE, Holds, Reason, backfill_of
from worker.metrics.shared_metrics import Samples, SharedGauge
from worker.metrics.worker_metrics import OTHER


class SystemMetrics:
    """Reads the ledger, the holds, the rates and the memory of Redis.

    Args:
        redis: the client, with ``decode_responses``.
        accounts: the allowance of each account, by its name.
    """

    def __init__(self, redis: "Redis", accounts: Mapping[str, Allowance]) -> None:
        self._redis, self._accounts = redis, accounts
        self._ledger, self._holds = Ledger(redis), Holds(redis)
        self._rates = {name: AdaptiveRate(redis, name, allowed, self._holds) for name, allowed in accounts.items()}
        self._workers, self._rejected = WorkerRegistry(redis), RejectedMessages(redis)

    async def collect(self) -> Samples:
        """Return the samples of each metric by its label values.

        Raises:
            RedisError: Redis does not answer.
        """
        parts = await asyncio.gather(
            self._collect_ledger(),
            self._collect_holds(),
            self._collect_rates(),
            self._collect_memory(),
            self._collect_successes(),
        )
        return {gauge: values for part in parts for gauge, values in part.items()}

    async def _collect_ledger(self) -> Samples:
        stats = await self._ledger.get_stats()
        states = {
            "queued": sum(stats.queued.values()),
            "leased": stats.leased,
            "parked": stats.parked,
            "held": sum(stats.held.values()),
        }
        # The name of an unknown account could be anything, so it must not become a label.
        unknown = sum(count for name, count in stats.held_by_account.items() if name not in self._accounts)
        held = {name: stats.held_by_account.get(name, 0) for name in self._accounts} | {OTHER: unknown}
        return {
            SharedGauge.LEDGER_EVALUATIONS: {(state,): count for state, count in states.items()},
            SharedGauge.HELD_EVALUATIONS: {(name,): count for name, count in held.items()},
            SharedGauge.QUEUE_EVALUATIONS: _by_queue(stats.queued),
            SharedGauge.QUEUE_OLDEST: _by_queue(stats.oldest),
            SharedGauge.QUEUE_WORKERS: _by_queue(await self._workers.count()),
            SharedGauge.DEAD_LETTERS: {(): stats.dead_letters},
            SharedGauge.DEAD_LETTERS_OLDEST: {(): await read_dead_letter_age(self._redis)},
            SharedGauge.REJECTED_MESSAGES: {(): await self._rejected.count()},
        }

    async def _collect_holds(self) -> Samples:
        scopes = {("", "archive"): ARCHIVE}
        for name in self._accounts:
            scopes |= {(name, "account"): name, (name, "backfill"): backfill_of(name)}
        held = dict(zip(scopes, await self._holds.get_each(*scopes.values()), strict=True))
        holds: dict[tuple[str, ...], float] = {
            (*scope, reason.value): int(hold is not None and hold.reason is reason)
            for scope, hold in held.items()
            for reason in Reason
        }
        holds.update({(*scope, OTHER): 1 for scope, hold in held.items() if hold and hold.reason not in set(Reason)})
        # The name of a run could be anything, so it must not become a label.
        holds["", "run", Reason.ONLY_REFUSALS.value] = int(bool(await list_refused_runs(self._redis)))
        refusals = await count_live_refusals(self._redis)
        return {
            SharedGauge.HOLDS: holds,
            SharedGauge.LIVE_REFUSALS: {(name,): refusals.get(name, 0) for name in self._accounts},
        }

    async def _collect_rates(self) -> Samples:
        statuses = await asyncio.gather(*(rate.get_status() for rate in self._rates.values()))
        rates = dict(zip(self._rates, statuses, strict=True))
        daily = {name: _daily_quota(each, rates[name].daily_limit) for name, each in self._accounts.items()}
        quotas = {name: quota for name, quota in daily.items() if quota is not None}
        return {
            SharedGauge.RATE_CONFIGURED: {(name,): rate.configured for name, rate in rates.items()},
            SharedGauge.RATE_EFFECTIVE: {(name,): rate.effective for name, rate in rates.items()},
            SharedGauge.RATE_OBSERVED: {(name,): rate.observed for name, rate in rates.items()},
            SharedGauge.QUOTA_USED: {(name,): rate.used_today for name, rate in rates.items()},
            SharedGauge.QUOTA: {(name,): quota for name, quota in quotas.items()},
            SharedGauge.QUOTA_LEFT: {(name,): max(0, quota - rates[name].used_today) for name, quota in quotas.items()},
        }

    async def _collect_successes(self) -> Samples:
        return {
            SharedGauge.VERIFIED: {(): await LastSuccess(self._redis, NightlyCommand.VERIFY).get()},
            SharedGauge.DISPOSED: {(): await LastSuccess(self._redis, NightlyCommand.RETENTION).get()},
        }

    async def _collect_memory(self) -> Samples:
        facts = await self._redis.info("memory")
        return {
            SharedGauge.REDIS_MEMORY: {(): int(facts["used_memory"])},
            SharedGauge.REDIS_MEMORY_MAX: {(): int(facts["maxmemory"])},
        }


def _daily_quota(allowance: Allowance, limit: int | None) -> int | None:
    """Return the requests per day that an account may send; RiskOS's limit caps the quota of the settings."""
    if limit is None:
        return allowance.daily_quota
    allowed = max(0, limit - allowance.leave_daily)
    return allowed if allowance.daily_quota is None else min(allowed, allowance.daily_quota)


def _by_queue(counts: Mapping[Queue, float]) -> dict[tuple[str, ...], float]:
    return {(queue.value,): count for queue, count in counts.items()}
