"""Redis is seen to keep what it is told: that it has a file, throws nothing away, and syncs."""

from collections.abc import Iterable

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from worker.clients.errors import ServiceUnavailable

_log = structlog.get_logger("docv.resources")


async def check_persistence(redis: "Redis", *, strict: bool) -> None:
    """See that Redis keeps what it is told: an append-only file, and nothing evicted.

    Raises:
        ServiceUnavailable: it may lose some of it, and the settings are strict about that.
    """
    facts = await redis.info()
    faults = []
    if not int(facts.get("aof_enabled", 0)):
        faults.append("it has no append-only file, so that a restart forgets what was accepted: set appendonly yes")
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        faults.append(f"when it is full it throws away what was accepted ({policy}): set maxmemory-policy noeviction")
    _report(faults, strict=strict)


async def check_fsync(redis: "Redis", *, strict: bool) -> None:
    """See that what Redis is told is on its disk before it answers: for whoever answers others on its word.

    With ``everysec`` a crash of its process alone loses up to two seconds of what it has acknowledged: while an fsync
    takes long it puts off writing, too (seen with a disk that takes 0.7 s: 16 of 500). Nothing is said where the server
    does not tell how it is set.

    Raises:
        ServiceUnavailable: it may lose some of it, and the settings are strict about that.
    """
    if await current_fsync(redis) not in {None, "always"}:
        _report(["its crash may lose the last two seconds of what was accepted: set appendfsync always"], strict=strict)


async def current_fsync(redis: "Redis") -> str | None:
    """Return how Redis is set to sync its file, None where it does not tell: services of a cloud refuse ``CONFIG``."""
    try:
        return str((await redis.config_get("appendfsync"))["appendfsync"])
    except (ResponseError, KeyError):
        return None


def _report(faults: Iterable[str], *, strict: bool) -> None:
    for fault in faults:
        if strict:
            raise ServiceUnavailable(f"Redis may lose evaluations, and DOCV_STRICT is set: {fault}")
        _log.error("redis.not_durable", fault=fault)
