"""What is under way, in figures: one look at all that the processes share in Redis."""

import asyncio
from collections.abc import Mapping

from redis.asyncio import Redis

from tasks.entry import Queue
from tasks.hold import ARCHIVE, Hold, Holds, Reason, backfill_of
from tasks.ledger import Ledger
from tasks.pace import Pace
from tasks.presence import Presence
from tasks.refusals import Refusals

Found = dict[str, Mapping[tuple[str, ...], float]]


class UnderWay:
    """Where to look.

    Args:
        redis: the client, with ``decode_responses``.
        account: name of the account.
        rate: requests a second, as in the settings.
        quota: requests in 24 hours, None for no quota.
    """

    def __init__(self, redis: "Redis", account: str, rate: float, quota: int | None) -> None:
        self._redis, self._account, self._quota = redis, account, quota
        self._ledger, self._holds = Ledger(redis), Holds(redis)
        self._pace = Pace(redis, account, rate, self._holds)
        self._presence, self._refusals = Presence(redis), Refusals(redis)

    async def look(self) -> Found:
        """Return each figure's values by the values of its labels; ``worker.shared_figures`` says what they are.

        Raises:
            RedisError: Redis does not answer.
        """
        parts = await asyncio.gather(self._evaluations(), self._standing(), self._sending(), self._memory())
        return {name: values for part in parts for name, values in part.items()}

    async def _evaluations(self) -> Found:
        census = await self._ledger.census()
        states = {
            "queued": sum(census.queued.values()),
            "leased": census.leased,
            "parked": census.parked,
            "held": sum(census.held.values()),
        }
        return {
            "docv_ledger_evaluations": {(state,): count for state, count in states.items()},
            "docv_queue_evaluations": _by_queue(census.queued),
            "docv_queue_oldest_seconds": _by_queue(census.oldest),
            "docv_queue_workers": _by_queue(await self._presence.count()),
            "docv_dead_letters": {(): census.dead},
            "docv_refused_messages": {(): await self._refusals.count()},
        }

    async def _standing(self) -> Found:
        found = await self._holds.of_each(self._account, backfill_of(self._account), ARCHIVE)
        held = dict(zip(("account", "backfill", "archive"), found, strict=True))
        return {
            "docv_holds": {(scope, reason): _is(hold, reason) for scope, hold in held.items() for reason in Reason},
        }

    async def _sending(self) -> Found:
        rate = await self._pace.see()
        found: Found = {
            "docv_rate_asked_per_second": {(): rate.asked},
            "docv_rate_kept_per_second": {(): rate.kept},
            "docv_rate_reached_per_second": {(): rate.reached},
            "docv_quota_used_requests": {(): rate.today},
        }
        if self._quota is not None:
            found["docv_quota_requests"] = {(): self._quota}
            found["docv_quota_left_requests"] = {(): max(0, self._quota - rate.today)}
        return found

    async def _memory(self) -> Found:
        facts = await self._redis.info("memory")
        return {
            "docv_redis_memory_bytes": {(): int(facts["used_memory"])},
            "docv_redis_memory_max_bytes": {(): int(facts["maxmemory"])},
        }


def _by_queue(counts: Mapping[Queue, float]) -> dict[tuple[str, ...], float]:
    return {(queue.value,): count for queue, count in counts.items()}


def _is(hold: Hold | None, reason: Reason) -> int:
    return int(hold is not None and hold.reason is reason)
