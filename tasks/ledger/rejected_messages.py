"""Record every rejected message with its cause until an operator drops the record, so that none disappears unnoticed.

A record holds fixed words, our own sentences, and checked IDs and types. The rejected content may be anything.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

_KEY = "docv:refusals"
"""STREAM of rejected messages: cause, why, source and, if known, the ID of the message and the type of the event."""
_MAX_RECORDS = 10_000
_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class RejectedMessage:
    """A message, or another input, that was rejected.

    Attributes:
        name: ID of the record; ``delete`` takes it.
        at: when it was rejected, seconds since the epoch on Redis's clock.
        cause: a short fixed word.
        why: a sentence without any part of the input.
        source: the queue or the entry point that it came through.
        message: ID that its sender gave it, such as the ``event_id`` of an event; None if it had none.
        event_type: type of an event of RiskOS; None for other messages.
    """

    name: str
    at: float
    cause: str
    why: str
    source: str
    message: str | None
    event_type: str | None


class RejectedMessages:
    """The rejected messages in Redis. Redis keeps about the latest 10,000.

    Args:
        redis: the client, with ``decode_responses``.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def add(
        self, *, cause: str, why: str, source: str, message: str | None = None, event_type: str | None = None
    ) -> None:
        """Record a rejected message.

        Args:
            cause: a short fixed word.
            why: a sentence without any part of the input.
            source: the queue or the entry point that it came through.
            message: ID that its sender gave it, checked to be safe to keep.
            event_type: type of an event of RiskOS, one of a closed set.
        """
        facts = {"cause": cause, "why": why, "source": source, "message": message, "event_type": event_type}
        kept = {name: fact for name, fact in facts.items() if fact}
        await self._redis.xadd(_KEY, kept, maxlen=_MAX_RECORDS, approximate=True)  # type: ignore[arg-type]  # invariant

    async def count(self) -> int:
        """Return the number of records."""
        return int(await self._redis.xlen(_KEY))

    async def iterate(self) -> AsyncIterator[RejectedMessage]:
        """Yield the rejected messages, the oldest first."""
        last = "-"
        while some := await self._read_page(last):
            for name, facts in some:
                yield _parse(name, facts)
            last = f"({some[-1][0]}"

    async def list_newest(self, count: int, *, before: str = "") -> list[RejectedMessage]:
        """Return at most ``count``, the newest first, and only older ones than the record named ``before``."""
        found: Any = await self._redis.xrevrange(_KEY, max=f"({before}" if before else "+", count=count)
        return [_parse(name, facts) for name, facts in found]

    async def _read_page(self, since: str) -> list[tuple[str, dict[str, str]]]:
        found: Any = await self._redis.xrange(_KEY, min=since, count=_PAGE)
        return list(found)

    async def delete(self, names: Sequence[str]) -> int:
        """Delete records by their names; return how many existed."""
        return int(await self._redis.xdel(_KEY, *names)) if names else 0


def _parse(name: str, facts: Mapping[str, str]) -> RejectedMessage:
    return RejectedMessage(
        name=name,
        at=int(name.partition("-")[0]) / 1000,
        cause=facts.get("cause", ""),
        why=facts.get("why", ""),
        source=facts.get("source", ""),
        message=facts.get("message"),
        event_type=facts.get("event_type"),
    )
