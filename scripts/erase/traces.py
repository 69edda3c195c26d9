"""Find and remove the records of evaluations in Redis."""

import asyncio
import time
from collections.abc import Collection, Mapping

from scripts.erase.mentions import ALWAYS, remove_mentions
from tasks.ledger.entries import find_entry
from tasks.ledger.ledger import Ledger
from tasks.ledger.leftovers import Leftovers
from tasks.model.evaluation import Evaluation

_POLL_SECONDS = 0.25


class RedisRecords:
    """Finds and removes records of evaluations in Redis.

    Args:
        ledger: the ledger; None without a Redis, if no worker can be running.
        patience: seconds to wait for a worker that holds the evaluation.
        environments: environment of each configured account, by its name.
    """

    def __init__(
        self, ledger: Ledger | None, patience: float = 10.0, environments: Mapping[str, str] | None = None
    ) -> None:
        self._ledger, self._patience, self._environments = ledger, patience, environments or {}
        self._leftovers = Leftovers(ledger.redis) if ledger else None

    async def find_environment(self, evaluation: Evaluation) -> str | None:
        """Return the environment for which the ledger has an evaluation, or None.

        If its account is not configured here, return the environment of the request.
        """
        entry = await find_entry(self._ledger.redis, evaluation.eval_id) if self._ledger else None
        return self._environments.get(entry.account, evaluation.environment) if entry else None

    async def latest_time(self) -> float:
        """Return the time of this machine's clock or of Redis's, whichever is ahead.

        Orders have the time of Redis's clock, and an erasure must not look older than an earlier order.
        """
        seconds, micro = await self._ledger.redis.time() if self._ledger else (0, 0)
        return max(time.time(), seconds + micro / 1e6)

    async def remove(self, evaluation: Evaluation, *, wait: bool) -> bool:
        """Remove an evaluation from the ledger; return False if a worker holds it.

        An entry for the other environment is not part of the request and stays.

        Args:
            wait: whether to wait a while for the worker.
        """
        if self._ledger is None or await self.find_environment(evaluation) != evaluation.environment:
            return True
        until = time.monotonic() + (self._patience if wait else 0)
        while not await self._ledger.erase(evaluation.eval_id):
            if time.monotonic() >= until:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True

    async def is_idle(self, evaluation: Evaluation) -> bool:
        """Return whether no worker has an evaluation, after waiting a while for one that has it."""
        until = time.monotonic() + self._patience
        while self._ledger:
            entry = await find_entry(self._ledger.redis, evaluation.eval_id)
            if entry is None or not entry.has_worker:
                break
            if time.monotonic() >= until:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True

    async def remove_mentions(self, eval_ids: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        """Remove IDs from messages and stored answers; return the places where each ID may remain."""
        if not eval_ids:
            return {}
        if self._ledger is None:
            return dict.fromkeys(eval_ids, ("Redis, which was not checked", *ALWAYS))
        return await remove_mentions(self._ledger.redis, eval_ids)

    async def list_leftovers(self) -> list[str]:
        """Return the keys of objects that workers wrote while their evaluations were erased."""
        return await self._leftovers.list_all() if self._leftovers else []

    async def forget_leftovers(self, keys: Collection[str]) -> None:
        """Remove keys from the leftovers."""
        if self._leftovers:
            await self._leftovers.remove(keys)
