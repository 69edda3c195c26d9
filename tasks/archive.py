"""The Celery task and the signals that start, drain and close a worker process.

Only this module, ``tasks.consumer`` and ``tasks.queueing`` know Celery.
"""

import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import CancelledError
from typing import Any

from celery import Task, signals
from celery.exceptions import Reject
from redis.exceptions import RedisError

from tasks.consumer.account_settings import make_allowance
from tasks.consumer.consumer import Consumer
from tasks.consumer.system_metrics import SystemMetrics
from tasks.errors import BadMessage, InvalidInput
from tasks.model.job import Queue
from tasks.model.outcome import Outcome
from tasks.queueing.message import Message, read_message
from tasks.queueing.publisher import Publisher
from tasks.telemetry import log_events, tracing
from tasks.telemetry.metrics import CAUSES, Step
from worker.app import app
from worker.broker.envelope import ARCHIVE_TASK, BadEnvelope
from worker.clients.errors import ServiceUnavailable
from worker.clients.redis import open_redis
from worker.clients.redis_durability import check_persistence
from worker.config.accounts import Accounts, load_accounts
from worker.config.settings import Settings, SettingsError, load_settings
from worker.logs import configure_logs
from worker.metrics.server import MetricsServer
from worker.metrics.shared_metrics import Look
from worker.metrics.worker_metrics import LabelValues, WorkerMetrics
from worker.resources import open_resources
from worker.runtime import Runtime, freeze_gc
from worker.tracing import open_tracer
from worker.watchdog import Watchdog

_PAUSE_SECONDS = 1.0
_LOOK_SECONDS = 1.0


class WorkerProcess:
    """This worker process: its loop, and what is open on it."""

    def __init__(self) -> None:
        settings = load_settings()
        # Celery has its logging set up later than this, and what is told until then would not be in our shape.
        accounts = load_accounts(settings)
        configure_logs(settings.log_level, accounts.secrets())
        for why in accounts.warnings:
            log_events.settings_warning(why)
        tracing.use(open_tracer(settings))
        self.runtime = Runtime(settings.drain_seconds)
        self._watchdog = Watchdog()
        words = LabelValues(outcomes=tuple(Outcome), queues=tuple(Queue), causes=CAUSES, steps=tuple(Step))
        self._figures = WorkerMetrics(words, self._watchdog.problem)
        self._metrics_server = _start_metrics_server(settings, accounts, self._figures, self._watchdog)
        self._publisher = Publisher(app)
        self._exit_stack = contextlib.AsyncExitStack()
        self._consumer = self.runtime.run(self._start(settings, accounts))
        freeze_gc()
        self._watchdog.start()

    async def _start(self, settings: Settings, accounts: Accounts) -> Consumer:
        resources = await self._exit_stack.enter_async_context(open_resources(settings, accounts))
        await check_persistence(resources.redis, strict=settings.strict)
        serves = [Queue(name) for name in app.amqp.queues.consume_from if name in set(Queue)]
        station = Consumer(
            settings,
            accounts,
            resources,
            self.runtime,
            self._publisher,
            self._watchdog,
            figures=self._figures,
            queues=serves,
        )
        await self._exit_stack.enter_async_context(station.running())
        return station

    def check(self, message: Message) -> None:
        """See that a message may be accepted here.

        Raises:
            BadMessage: it may not.
        """
        self._consumer.check(message)

    def handle(self, message: Message) -> bool:
        """Bring a message's evaluations to their end; return whether all got there, or some were handed back."""
        return self.runtime.run(self._consumer.handle(message))

    def reject(self, errors: Sequence[InvalidInput], queue: str, message: str) -> bool:
        """Keep what does not fit the contract among the dead letters; return that it is done."""
        for error in errors:
            self.runtime.run(self._consumer.reject(error.cause, error.safe_message, queue, message))
        return True

    def pause(self) -> None:
        """Wait a moment, unless the process is about to end: what went wrong may be over then."""
        with contextlib.suppress(CancelledError):
            self.runtime.run(self.runtime.pause(_PAUSE_SECONDS))

    def drain(self) -> None:
        """Begin to end. It may take a while, and that is no deafness."""
        self._watchdog.stop()
        self.runtime.drain()

    def close(self) -> None:
        """Close what is open, the loop last."""
        if self._metrics_server:
            self._metrics_server.close()
        self.runtime.run(self._exit_stack.aclose())
        self.runtime.close()
        self._publisher.close()


def _start_metrics_server(
    settings: Settings, accounts: Accounts, figures: WorkerMetrics, watchdog: Watchdog
) -> MetricsServer | None:
    """Show the figures to others where the settings want it, from before the work begins until it has ended."""
    if settings.metrics_port is None:
        return None

    allowances = {each.name: make_allowance(each) for each in accounts}

    @contextlib.asynccontextmanager
    async def looking() -> AsyncIterator[Look]:
        async with open_redis(settings.need_redis_url(), 1, seconds=_LOOK_SECONDS, retries=0) as redis:
            yield SystemMetrics(redis, allowances).collect

    server = MetricsServer(figures.registry, looking, watchdog.problem)
    server.start(settings.metrics_host, settings.metrics_port)
    return server


_processes: list[WorkerProcess] = []


@app.task(name=ARCHIVE_TASK, bind=True)
def archive(self: Task, *positional: object, **arguments: Any) -> None:
    """Bring the evaluations of a message to their end; ``tasks.queueing.message`` tells what it may hold."""
    queue = self.request.delivery_info.get("routing_key")
    refused: Sequence[InvalidInput]
    try:
        message = read_message(queue, positional, arguments)
        _processes[0].check(message)
    except InvalidInput as error:
        refused = (error,)
        done = True
    else:
        refused = message.bad
        done = _try_handle(lambda process: process.handle(message))
    if not done or not _try_handle(lambda process: process.reject(refused, str(queue), self.request.id)):
        raise Reject("handed back", requeue=True)


def _try_handle(work: Callable[[WorkerProcess], bool]) -> bool:
    """Do what a message asks for; return whether it is done, or the message stays the promise."""
    process = _processes[0]
    try:
        return work(process)
    except CancelledError:
        return False
    except RedisError as error:
        # Nothing was taken, or nothing could be written down.
        log_events.loop_failed("work", error)
        process.pause()
        return False


@signals.worker_init.connect(weak=False)
def _start(**_: object) -> None:
    try:
        _processes.append(WorkerProcess())
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201  # before there is a log
        raise SystemExit(2) from None
    except ServiceUnavailable as error:
        print(error, file=sys.stderr)  # noqa: T201
        raise SystemExit(3) from None


@signals.task_rejected.connect(weak=False)
def _reject(exc: Exception | None, **_: object) -> None:
    """Keep what Celery never got to see, or could not make anything of."""
    why = str(exc) if isinstance(exc, BadEnvelope) else "Celery cannot make anything of it"
    for process in _processes:
        with contextlib.suppress(CancelledError, RedisError):
            process.reject([BadMessage(why)], "queue", "")


@signals.worker_shutting_down.connect(weak=False)
def _drain(**_: object) -> None:
    for process in _processes:
        process.drain()


@signals.worker_shutdown.connect(weak=False)
def _close(**_: object) -> None:
    while _processes:
        _processes.pop().close()
