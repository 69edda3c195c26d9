"""Record when a nightly command last succeeded, for the metrics that all processes share.

A command that ends cannot be scraped, so it writes the time to Redis.
"""

import enum
import math

from redis.asyncio import Redis


class NightlyCommand(enum.StrEnum):
    """A command whose last success is known. Each has a STRING: seconds since the epoch, of Redis's clock."""

    VERIFY = "docv:verify:last_success"
    """`verify` found no difference in the whole archive."""
    RETENTION = "docv:retention:last_success"
    """`retention apply --unattended` disposed of everything that was due and that nothing held back."""


class LastSuccess:
    """The time of the last success of a command, in Redis.

    Args:
        redis: the client, with ``decode_responses``.
        command: the command.
    """

    def __init__(self, redis: "Redis", command: NightlyCommand) -> None:
        self._redis, self._key = redis, command.value

    async def record(self) -> None:
        """Record a success now."""
        seconds, _ = await self._redis.time()
        await self._redis.set(self._key, seconds)

    async def get(self) -> float:
        """Return the time of the last success; 0 if there was none, or if the value is damaged."""
        try:
            at = float(await self._redis.get(self._key) or 0)
        except ValueError:
            return 0.0
        return at if math.isfinite(at) else 0.0
