"""Take back evaluations that were accepted: all that a run waits for, or some for everyone that waits for them."""

from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from tasks.ledger.entries import KEY_PREFIX
from tasks.ledger.script import LedgerScript

_NO_RUN = -1
_CANCELLED, _IN_FLIGHT = 1, 2


@dataclass(frozen=True, slots=True)
class CancelCounts:
    """How many evaluations a cancellation concerned.

    Attributes:
        cancelled: evaluations that were waiting, or not fed yet.
        in_flight: evaluations that a worker has. If it has not begun with one, it puts it back; else the attempt ends
            and is the last one.
    """

    cancelled: int
    in_flight: int


class Cancellation:
    """Cancels evaluations in the ledger, in steps that each look at some thousand.

    Args:
        redis: the client, with ``decode_responses``.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis, self._script = redis, LedgerScript(redis)

    async def cancel_run(self, run: str) -> CancelCounts | None:
        """Cancel everything that a run waits for; an evaluation that others want, too, goes on for them.

        The first step stops the run: nothing more of it is fed or leased. If this is cut off after it, call it again.

        Returns:
            None if there is no such run.
        """
        cancelled: int = await self._script.call("cancel_list", run)
        if cancelled == _NO_RUN:
            return None
        cursor = ""
        while cursor != "0":
            cursor, some = await self._script.call("cancel_some", run, cursor or "0")
            cancelled += some
        return CancelCounts(cancelled, int(await self._redis.hget(f"{KEY_PREFIX}run:{run}", "leased") or 0))

    async def cancel_evaluations(self, eval_ids: Sequence[str]) -> CancelCounts:
        """Cancel evaluations for everyone that waits for them, and in lists that are not fed yet.

        Args:
            eval_ids: canonical IDs, each once.
        """
        found = await self._script.call_in_chunks("cancel", eval_ids)
        return CancelCounts(found.count(_CANCELLED), found.count(_IN_FLIGHT))

    async def count(self) -> int:
        """Return a number that grows whenever evaluations in flight may have been cancelled."""
        return int(await self._redis.hget(f"{KEY_PREFIX}reached", "cancellations") or 0)

    async def find_unwanted(self, eval_ids: Sequence[str]) -> set[str]:
        """Return those of some evaluations in flight that were cancelled for everyone that wants them."""
        return set(await self._script.call_in_chunks("unwanted", eval_ids))
