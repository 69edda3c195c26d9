"""Check that Redis answers and is durable, and that workers serve its queues."""

import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from scripts.console.formatting import format_count
from scripts.doctor.finding import Finding, fine, warning, wrong
from tasks.ledger.damaged_entries import DamagedEntries
from tasks.ledger.ledger import Ledger
from tasks.ledger.leftovers import Leftovers
from tasks.ledger.unread_messages import UnreadMessages, find_unread_messages
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.job import Queue
from worker.clients.primary import check_writable
from worker.clients.redis import is_too_old, open_redis
from worker.clients.redis_durability import current_fsync
from worker.clients.redis_errors import RedisProblem, explain_redis_error, find_problem_of_mode
from worker.config.redis_url import is_sentinel_url
from worker.config.settings import Settings

_OURS = "docv:"
_KEYS = 2_000
_SLOW = 0.02
_FULL = 0.8
_OLD = 15 * 60.0
_EXAMPLES = 3


async def examine(settings: Settings, accounts: Collection[str]) -> AsyncIterator[Finding]:
    """Yield the findings about Redis, if DOCV_REDIS_URL is set.

    Args:
        settings: the settings, for the URL.
        accounts: names of the configured accounts.
    """
    if settings.redis_url is None:
        yield fine("Redis", "DOCV_REDIS_URL is not set: `run` and `backfill` start their own Redis")
        return
    try:
        async with open_redis(settings.need_redis_url(), seconds=5.0, retries=1) as redis:
            async for finding in _examine(redis, settings, accounts):
                yield finding
    except (RedisError, OSError) as error:
        yield _unusable(explain_redis_error(error))


async def _examine(redis: Redis, settings: Settings, accounts: Collection[str]) -> AsyncIterator[Finding]:
    began = time.monotonic()
    facts = await redis.info()
    seconds = time.monotonic() - began
    if problem := find_problem_of_mode(facts):
        yield _unusable(problem)
        return
    await check_writable(redis)
    yield judge_latency(str(facts.get("redis_version", "unknown")), seconds)
    yield judge_persistence(facts)
    yield judge_fsync(await current_fsync(redis))
    if settings.redis_replicas or is_sentinel_url(settings.need_redis_url()):
        yield judge_replicas(facts, settings.redis_replicas)
    yield judge_eviction(facts)
    yield judge_memory(facts)
    yield await _check_sharing(redis)
    yield judge_unread(await find_unread_messages(redis, is_broker=settings.broker_url is None))
    yield judge_leftovers(await Leftovers(redis).count())
    workers, census = await WorkerRegistry(redis).count(), await Ledger(redis).get_stats()
    for queue in Queue:
        yield judge_queue(queue, workers[queue], census.queued[queue], census.oldest[queue])
    yield judge_damaged(census.damaged, [eval_id async for eval_id in DamagedEntries(redis).iterate()][:_EXAMPLES])
    for name, count in census.held_by_account.items():
        if name not in accounts:
            message = f"{format_count(count, 'evaluation', 'waits', 'wait')} for it, but it is not configured here"
            yield wrong(f"account {name}", message, "add it to DOCV_ACCOUNTS, here and on the workers")


def _unusable(problem: RedisProblem) -> Finding:
    return wrong("Redis", f"it {problem.message}", problem.fix, unreachable=True)


def judge_latency(version: str, seconds: float) -> Finding:
    """Return whether Redis is recent enough, and answers fast enough."""
    message = f"version {version}, answers in {seconds * 1000:.1f} ms"
    if is_too_old(version):
        return wrong("Redis", message, "use 6.2 or later, or any Valkey")
    return fine("Redis", message) if seconds < _SLOW else warning("Redis", message, "run it closer to the workers")


def judge_replicas(facts: Mapping[str, Any], wanted: int) -> Finding:
    """Return whether enough replicas are connected, and whether accepting an evaluation waits for them."""
    what, found = "replicas of Redis", int(facts.get("connected_slaves", 0))
    message = f"{found} connected, {wanted} required for each accepted evaluation"
    if found < wanted:
        return wrong(what, message, "check that they run and are connected: nothing is accepted until then")
    if not wanted:
        return warning(
            what, message, "set DOCV_REDIS_REPLICAS=1: otherwise a failover loses evaluations that were just accepted"
        )
    if found == wanted:
        return warning(what, message, "add one: while a replica is down, nothing is accepted")
    return fine(what, message)


