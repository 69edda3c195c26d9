"""Examine Redis: is it there, does it keep what it is told, and does anybody work?"""

import time
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from scripts.doctor.finding import Finding, fine, warning, wrong
from tasks.ledger.ledger import Ledger
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.job import Queue
from worker.clients.redis import is_too_old, open_redis
from worker.clients.redis_durability import current_fsync
from worker.config.redis_url import is_sentinel_url
from worker.config.settings import Settings

_OURS = "docv:"
_KEYS = 2_000
_SLOW = 0.02
_FULL = 0.8
_OLD = 15 * 60.0


async def examine(settings: Settings, accounts: Collection[str]) -> AsyncIterator[Finding]:
    """Yield what there is to say of Redis, where one is named.

    Args:
        settings: which name it.
        accounts: names of those that are known here.
    """
    if settings.redis_url is None:
        yield fine("Redis", "none is named: `run` and `backfill` start one of their own")
        return
    try:
        async with open_redis(settings.need_redis_url(), seconds=5.0, retries=1) as redis:
            async for finding in _examine(redis, settings, accounts):
                yield finding
    except (RedisError, OSError) as error:
        yield wrong(
            "Redis",
            f"it does not answer ({type(error).__name__})",
            "see that it runs and that DOCV_REDIS_URL names it",
            unreachable=True,
        )


async def _examine(redis: Redis, settings: Settings, accounts: Collection[str]) -> AsyncIterator[Finding]:
    began = time.monotonic()
    await redis.ping()
    seconds, facts = time.monotonic() - began, await redis.info()
    yield judge_latency(str(facts.get("redis_version", "of no version")), seconds)
    yield judge_persistence(facts)
    yield judge_fsync(await current_fsync(redis))
    if settings.redis_replicas or is_sentinel_url(settings.need_redis_url()):
        yield judge_replicas(facts, settings.redis_replicas)
    yield judge_eviction(facts)
    yield judge_memory(facts)
    yield await _check_sharing(redis)
    workers, census = await WorkerRegistry(redis).count(), await Ledger(redis).get_stats()
    for queue in Queue:
        yield judge_queue(queue, workers[queue], census.queued[queue], census.oldest[queue])
    for name, count in census.held_by_account.items():
        if name not in accounts:
            said = f"{count} evaluations wait for it, and it is not known here"
            yield wrong(f"account {name}", said, "let DOCV_ACCOUNTS name it, here and where the workers are")


def judge_latency(version: str, seconds: float) -> Finding:
    """Return whether it is not too old, and answers soon enough."""
    said = f"version {version}, answers in {seconds * 1000:.1f} ms"
    if is_too_old(version):
        return wrong("Redis", said, "use 6.2 or later, or any Valkey")
    return fine("Redis", said) if seconds < _SLOW else warning("Redis", said, "let it run nearer to the workers")


def judge_replicas(facts: Mapping[str, Any], wanted: int) -> Finding:
    """Return whether replicas follow it, and whether what is accepted waits for them."""
    what, found = "replicas of Redis", int(facts.get("connected_slaves", 0))
    said = f"{found} follow, {wanted} must have what is accepted"
    if found < wanted:
        return wrong(what, said, "see that they run and follow: nothing is accepted before")
    if not wanted:
        return warning(what, said, "set DOCV_REDIS_REPLICAS=1: else a failover forgets what was just accepted")
    if found == wanted:
        return warning(what, said, "have one more: while one is away nothing is accepted")
    return fine(what, said)


def judge_persistence(facts: Mapping[str, Any]) -> Finding:
    """Return whether it writes down what it is told."""
    what = "append-only file"
    if not int(facts.get("aof_enabled", 0)):
        return wrong(what, "there is none, so a restart forgets what was accepted", "set appendonly yes")
    if facts.get("aof_last_write_status", "ok") != "ok":
        return wrong(what, "it could not be written lately", "see the disk of Redis")
    return fine(what, "it is on")


def judge_fsync(sync: str | None) -> Finding:
    """Return whether a crash of Redis loses what it has acknowledged, by its ``appendfsync``."""
    what = "a crash of Redis"
    match sync:
        case "always":
            return fine(what, "what it was told is on its disk before it answers")
        case None:
            return warning(what, "it does not tell how it syncs", "look up how much its provider may lose")
    return warning(what, f"may lose the last seconds (appendfsync {sync})", "set appendfsync always")


def judge_eviction(facts: Mapping[str, Any]) -> Finding:
    """Return whether it throws away what was accepted when it is full."""
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return fine("eviction", "nothing is thrown away")
    return wrong(
        "eviction", f"when it is full it throws away what was accepted ({policy})", "set maxmemory-policy noeviction"
    )


def judge_memory(facts: Mapping[str, Any]) -> Finding:
    """Return whether it has room."""
    used, most = int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))
    said = f"{used >> 20} MiB used of {f'{most >> 20} MiB' if most else 'what the machine has'}"
    if most and used > _FULL * most:
        return warning("memory of Redis", said, "raise maxmemory, or lower DOCV_BACKLOG")
    return fine("memory of Redis", said)


async def _check_sharing(redis: Redis) -> Finding:
    """Look at some of the keys: others' keys in it mean that others may fill or flush it."""
    seen = strange = 0
    async for key in redis.scan_iter(count=500):
        seen += 1
        strange += not key.startswith(_OURS)
        if seen >= _KEYS:
            break
    if strange:
        return warning("sharing", f"{strange} of {seen} keys are not ours", "give it a Redis of its own")
    return fine("sharing", f"all of {seen} keys are ours")


def judge_queue(queue: Queue, workers: int, queued: int, oldest: float) -> Finding:
    """Return whether somebody serves a queue, and keeps up."""
    said = f"{workers} workers, {queued} queued, the oldest for {oldest:.0f} s"
    if queued and not workers:
        return wrong(f"queue {queue}", said, f"start one: docv-archive worker --queues {queue}")
    if not workers:
        return warning(f"queue {queue}", said, f"nobody serves it: docv-archive worker --queues {queue}")
    if queue is Queue.LIVE and oldest > _OLD:
        return warning(f"queue {queue}", said, "see `docv-archive status`: a hold, or too few workers")
    return fine(f"queue {queue}", said)
