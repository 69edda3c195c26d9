"""A worker process: its event loop, the open resources, and the consumer of its messages."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import CancelledError
from typing import Any

from celery import Celery
from redis.exceptions import RedisError

from tasks.consumer.background import BackgroundLoops
from tasks.consumer.consumer import Consumer
from tasks.consumer.parts import make_consumer_parts, observe_gauges
from tasks.consumer.system_metrics import SystemMetrics
from tasks.errors import InvalidInput
from tasks.model.account import Allowance
from tasks.model.job import Queue
from tasks.model.outcome import NoDocumentsReason, Outcome, RestrictedHandling, Restriction
from tasks.queueing.message import Message
from tasks.queueing.publisher import Publisher
from tasks.resilience.retry import CAUSES
from tasks.retention.schedule import Schedule, load_schedule
from tasks.telemetry import log_events, tracing
from worker.clients.redis import open_redis
from worker.clients.redis_durability import check_persistence
from worker.config.accounts import Accounts, load_accounts
from worker.config.settings import Settings, load_settings
from worker.logs import configure_logs
from worker.metrics.server import serve_metrics
from worker.metrics.shared_metrics import SharedMetrics
from worker.metrics.worker_metrics import REGISTRY, STALLED, preset_labels
from worker.resources import open_resources
from worker.runtime import Runtime, freeze_gc
from worker.tracing import open_tracer
from worker.watchdog import Watchdog

_PAUSE_SECONDS = 1.0
_METRICS_SECONDS = 1.0


class WorkerProcess:
    """This worker process, from its start until it is closed.

    Args:
        app: the Celery application.

    Raises:
        SettingsError: the settings, the accounts or the retention schedule are not valid.
        ServiceUnavailable: a service that the worker needs does not answer correctly.
    """

    def __init__(self, app: Celery) -> None:
        settings = load_settings()
        # Celery configures logging later, and lines before that would not have our format.
        accounts, schedule = load_accounts(settings), load_schedule(settings)
        configure_logs(settings.log_level, accounts.secrets())
        for warning in accounts.warnings:
            log_events.settings_warning(warning)
        tracing.set_tracer(open_tracer(settings))
        self.runtime = Runtime(settings.drain_seconds)
        self._watchdog = Watchdog()
        # No worker ends an evaluation as cancelled.
        outcomes = tuple(outcome for outcome in Outcome if outcome is not Outcome.CANCELLED)
        preset_labels(
            outcomes=outcomes,
            queues=tuple(Queue),
            causes=CAUSES,
            reasons=tuple(NoDocumentsReason),
            restricted=tuple(itertools.product(Restriction, RestrictedHandling)),
        )
        STALLED.set_function(lambda: self._watchdog.problem() is not None)
        self._queues = [Queue(name) for name in app.amqp.queues.consume_from if name in set(Queue)]
        self._publisher = Publisher(app)
        self._exit_stack = contextlib.AsyncExitStack()
        self._consumer = self.runtime.run(self._start(settings, accounts, schedule))
        freeze_gc()
        self._watchdog.start()

    async def _start(self, settings: Settings, accounts: Accounts, schedule: Schedule | None) -> Consumer:
        await self._exit_stack.enter_async_context(_metrics_served(settings, accounts, self._watchdog))
        resources = await self._exit_stack.enter_async_context(open_resources(settings, accounts))
        await check_persistence(resources.redis, strict=settings.strict)
        parts = make_consumer_parts(
            settings,
            accounts,
            resources,
            self.runtime,
            self._publisher,
            self._watchdog,
            queues=self._queues,
            schedule=schedule,
        )
        observe_gauges(parts, resources.spool_dir)
        consumer = Consumer(parts)
        await self._exit_stack.enter_async_context(BackgroundLoops(parts, consumer).running())
        return consumer

    def check(self, message: Message) -> None:
        """Check that this process may accept a message.

        Raises:
            BadMessage: the message names no account that this process knows.
        """
        self._consumer.check(message)

    def handle(self, message: Message) -> bool:
        """Process the evaluations of a message; return False if the message must be delivered again."""
        return self._run(self._consumer.handle(message))

    def reject(self, errors: Sequence[InvalidInput], queue: str, message: str) -> bool:
        """Keep the parts of a message that do not fit the contract; return False if it must be delivered again."""

        async def keep() -> bool:
            for error in errors:
                await self._consumer.reject(error.cause, error.safe_message, queue, message)
            return True

        return self._run(keep())

    def _run(self, work: Coroutine[Any, Any, bool]) -> bool:
        try:
            return self.runtime.run(work)
        except CancelledError:
            return False
        except RedisError as error:
            # Something was not leased or recorded, so the message must not be lost. Redis may be back soon.
            log_events.loop_failed("work", error)
            with contextlib.suppress(CancelledError):
                self.runtime.run(self.runtime.pause(_PAUSE_SECONDS))
            return False

    def drain(self) -> None:
        """Begin to drain. It may take a while, and the watchdog must not mistake that for a stall."""
        self._watchdog.stop()
        self.runtime.drain()

    def close(self) -> None:
        """Close the open resources, the event loop last."""
        self.runtime.run(self._exit_stack.aclose())
        self.runtime.close()
        self._publisher.close()


@contextlib.asynccontextmanager
async def _metrics_served(settings: Settings, accounts: Accounts, watchdog: Watchdog) -> AsyncIterator[None]:
    """Serve the metrics for as long as the block lasts, if the settings name a port."""
    if settings.metrics_port is None:
        yield
        return
    allowances = {each.name: Allowance.from_settings(each) for each in accounts}
    async with open_redis(settings.need_redis_url(), 1, seconds=_METRICS_SECONDS, retries=0) as redis:
        REGISTRY.register(SharedMetrics(SystemMetrics(redis, allowances).collect, asyncio.get_running_loop()))
        with serve_metrics(REGISTRY, watchdog.problem, settings.metrics_host, settings.metrics_port):
            yield
