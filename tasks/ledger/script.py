"""Call the Lua script of the ledger. One script has all verbs, and each call is one atomic step."""

import functools
import importlib.resources
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tasks.ledger.entries import KEY_PREFIX

_CHUNK = 1000
_REPLICATED_WITHIN = 2_000  # milliseconds
_KEYS = (
    *("entries", "queued:live", "queued:backfill", "leased", "parked", "held:live", "held:backfill"),
    *("dead", "runs", "run:", "reached", "never", "feeding", "event:", "causes", "dead:", "accounts"),
    *("refused", "held:runs", "live:refusals", "cancelling", "lists", "cancelled", "damaged", "taken_back"),
)
SECTIONS = ("keys", "entry", "writes", "jobs", "cancel", "accept", "refusals", "lease", "upkeep")


class NotReplicated(RedisError):
    """Redis has the accepted evaluations, but too few replicas do, so a failover now would lose them.

    Args:
        found: number of replicas that have them.
        wanted: number of replicas that must have them.
    """

    def __init__(self, found: int, wanted: int) -> None:
        super().__init__(found, wanted)
        self.found, self.wanted = found, wanted

    def __str__(self) -> str:
        return f"only {self.found} of {self.wanted} replicas of Redis have the accepted evaluations"


class LedgerScript:
    """The script in one Redis.

    Args:
        redis: the client, with ``decode_responses``.
        replicas: number of replicas that must have the writes of a verb before ``call_replicated`` returns.
    """

    def __init__(self, redis: "Redis", replicas: int = 0) -> None:
        self._redis, self._replicas = redis, replicas
        self._keys = [KEY_PREFIX + key for key in _KEYS]
        self._script = redis.register_script(_read_script())

    async def call(self, verb: str, *args: object) -> Any:
        """Call a verb and return its answer."""
        return await self._script(keys=self._keys, args=[verb, *map(str, args)])

    async def call_in_chunks(self, verb: str, eval_ids: Sequence[str], *args: object) -> list[Any]:
        """Call a verb for a thousand evaluations at a time, and return all the answers."""
        found: list[Any] = []
        for start in range(0, len(eval_ids), _CHUNK):
            found += await self.call(verb, *args, *eval_ids[start : start + _CHUNK])
        return found

    async def call_replicated(self, verb: str, *args: object) -> Any:
        """Call a verb, and wait until enough replicas have what it wrote.

        Both commands use one connection, because ``WAIT`` covers the writes of its own connection only.

        Raises:
            NotReplicated: too few replicas have its writes.
        """
        if not self._replicas:
            return await self.call(verb, *args)
        async with self._redis.pipeline(transaction=False) as pipe:
            await self._script(keys=self._keys, args=[verb, *map(str, args)], client=pipe)
            pipe.execute_command("WAIT", self._replicas, _REPLICATED_WITHIN)
            answer, found = await pipe.execute()
        if found < self._replicas:
            raise NotReplicated(found, self._replicas)
        return answer


@functools.cache
def _read_script() -> str:
    """Return the script, joined from its sections."""
    folder = importlib.resources.files("tasks.ledger")
    return "\n".join(folder.joinpath(f"ledger_{section}.lua").read_text("utf-8") for section in SECTIONS)
