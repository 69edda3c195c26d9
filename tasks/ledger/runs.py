"""Record the runs of the ledger: their lists, the feeding of those lists, and their counters."""

import enum
from collections.abc import Sequence

from redis.asyncio import Redis

from tasks.ledger.counters import RunCounters
from tasks.ledger.entries import KEY_PREFIX
from tasks.ledger.script import LedgerScript
from tasks.ledger.serialization import options_as_json, parse_counters, read_count, select_published
from tasks.model.account import DEFAULT_ACCOUNT
from tasks.model.job import EnqueueOptions


class BeginResult(enum.StrEnum):
    """Result of beginning a run with a list."""

    CREATED = "begun"
    RESUMED = "known"
    CONFLICT = "taken"
    CANCELLED = "cancelled"


class Runs:
    """The runs of a ledger.

    Args:
        redis: the client, with ``decode_responses``.
        script: the script of the ledger in the same Redis.
    """

    def __init__(self, redis: "Redis", script: LedgerScript) -> None:
        self._redis, self._script = redis, script

    async def begin(
        self, run: str, *, total: int, fingerprint: str, account: str = DEFAULT_ACCOUNT, again: bool = False
    ) -> BeginResult:
        """Begin or resume a run that has a list, so that feeders feed the list to the ledger.

        Args:
            run: its name.
            total: number of IDs in the list.
            fingerprint: identifies the content of the list.
            account: name of the account that its evaluations are requested with.
            again: if the run was cancelled, begin it from the start of its list.

        Raises:
            NotReplicated: a failover might lose the run; begin it again.
        """
        return BeginResult(await self._script.call_replicated("begin", run, total, fingerprint, account, int(again)))

    async def accept_refusals(self, run: str) -> bool:
        """Never put a run on hold for its refusals, and end such a hold; return whether there was one."""
        return bool(await self._script.call("accept_refusals", run))

    async def list_feeding(self) -> list[str]:
        """Return the names of the runs that are fed from their lists, the oldest first."""
        return [str(name) for name in await self._redis.zrange(f"{KEY_PREFIX}feeding", 0, -1)]

    async def stop_feeding(self, run: str) -> None:
        """Stop feeding a run; its evaluations in the ledger are still processed. ``begin`` resumes it."""
        await self._redis.zrem(f"{KEY_PREFIX}feeding", run)

    async def get_fingerprint(self, run: str) -> str | None:
        """Return the fingerprint of a run's list; None if the run has no list."""
        found = await self._redis.hget(f"{KEY_PREFIX}run:{run}", "listed")
        return None if found is None else str(found)

    async def get_position(self, run: str) -> int:
        """Return how many IDs of a run's list have been fed."""
        return int(await self._redis.hget(f"{KEY_PREFIX}run:{run}", "fed") or 0)

    async def feed(
        self, run: str, eval_ids: Sequence[str], options: EnqueueOptions, *, position: int, backlog: int
    ) -> list[str] | None:
        """Accept the next evaluations of a run's list; return those to publish now.

        Args:
            run: its name.
            eval_ids: canonical IDs, at most a few thousand.
            options: the options of the order.
            position: number of IDs that come before them in the list.
            backlog: accept nothing if the ledger has this number of evaluations, or more.

        Returns:
            None if nothing was accepted: the ledger has reached the backlog, another feeder has fed these IDs, or the
            run was cancelled.
        """
        order = options_as_json(options, eval_ids, listed=True)
        flags = await self._script.call("feed", run, position, backlog, order, *eval_ids)
        return select_published(eval_ids, flags) if flags else None

    async def get_counters(self, run: str) -> RunCounters:
        """Return the counters of a run; all zero if the run is unknown."""
        return parse_counters(await self._redis.hgetall(f"{KEY_PREFIX}run:{run}"))

    async def get_many_counters(self, names: Sequence[str]) -> dict[str, RunCounters]:
        """Return the counters of at most a few hundred runs with one request."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(f"{KEY_PREFIX}run:{name}")
            return dict(zip(names, map(parse_counters, await pipe.execute()), strict=True))

    async def get_times(self, run: str) -> tuple[float, float] | None:
        """Return when a run began and when its counters last changed, in seconds since the epoch on Redis's clock.

        None if the run is unknown.
        """
        began = await self._redis.zscore(f"{KEY_PREFIX}runs", run)
        if began is None:
            return None
        changed = await self._redis.hget(f"{KEY_PREFIX}run:{run}", "changed")
        return began / 1000, (read_count(changed) or began) / 1000

    async def get_age(self, run: str) -> float | None:
        """Return the seconds from the beginning of a run to its end, or until now; None if the run is unknown."""
        times = await self.get_times(run)
        if times is None:
            return None
        began, changed = times
        if not (await self.get_counters(run)).pending:
            return changed - began
        seconds, micro = await self._redis.time()
        return float(seconds) + int(micro) / 1e6 - began

    async def list_newest(self, newest: int = 20, *, skip: int = 0) -> list[str]:
        """Return the names of the newest runs, the newest first, after skipping ``skip`` of them."""
        return [str(name) for name in await self._redis.zrevrange(f"{KEY_PREFIX}runs", skip, skip + newest - 1)]

    async def count(self) -> int:
        """Return the number of runs."""
        return int(await self._redis.zcard(f"{KEY_PREFIX}runs"))
