"""Place holds as workers do."""

from dataclasses import replace
from uuid import uuid4

from redis.asyncio import Redis

from tasks.errors import Fault
from tasks.ledger.ledger import Ledger
from tasks.model.job import Job, Queue, Trigger
from tasks.resilience.circuit_breaker import CircuitBreaker
from tasks.resilience.holds import KEY_BACKOFF, Holds, Reason


async def refused(holds: Holds, account: str, status: int, *, probe: bool) -> float:
    """Place the hold of an account whose key RiskOS refused; return the seconds until the next probe."""
    return await holds.place_until_probe(account, Reason(str(status)), "refused", KEY_BACKOFF, probe=probe)


async def failed(
    breaker: CircuitBreaker,
    redis: Redis,
    error: Exception,
    *,
    suspect: bool = False,
    excused_at: float | None = None,
    archive_probe: bool = False,
) -> bool:
    """Record the failure of a new evaluation; return whether something else is to blame."""
    entry = Job(str(uuid4()), "ours", Queue.LIVE, "default", *(False, 0, 0), Trigger("message"), suspect=suspect)
    job = replace(entry, excused_at=excused_at)
    fault = await breaker.record_failure(error, job, Ledger(redis), archive_probe=archive_probe)
    assert fault in {Fault.EVALUATION, Fault.MACHINE, Fault.SERVICE}
    return fault is not Fault.EVALUATION
