"""Read, redrive and drop the dead letters of the ledger."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from redis.asyncio import Redis

from tasks.ledger.entries import KEY_PREFIX
from tasks.ledger.script import LedgerScript
from tasks.ledger.serialization import parse_dead_letter, read_score
from tasks.model.job import DeadLetter
from tasks.model.outcome import Outcome

_PAGE = 1000


class DeadLetters:
    """The dead letters of a ledger.

    Args:
        redis: the client, with ``decode_responses``.
        script: the script of the ledger in the same Redis.
    """

    def __init__(self, redis: "Redis", script: LedgerScript) -> None:
        self._redis, self._script = redis, script

    async def iterate(self) -> AsyncIterator[DeadLetter]:
        """Yield all dead letters, unordered; they are read in pages because there may be millions."""
        async for eval_id, text in self._redis.hscan_iter(f"{KEY_PREFIX}dead", count=_PAGE):
            yield parse_dead_letter(eval_id, text)

    async def count_causes(self, most: int = 100) -> dict[str, int]:
        """Return the number of dead letters with each cause, the most frequent cause first."""
        found: Any = await self._redis.zrevrange(f"{KEY_PREFIX}causes", 0, most - 1, withscores=True)
        return {str(cause): read_score(count) for cause, count in found}

    async def count(self, cause: str) -> int:
        """Return the number of dead letters with a cause."""
        return read_score(await self._redis.zscore(f"{KEY_PREFIX}causes", cause))

    async def list_by_cause(self, cause: str, count: int, *, skip: int = 0) -> list[str]:
        """Return the evaluations of at most ``count`` dead letters with a cause, the latest failure first."""
        return [str(each) for each in await self._redis.zrevrange(f"{KEY_PREFIX}dead:{cause}", skip, skip + count - 1)]

    async def get_many(self, eval_ids: Sequence[str]) -> list[DeadLetter]:
        """Return the dead letters of at most a few hundred evaluations; those without one are left out."""
        found: Any = await self._redis.hmget(f"{KEY_PREFIX}dead", list(eval_ids)) if eval_ids else []
        return [parse_dead_letter(each, text) for each, text in zip(eval_ids, found, strict=True) if text]

    async def redrive(self, eval_ids: Sequence[str]) -> list[str]:
        """Try dead letters again, with all their attempts; return the IDs of those that existed.

        Their runs count them as pending again.
        """
        return await self._script.call_in_chunks("redrive", eval_ids, Outcome.FAILED)

    async def drop(self, eval_ids: Sequence[str]) -> list[str]:
        """Forget dead letters; return the IDs of those that existed. Their runs still count them as failed."""
        return await self._script.call_in_chunks("drop", eval_ids)
