"""Register the live workers in Redis. A worker without a heartbeat for 15 seconds counts as gone."""

import contextlib
import secrets
import socket
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from tasks.ledger.serialization import read_count
from tasks.model.job import Queue

_PREFIX = "docv:workers:"
"""ZSET for each queue: worker -> its last heartbeat, seconds on Redis's clock."""
_PAUSED = "docv:paused:"
"""HASH for each paused worker: scope, reason, note, since (seconds on Redis's clock)."""
_EXPIRY_SECONDS = 15.0


def make_worker_name(pid: int) -> str:
    """Return a name for the worker in the process ``pid`` of this machine, unique among all workers."""
    # Containers may share a host name, and each of their workers may be process 1.
    return f"{socket.gethostname()}:{pid}:{secrets.token_hex(4)}"


def is_worker_of_process(name: str, pid: int) -> bool:
    """Return whether a name is that of a worker in the process ``pid`` of this machine."""
    return name.startswith(f"{socket.gethostname()}:{pid}:")


@dataclass(frozen=True, slots=True)
class PausedWorker:
    """A worker that takes no evaluations for now, because a service fails on its machine.

    Attributes:
        name: name of the worker.
        scope: what fails, as in a hold.
        reason: the reason, as in a hold.
        note: the same as a sentence.
        age: seconds since it paused.
    """

    name: str
    scope: str
    reason: str
    note: str
    age: float


class WorkerRegistry:
    """The workers of each queue, in Redis.

    Args:
        redis: the client, with ``decode_responses``.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def heartbeat(self, worker: str, queues: Collection[Queue]) -> None:
        """Record that a worker is alive. A full Redis refuses the write, which is ignored."""
        now, _ = await self._redis.time()
        async with self._redis.pipeline(transaction=False) as pipe:
            for queue in queues:
                pipe.zremrangebyscore(_PREFIX + queue, "-inf", now - _EXPIRY_SECONDS)
                # Heartbeats from before Redis's clock was set back.
                pipe.zremrangebyscore(_PREFIX + queue, now + _EXPIRY_SECONDS, "+inf")
                pipe.zadd(_PREFIX + queue, {worker: now})
            with contextlib.suppress(OutOfMemoryError):
                await pipe.execute()

    async def deregister(self, worker: str) -> None:
        """Remove a worker that ends."""
        async with self._redis.pipeline(transaction=True) as pipe:
            for queue in Queue:
                pipe.zrem(_PREFIX + queue, worker)
            pipe.delete(_PAUSED + worker)
            await pipe.execute()

    async def time(self) -> float:
        """Return the time on Redis's clock, seconds since the epoch."""
        seconds, micro = await self._redis.time()
        return float(seconds) + int(micro) / 1e6

    async def pause(self, worker: str, scope: str, reason: str, note: str) -> None:
        """Record that a worker takes no evaluations. The record expires after 15 s without ``extend_pause``."""
        facts: dict[Any, Any] = {"scope": scope, "reason": reason, "note": note, "since": round(await self.time())}
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(_PAUSED + worker, mapping=facts)
            pipe.expire(_PAUSED + worker, round(_EXPIRY_SECONDS))
            with contextlib.suppress(OutOfMemoryError):
                await pipe.execute()

    async def extend_pause(self, worker: str) -> bool:
        """Extend the record of a paused worker; return False if it has expired."""
        return bool(await self._redis.expire(_PAUSED + worker, round(_EXPIRY_SECONDS)))

    async def resume(self, worker: str) -> None:
        """Delete the record of a paused worker, which takes evaluations again."""
        await self._redis.delete(_PAUSED + worker)

    async def list_names(self, queues: Collection[Queue] = tuple(Queue)) -> list[str]:
        """Return the names of the workers that serve one of these queues."""
        now, _ = await self._redis.time()
        async with self._redis.pipeline(transaction=True) as pipe:
            for queue in queues:
                pipe.zrangebyscore(_PREFIX + queue, now - _EXPIRY_SECONDS, now + _EXPIRY_SECONDS)
            return sorted({str(name) for names in await pipe.execute() for name in names})

    async def list_paused(self) -> list[PausedWorker]:
        """Return the paused workers."""
        names = await self.list_names()
        async with self._redis.pipeline(transaction=True) as pipe:
            for name in names:
                pipe.hgetall(_PAUSED + name)
            found = zip(names, await pipe.execute(), strict=True)
        now = await self.time()
        return [_parse_paused_worker(name, facts, now) for name, facts in found if facts]

    async def count(self) -> dict[Queue, int]:
        """Return the number of workers that serve each queue."""
        now, _ = await self._redis.time()
        async with self._redis.pipeline(transaction=True) as pipe:
            for queue in Queue:
                pipe.zcount(_PREFIX + queue, now - _EXPIRY_SECONDS, now + _EXPIRY_SECONDS)
            return dict(zip(Queue, await pipe.execute(), strict=True))


def _parse_paused_worker(name: str, facts: dict[str, str], now: float) -> PausedWorker:
    text = {field: facts.get(field, "") for field in ("scope", "reason", "note")}
    return PausedWorker(name, **text, age=max(0.0, now - (read_count(facts.get("since")) or now)))
