"""What came in and was refused, kept with its cause until a person drops it: nothing disappears without a trace.

Kept are our own words only. What was refused may hold anything.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

_KEY = "docv:refusals"
"""STREAM of what was refused: cause, why, source and, where there is one, the ID of the message."""
_MOST = 10_000
_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class RejectedMessage:
    """Something that was refused.

    Attributes:
        name: what it is dropped by.
        at: when, seconds since the epoch, of Redis's clock.
        cause: a short fixed word.
        why: a sentence of ours.
        source: the queue, or the door, that it came to.
        message: ID that its sender gave it, where it had one.
    """

    name: str
    at: float
    cause: str
    why: str
    source: str
    message: str | None


class RejectedMessages:
    """What was refused, in Redis; the oldest give way when there are too many.

    Args:
        redis: the client, with ``decode_responses``.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def add(self, *, cause: str, why: str, source: str, message: str | None = None) -> None:
        """Keep what was refused.

        Args:
            cause: a short fixed word.
            why: a sentence of ours; never a part of what was refused.
            source: the queue, or the door, that it came to.
            message: ID that its sender gave it.
        """
        facts = {"cause": cause, "why": why, "source": source} | ({"message": message} if message else {})
        await self._redis.xadd(_KEY, facts, maxlen=_MOST, approximate=True)  # type: ignore[arg-type]  # invariant

    async def count(self) -> int:
        """Return how many are kept."""
        return int(await self._redis.xlen(_KEY))

    async def iterate(self) -> AsyncIterator[RejectedMessage]:
        """Yield them, the oldest first."""
        last = "-"
        while some := await self._read_page(last):
            for name, facts in some:
                yield RejectedMessage(
                    name=name,
                    at=int(name.partition("-")[0]) / 1000,
                    cause=facts["cause"],
                    why=facts["why"],
                    source=facts["source"],
                    message=facts.get("message"),
                )
            last = f"({some[-1][0]}"

    async def _read_page(self, since: str) -> list[tuple[str, dict[str, str]]]:
        found: Any = await self._redis.xrange(_KEY, min=since, count=_AT_ONCE)
        return list(found)

    async def delete(self, names: Sequence[str]) -> int:
        """Forget some; return how many there were."""
        return int(await self._redis.xdel(_KEY, *names)) if names else 0
