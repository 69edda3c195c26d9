"""How Celery talks to RabbitMQ, where that carries the messages; Redis keeps everything else.

RabbitMQ does not lose what a worker had only fetched, and gives it to another at once. All else is as with Redis: the
ledger is the promise, what comes twice is dropped, and what is live finds its place.
Tried on kombu 5.7, py-amqp 5.4 and RabbitMQ 3.10.
"""

import sys
from collections.abc import Iterable
from typing import Any

from celery import signals
from kombu import Connection
from kombu.transport import pyamqp

from worker.broker.envelope import BACKFILL, QUEUES, BadEnvelope, safe_headers
from worker.broker.redis_transport import KEEPALIVE

BACKFILL_PREFETCH = 8
"""Messages of the backfill that a process fetches at a time; each holds a thread, and has up to 100 evaluations."""
_SECONDS = 2


def worker_options() -> dict[str, Any]:
    """Return how a worker talks to RabbitMQ."""
    return {"connect_timeout": 5} | ({"socket_settings": KEEPALIVE} if sys.platform == "linux" else {})


def publisher_options() -> dict[str, Any]:
    """Return how a publisher talks to RabbitMQ: a message is there when it says so, and an error is answered soon.

    There is no heartbeat: nobody would send it while there is nothing to publish, and the connection would be closed.
    """
    return worker_options() | {
        "confirm_publish": True,
        "connect_timeout": _SECONDS,
        "read_timeout": _SECONDS,
        "write_timeout": _SECONDS,
        "heartbeat": 0,
    }


def count_waiting(connection: Connection, queues: Iterable[str]) -> dict[str, int]:
    """Count the messages that wait in queues and that no worker has fetched.

    Raises:
        kombu.exceptions.KombuError: RabbitMQ does not answer.
    """
    with connection._reraise_as_library_errors():  # noqa: SLF001  # Celery publishes within it, too
        channel = connection.default_channel
        return {name: channel.queue_declare(name, durable=True, auto_delete=False).message_count for name in queues}


class RabbitChannel(pyamqp.Channel):
    """A channel that goes on whatever is in a queue, and leaves places to what is live."""

    _most = 0
    _ours: frozenset[str] = frozenset()

    def basic_qos(self, prefetch_size: int, prefetch_count: int, _a_global: object, **options: Any) -> Any:
        """Bound what is fetched at a time; for each queue by itself, so that a backfill takes no place from live."""
        self._most = prefetch_count
        return super().basic_qos(prefetch_size, prefetch_count, False, **options)  # noqa: FBT003

    def basic_consume(self, queue: str = "", *args: Any, consumer_tag: str = "", **options: Any) -> Any:
        """Begin to fetch messages; of a backfill only a few at a time, for each of them holds a thread."""
        # The bound is for the consumers that begin from here on.
        super().basic_qos(0, BACKFILL_PREFETCH if queue == BACKFILL else self._most, False)  # noqa: FBT003
        if queue in QUEUES:
            self._ours |= {consumer_tag}
        return super().basic_consume(queue, *args, consumer_tag=consumer_tag, **options)

    def _on_basic_deliver(self, consumer_tag: str, delivery_tag: int, *where: Any) -> None:
        if consumer_tag not in self._ours:
            # What workers tell each other is no message to our task, and none to be checked.
            super()._on_basic_deliver(consumer_tag, delivery_tag, *where)
            return
        *_, message = where
        kinds = (message.properties.get("content_type"), message.properties.get("content_encoding"))
        try:
            safe = safe_headers(kinds, message.body, message.properties.get("application_headers"))
        except BadEnvelope as error:
            self.basic_ack(delivery_tag)
            # Whoever keeps what was refused hears of it.
            signals.task_rejected.send(sender=self, message=None, exc=error)
            return
        message.properties["application_headers"] = safe
        super()._on_basic_deliver(consumer_tag, delivery_tag, *where)
