"""Build the objects that a consumer and its background loops share."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

from tasks.consumer.concurrency import ConcurrencyLimiter
from tasks.consumer.context import AccountContexts, SharedParts, make_account_contexts
from tasks.consumer.fair_share import FairShare
from tasks.consumer.prefetch import PrefetchControl
from tasks.ledger.leases import LeaseKeeper
from tasks.ledger.ledger import Ledger
from tasks.ledger.leftovers import Leftovers
from tasks.ledger.worker_registry import WorkerRegistry, make_worker_name
from tasks.memory.spool import disk_space, spooled_bytes
from tasks.model.job import Queue
from tasks.notifications.notifier import Notifier
from tasks.notifications.sender import NotificationSender
from tasks.queueing.feeder import Feeder
from tasks.queueing.publisher import Publisher
from tasks.resilience.hold_monitor import HoldMonitor
from tasks.resilience.holds import Holds
from tasks.resilience.rate_limiter import RateLimiter
from tasks.resilience.worker_pause import WorkerPause
from tasks.retention.schedule import Schedule
from tasks.storage.open_bucket import open_bucket
from worker.broker.rabbitmq import BACKFILL_PREFETCH
from worker.broker.redis_transport import paused_queues
from worker.config.accounts import Accounts
from worker.config.settings import Settings
from worker.metrics.worker_metrics import IN_FLIGHT, PAUSED, SPOOL_FREE, SPOOL_SIZE, SPOOLED
from worker.resources import Resources
from worker.runtime import Runtime
from worker.watchdog import Watchdog

LINGER_SECONDS = 0.025
"""Calls to the ledger are collected for this long, and sent in one step. An evaluation takes half a second or more. If
dozens run, this time is enough to complete many in one step, and a fifth of it is enough to lease several."""


@dataclass(frozen=True, slots=True)
class ConsumerParts:
    """The objects that the consumer of a process and its background loops share.

    Attributes:
        name: the name of this worker, unique among all workers.
        queues: the queues that it serves.
    """

    name: str
    queues: Collection[Queue]
    redis: "Redis"
    runtime: Runtime
    watchdog: Watchdog
    publisher: Publisher
    accounts: Accounts
    ledger: Ledger
    leases: LeaseKeeper
    leftovers: Leftovers
    workers: WorkerRegistry
    pause: WorkerPause
    prefetch: PrefetchControl
    concurrency: ConcurrencyLimiter
    fair_share: FairShare
    contexts: AccountContexts
    hold_monitor: HoldMonitor
    feeder: Feeder
    notifier: Notifier | None


def make_consumer_parts(
    settings: Settings,
    accounts: Accounts,
    resources: Resources,
    runtime: Runtime,
    publisher: Publisher,
    watchdog: Watchdog,
    *,
    queues: Collection[Queue] = tuple(Queue),
    schedule: Schedule | None = None,
) -> ConsumerParts:
    """Return the parts for the settings, the accounts and the open resources of a process."""
    redis, name = resources.redis, make_worker_name(os.getpid())
    ledger, leftovers = _make_ledger(settings, redis), Leftovers(redis)
    leases, workers, holds = LeaseKeeper(ledger), WorkerRegistry(redis), Holds(redis)
    prefetch = _make_prefetch(settings)
    shared = SharedParts(
        bucket=open_bucket(resources.archive, settings.storage_class, resources.write_client, resources.tag_client),
        holds=holds,
        rate_limiter=RateLimiter(redis, runtime.pause),
        pause=WorkerPause(workers, holds, name),
        concurrency=ConcurrencyLimiter(settings.concurrency, runtime.cancel_on_drain, prefetch),
        leases=leases,
        leftovers=leftovers,
        schedule=schedule,
    )
    contexts = make_account_contexts(settings, accounts, resources, shared)
    return ConsumerParts(
        name=name,
        queues=queues,
        redis=redis,
        runtime=runtime,
        watchdog=watchdog,
        publisher=publisher,
        accounts=accounts,
        ledger=ledger,
        leases=leases,
        leftovers=leftovers,
        workers=workers,
        pause=shared.pause,
        prefetch=prefetch,
        concurrency=shared.concurrency,
        fair_share=FairShare(settings.concurrency, len(accounts)),
        contexts=contexts,
        hold_monitor=HoldMonitor(contexts.names, holds, redis, shared.rate_limiter, contexts.gate),
        feeder=Feeder(ledger, publisher, shared.bucket, settings.environment, settings.backlog),
        notifier=_make_notifier(settings, redis, name),
    )


def observe_gauges(parts: ConsumerParts, spool_dir: Path) -> None:
    """Connect the gauges of this process to its state."""
    IN_FLIGHT.set_function(lambda: parts.concurrency.in_flight)
    SPOOLED.set_function(spooled_bytes)
    SPOOL_FREE.set_function(lambda: disk_space(spool_dir)[0])
    SPOOL_SIZE.set_function(lambda: disk_space(spool_dir)[1])
    PAUSED.set_function(lambda: parts.pause.is_paused)


def _make_ledger(settings: Settings, redis: "Redis") -> Ledger:
    # If a backfill is archived already, its evaluations all end within milliseconds. They would wait for the linger
    # time if the batches were larger, and their slots would stay unused.
    max_batch = max(1, settings.concurrency // 2)
    return Ledger(
        redis,
        settings.lease_seconds,
        linger_seconds=LINGER_SECONDS,
        max_batch=max_batch,
        replicas=settings.redis_replicas,
    )


def _make_notifier(settings: Settings, redis: "Redis", name: str) -> Notifier | None:
    sender = NotificationSender.of(settings)
    return Notifier(redis, sender, name) if sender else None


def _make_prefetch(settings: Settings) -> PrefetchControl:
    limits = {Queue.BACKFILL: BACKFILL_PREFETCH} if settings.broker_url else {}
    return PrefetchControl(settings.concurrency, _pause_backfill, limits)


def _pause_backfill(has_enough: bool) -> None:  # noqa: FBT001  # as PrefetchControl calls it
    """Pause the backfill queue while enough of it waits in this process, and resume it afterwards."""
    if has_enough:
        paused_queues.pause(Queue.BACKFILL)
    else:
        paused_queues.resume(Queue.BACKFILL)
