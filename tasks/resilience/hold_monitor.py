"""Read the holds every second, and pass them on to the parts of this process that need them."""

from collections.abc import Mapping, Sequence

from redis.asyncio import Redis

from tasks.model.job import Queue
from tasks.resilience.archive_gate import ArchiveGate
from tasks.resilience.holds import ARCHIVE, Hold, Holds, backfill_of
from tasks.resilience.rate_limiter import RateLimiter
from tasks.resilience.run_holds import list_run_holds
from tasks.telemetry import log_events


class HoldMonitor:
    """Watches the holds of accounts, their backfills, the archive and runs.

    Args:
        accounts: names of the accounts.
        holds: the holds of all processes.
        redis: the client, for the holds of runs.
        rate_limiter: gives up the permits of an account on hold.
        gate: is closed while the archive is on hold.
    """

    def __init__(
        self, accounts: Sequence[str], holds: Holds, redis: "Redis", rate_limiter: RateLimiter, gate: ArchiveGate
    ) -> None:
        self._accounts, self._holds, self._redis = accounts, holds, redis
        self._rate_limiter, self._gate = rate_limiter, gate
        self._known: dict[str, Hold] = {}

    async def refresh(self) -> Mapping[str, Mapping[Queue, list[Hold]]]:
        """Read all holds, pass them on, and return those of each queue of each account."""
        scopes = [ARCHIVE, *(scope for name in self._accounts for scope in (name, backfill_of(name)))]
        found = {hold.scope: hold for hold in await self._holds.get_each(*scopes) if hold}
        for name in self._accounts:
            self._rate_limiter.set_hold(name, found[name].remaining if name in found else 0.0)
        self._gate.set_hold(found.get(ARCHIVE))
        self._log_changes(found | {hold.scope: hold for hold in await list_run_holds(self._redis)})
        return {name: _of_queues(name, found) for name in self._accounts}

    def _log_changes(self, found: dict[str, Hold]) -> None:
        for scope in found.keys() - self._known.keys():
            hold = found[scope]
            log_events.hold_started(hold.what, hold.reason.value, hold.note, hold.remaining)
        for scope in self._known.keys() - found.keys():
            hold = self._known[scope]
            log_events.hold_ended(hold.what, hold.reason.value, hold.age)
        self._known = found


def _of_queues(account: str, found: Mapping[str, Hold]) -> dict[Queue, list[Hold]]:
    common = [found[scope] for scope in (account, ARCHIVE) if scope in found]
    own = [found[scope] for scope in (backfill_of(account),) if scope in found]
    return {Queue.LIVE: common, Queue.BACKFILL: [*common, *own]}
