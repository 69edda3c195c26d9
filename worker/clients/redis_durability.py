"""Check that Redis does not lose accepted evaluations: persistence, eviction and fsync."""

from collections.abc import Iterable

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from worker.clients.errors import ServiceUnavailable

_log = structlog.get_logger("docv.resources")


async def check_persistence(redis: "Redis", *, strict: bool) -> None:
    """Check that Redis has an append-only file and evicts nothing.

    Raises:
        ServiceUnavailable: it may lose evaluations, and ``strict`` is set.
    """
    facts = await redis.info()
    faults = []
    if not int(facts.get("aof_enabled", 0)):
        faults.append("it has no append-only file, so a restart loses accepted evaluations: set appendonly yes")
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        faults.append(f"when it is full it evicts accepted evaluations ({policy}): set maxmemory-policy noeviction")
    _report(faults, strict=strict)


async def check_fsync(redis: "Redis", *, strict: bool) -> None:
    """Check that Redis writes to disk before it answers, for processes that confirm accepted evaluations to producers.

    With ``everysec``, even a crash of the Redis process alone loses up to two seconds of acknowledged writes, because
    Redis postpones writes during a slow fsync (seen with a disk that takes 0.7 s: 16 of 500 writes were lost). If Redis
    does not reveal its setting, the check passes.

    Raises:
        ServiceUnavailable: it may lose evaluations, and ``strict`` is set.
    """
    if await current_fsync(redis) not in {None, "always"}:
        _report(
            ["a crash may lose evaluations accepted in the last two seconds: set appendfsync always"], strict=strict
        )


async def current_fsync(redis: "Redis") -> str | None:
    """Return Redis's setting ``appendfsync``; None if it is unknown, because cloud services refuse ``CONFIG``."""
    try:
        return str((await redis.config_get("appendfsync"))["appendfsync"])
    except (ResponseError, KeyError):
        return None


def _report(faults: Iterable[str], *, strict: bool) -> None:
    for fault in faults:
        if strict:
            raise ServiceUnavailable(f"Redis may lose evaluations, and DOCV_STRICT is set: {fault}")
        _log.error("redis.not_durable", fault=fault)
