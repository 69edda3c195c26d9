"""What is under way, in figures: one look at all that the processes share in Redis."""

import asyncio
from collections.abc import Mapping

from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.ledger.rejected_messages import RejectedMessages
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.account import Allowance
from tasks.model.job import Queue
from tasks.resilience.adaptive_rate import AdaptiveRate
from tasks.resilience.holds import ARCHIVE, Hold, Holds, Reason, backfill_of

OTHER = "other"
"""What a label says of accounts that are none of ours; none is called so."""
Samples = dict[str, Mapping[tuple[str, ...], float]]


class SystemMetrics:
    """Where to look.

    Args:
        redis: the client, with ``decode_responses``.
        accounts: what each account may send, by its name.
    """

    def __init__(self, redis: "Redis", accounts: Mapping[str, Allowance]) -> None:
        self._redis, self._accounts = redis, accounts
        self._ledger, self._holds = Ledger(redis), Holds(redis)
        self._rates = {
            name: AdaptiveRate(redis, name, allowed.rate, self._holds, allowed.shared_with)
            for name, allowed in accounts.items()
        }
        self._workers, self._rejected = WorkerRegistry(redis), RejectedMessages(redis)

    async def collect(self) -> Samples:
        """Return each figure's values by the values of its labels; ``worker.metrics`` says what they are.

        Raises:
            RedisError: Redis does not answer.
        """
        parts = await asyncio.gather(
            self._collect_ledger(), self._collect_holds(), self._collect_rates(), self._collect_memory()
        )
        return {name: values for part in parts for name, values in part.items()}

    async def _collect_ledger(self) -> Samples:
        census = await self._ledger.get_stats()
        states = {
            "queued": sum(census.queued.values()),
            "leased": census.leased,
            "parked": census.parked,
            "held": sum(census.held.values()),
        }
        return {
            "docv_ledger_evaluations": {(state,): count for state, count in states.items()},
            "docv_held_evaluations": self._by_known_account(census.held_by_account),
            "docv_queue_evaluations": _by_queue(census.queued),
            "docv_queue_oldest_seconds": _by_queue(census.oldest),
            "docv_queue_workers": _by_queue(await self._workers.count()),
            "docv_dead_letters": {(): census.dead_letters},
            "docv_rejected_messages": {(): await self._rejected.count()},
        }

    def _by_known_account(self, held_of: Mapping[str, int]) -> Mapping[tuple[str, ...], float]:
        # An account that is none of ours may be called anything.
        others = sum(count for name, count in held_of.items() if name not in self._accounts)
        known = {name: held_of.get(name, 0) for name in self._accounts}
        return {(name,): count for name, count in {**known, OTHER: others}.items()}

    async def _collect_holds(self) -> Samples:
        scopes = {("", "archive"): ARCHIVE}
        for name in self._accounts:
            scopes |= {(name, "account"): name, (name, "backfill"): backfill_of(name)}
        held = dict(zip(scopes, await self._holds.get_each(*scopes.values()), strict=True))
        return {
            "docv_holds": {(*scope, reason): _is(hold, reason) for scope, hold in held.items() for reason in Reason},
        }

    async def _collect_rates(self) -> Samples:
        seen = await asyncio.gather(*(pace.get_status() for pace in self._rates.values()))
        rates = dict(zip(self._rates, seen, strict=True))
        quotas = {name: each.daily_quota for name, each in self._accounts.items() if each.daily_quota is not None}
        return {
            "docv_rate_configured_per_second": {(name,): rate.configured for name, rate in rates.items()},
            "docv_rate_effective_per_second": {(name,): rate.effective for name, rate in rates.items()},
            "docv_rate_observed_per_second": {(name,): rate.observed for name, rate in rates.items()},
            "docv_quota_used_requests": {(name,): rate.used_today for name, rate in rates.items()},
            "docv_quota_requests": {(name,): quota for name, quota in quotas.items()},
            "docv_quota_left_requests": {
                (name,): max(0, quota - rates[name].used_today) for name, quota in quotas.items()
            },
        }

    async def _collect_memory(self) -> Samples:
        facts = await self._redis.info("memory")
        return {
            "docv_redis_memory_bytes": {(): int(facts["used_memory"])},
            "docv_redis_memory_max_bytes": {(): int(facts["maxmemory"])},
        }


def _by_queue(counts: Mapping[Queue, float]) -> dict[tuple[str, ...], float]:
    return {(queue.value,): count for queue, count in counts.items()}


def _is(hold: Hold | None, reason: Reason) -> int:
    return int(hold is not None and hold.reason is reason)
