"""The Celery task and the signals that start, drain and close a worker process.

In ``tasks``, only this module, ``tasks.consumer`` and ``tasks.queueing`` import Celery.
"""

import sys
from typing import Any

from celery import Task, signals
from celery.exceptions import Reject

from tasks.consumer.process import WorkerProcess
from tasks.errors import BadMessage, InvalidInput
from tasks.queueing.message import read_message
from worker.app import app
from worker.broker.envelope import ARCHIVE_TASK, BadEnvelope
from worker.clients.errors import ServiceUnavailable
from worker.config.settings import SettingsError

_process: WorkerProcess | None = None


@app.task(name=ARCHIVE_TASK, bind=True)
def archive(self: Task, *positional: object, **arguments: Any) -> None:
    """Process the evaluations of a message; ``tasks.queueing.message`` describes its arguments."""
    assert _process is not None  # noqa: S101  # Celery runs no task before worker_init has returned
    queue = self.request.delivery_info.get("routing_key")
    try:
        message = read_message(queue, positional, arguments, self.request.get("traceparent"))
        _process.check(message)
    except InvalidInput as error:
        done = _process.reject((error,), str(queue), self.request.id)
    else:
        done = _process.handle(message) and _process.reject(message.bad, str(queue), self.request.id)
    if not done:
        raise Reject("handed back", requeue=True)


@signals.worker_init.connect(weak=False)
def _start(**_: object) -> None:
    global _process  # noqa: PLW0603  # Celery's signals carry no state
    try:
        _process = WorkerProcess(app)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201  # logging is not configured yet
        raise SystemExit(2) from None
    except ServiceUnavailable as error:
        print(error, file=sys.stderr)  # noqa: T201
        raise SystemExit(3) from None


@signals.task_rejected.connect(weak=False)
def _reject(exc: Exception | None, **_: object) -> None:
    """Record a message that Celery could not decode, or whose task it does not know."""
    why = str(exc) if isinstance(exc, BadEnvelope) else "Celery cannot read it"
    if _process:
        _process.reject([BadMessage(why)], "queue", "")


@signals.worker_shutting_down.connect(weak=False)
def _drain(**_: object) -> None:
    if _process:
        _process.drain()


@signals.worker_shutdown.connect(weak=False)
def _close(**_: object) -> None:
    global _process  # noqa: PLW0603
    if _process:
        _process.close()
        _process = None
