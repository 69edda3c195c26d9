"""Holds as they are placed in everyday life."""

from uuid import uuid4

from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.job import Job, Queue, Trigger
from tasks.resilience.circuit_breaker import CircuitBreaker
from tasks.resilience.holds import KEY_BACKOFF, Holds, Reason


async def refused(holds: Holds, account: str, status: int, *, probe: bool) -> float:
    """RiskOS refused the key of an account; return the seconds until the next probe."""
    return await holds.place_until_probe(account, Reason(str(status)), "refused", KEY_BACKOFF, probe=probe)


async def failed(
    breaker: CircuitBreaker, redis: Redis, error: Exception, *, suspect: bool = False, archive_probe: bool = False
) -> bool:
    """An evaluation failed that nobody has heard of before; return whether an outage is to blame."""
    entry = Job(str(uuid4()), "ours", Queue.LIVE, "default", *(False, 0, 0), Trigger("message"), suspect=suspect)
    return await breaker.record_failure(error, entry, Ledger(redis), archive_probe=archive_probe)
