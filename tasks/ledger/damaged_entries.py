"""List and drop the entries and dead letters that the script of the ledger could not read."""

from collections.abc import AsyncIterator, Sequence

from redis.asyncio import Redis

from tasks.ledger.entries import KEY_PREFIX
from tasks.ledger.script import LedgerScript

_KEY = KEY_PREFIX + "damaged"
_PAGE = 1000


class DamagedEntries:
    """The damaged entries in Redis. Their texts are never shown, because they may contain anything.

    Args:
        redis: the client, with ``decode_responses``.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis, self._script = redis, LedgerScript(redis)

    async def count(self) -> int:
        """Return the number of damaged entries."""
        return int(await self._redis.hlen(_KEY))

    async def iterate(self) -> AsyncIterator[str]:
        """Yield the evaluations that they belong to, unordered."""
        async for eval_id, _ in self._redis.hscan_iter(_KEY, count=_PAGE):
            yield str(eval_id)

    async def drop(self, eval_ids: Sequence[str]) -> list[str]:
        """Forget the damaged entries of evaluations; return the IDs of those that existed.

        A new order of an evaluation forgets its damaged entry, too.
        """
        return await self._script.call_in_chunks("drop_damaged", eval_ids)
