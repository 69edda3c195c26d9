"""An evaluation's traces in Redis: its entry in the ledger, its dead letter."""

import asyncio
import time

from tasks.ledger.ledger import Ledger

_POLL_SECONDS = 0.25


class RedisRecords:
    """Removes the traces of evaluations.

    Args:
        ledger: None where there is no Redis, so nothing can be under way.
        patience: seconds to wait for a worker that has the evaluation.
    """

    def __init__(self, ledger: Ledger | None, patience: float = 10.0) -> None:
        self._ledger, self._patience = ledger, patience

    async def are_free(self, eval_id: str) -> bool:
        """Return whether no worker has the evaluation, after waiting for one that has."""
        until = time.monotonic() + self._patience
        while self._ledger and await self._ledger.is_leased(eval_id):
            if time.monotonic() > until:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True

    async def remove(self, eval_id: str) -> bool:
        """Remove them; return whether that was done, for a worker may have taken the evaluation again."""
        return await self.are_free(eval_id) and (self._ledger is None or await self._ledger.erase(eval_id))