def judge_persistence(facts: Mapping[str, Any]) -> Finding:
    """Return whether Redis writes an append-only file."""
    what = "append-only file"
    if not int(facts.get("aof_enabled", 0)):
        return wrong(what, "off, so a restart loses accepted evaluations", "set appendonly yes")
    if facts.get("aof_last_write_status", "ok") != "ok":
        return wrong(what, "the last write failed", "check the disk of Redis")
    return fine(what, "on")


def judge_fsync(sync: str | None) -> Finding:
    """Return whether a crash of Redis loses acknowledged writes, judged by its ``appendfsync``."""
    what = "a crash of Redis"
    match sync:
        case "always":
            return fine(what, "a write is on disk before Redis answers")
        case None:
            return warning(what, "it does not report appendfsync", "look up how much its provider may lose")
    return warning(what, f"may lose the last seconds (appendfsync {sync})", "set appendfsync always")


def judge_eviction(facts: Mapping[str, Any]) -> Finding:
    """Return whether a full Redis evicts accepted evaluations."""
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return fine("eviction", "nothing is evicted")
    return wrong("eviction", f"a full Redis evicts accepted evaluations ({policy})", "set maxmemory-policy noeviction")


def judge_memory(facts: Mapping[str, Any]) -> Finding:
    """Return whether Redis has free memory."""
    used, most = int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))
    message = f"{used >> 20} MiB used of {f'{most >> 20} MiB' if most else 'the memory of the machine'}"
    if most and used > _FULL * most:
        return warning("memory of Redis", message, "raise maxmemory, or lower DOCV_BACKLOG")
    return fine("memory of Redis", message)


def judge_damaged(count: int, examples: Sequence[str]) -> Finding:
    """Return whether entries of the ledger cannot be read."""
    if not count:
        return fine("ledger", "every checked entry can be read")
    return wrong(
        "ledger",
        f"{count:,} damaged entries, such as {', '.join(examples)}",
        "run `docv-archive dead-letters list --cause damaged_entry`, and `docv-archive enqueue` them again",
    )


def judge_unread(unread: Sequence[UnreadMessages]) -> Finding:
    """Return whether producers put messages into lists that no worker reads."""
    what = "messages of producers"
    if not unread:
        return fine(what, "all are in lists that workers read")
    message = ", ".join(f"{each.count} in {each.key}" for each in unread)
    return wrong(what, f"no worker reads these lists: {message}", unread[0].fix)


def judge_leftovers(objects: int) -> Finding:
    """Return whether workers left objects of evaluations that were erased meanwhile."""
    what = "erasures"
    if objects:
        message = f"workers left {format_count(objects, 'object')} of evaluations that were erased meanwhile"
        return wrong(what, message, "run `docv-archive erase --pending` as the eraser, ideally every hour")
    return fine(what, "workers left nothing of evaluations that were erased meanwhile")


async def _check_sharing(redis: Redis) -> Finding:
    """Check a sample of keys: foreign keys mean that another application may fill or flush this Redis."""
    seen = foreign = 0
    async for key in redis.scan_iter(count=500):
        seen += 1
        foreign += not key.startswith(_OURS)
        if seen >= _KEYS:
            break
    if foreign:
        message = f"{foreign} of {seen} checked keys do not belong to docv-archive"
        return warning("sharing", message, "give docv-archive its own Redis")
    return fine("sharing", f"all {seen} checked keys belong to docv-archive")


def judge_queue(queue: Queue, workers: int, queued: int, oldest: float) -> Finding:
    """Return whether workers serve a queue and keep up with it."""
    message = f"{format_count(workers, 'worker')}, {queued:,} queued, the oldest for {oldest:.0f} s"
    if queued and not workers:
        return wrong(f"queue {queue}", message, f"start one: docv-archive worker --queues {queue}")
    if not workers:
        return warning(f"queue {queue}", message, f"no worker serves it: docv-archive worker --queues {queue}")
    if queue is Queue.LIVE and oldest > _OLD:
        return warning(f"queue {queue}", message, "run `docv-archive status`: a hold, or too few workers")
    return fine(f"queue {queue}", message)
