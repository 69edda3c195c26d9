"""Cancel accepted evaluations: all pending ones of a run, or some by their IDs."""

from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from tasks.ledger.entries import KEY_PREFIX
from tasks.ledger.script import LedgerScript
from tasks.ledger.serialization import read_count

_NO_RUN = -1
_CANCELLED, _IN_FLIGHT = 1, 2


@dataclass(frozen=True, slots=True)
class CancelCounts:
    """How many evaluations a cancellation affected.

    Attributes:
        cancelled: evaluations that were waiting, or not fed yet.
        in_flight: evaluations that a worker has. If the worker has not begun one, it releases it. Otherwise the current
            attempt is the last one.
    """

    cancelled: int
    in_flight: int


class Cancellation:
    """Cancels evaluations in the ledger, a few thousand in each step.

    Args:
        redis: the client, with ``decode_responses``.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis, self._script = redis, LedgerScript(redis)

    async def cancel_run(self, run: str) -> CancelCounts | None:
        """Cancel the pending evaluations of a run. An evaluation that another order also wants stays for that order.

        The first step stops the run: none of its evaluations is fed or leased any more. If a later step fails, call
        this again.

        Returns:
            None if the run is unknown.
        """
        cancelled: int = await self._script.call("cancel_list", run)
        if cancelled == _NO_RUN:
            return None
        cursor = ""
        while cursor != "0":
            cursor, some = await self._script.call("cancel_some", run, cursor or "0")
            cancelled += some
        return CancelCounts(cancelled, read_count(await self._redis.hget(f"{KEY_PREFIX}run:{run}", "leased")))

    async def cancel_evaluations(self, eval_ids: Sequence[str]) -> CancelCounts:
        """Cancel evaluations for all their orders, and in lists that are not fed yet.

        Args:
            eval_ids: canonical IDs, without duplicates.
        """
        found = await self._script.call_in_chunks("cancel", eval_ids)
        return CancelCounts(found.count(_CANCELLED), found.count(_IN_FLIGHT))

    async def find_cancelled(self, eval_ids: Sequence[str]) -> set[str]:
        """Return those that were cancelled for all their orders and not accepted again.

        The ledger remembers the newest million.
        """
        if not eval_ids:
            return set()
        async with self._redis.pipeline(transaction=True) as pipe:
            # `cancelled` has the IDs that a list which is not fed yet may contain.
            for key in ("cancelled", "taken_back"):
                pipe.zmscore(KEY_PREFIX + key, list(eval_ids))
            found = await pipe.execute()
        return {eval_id for eval_id, *scores in zip(eval_ids, *found, strict=True) if scores != [None, None]}

    async def count(self) -> int:
        """Return a counter that grows whenever evaluations in flight may have been cancelled."""
        return read_count(await self._redis.hget(f"{KEY_PREFIX}reached", "cancellations"))

    async def find_cancelled_in_flight(self, eval_ids: Sequence[str]) -> set[str]:
        """Return those evaluations in flight that were cancelled for all their orders."""
        return set(await self._script.call_in_chunks("unwanted", eval_ids))
