"""Connect Celery to RabbitMQ if that is the broker. The ledger and all other state stay in Redis.

RabbitMQ delivers the messages of a dead worker to another one at once. Everything else is as with Redis: no accepted
evaluation is lost, duplicates are dropped, and live messages find a free slot.
Tested with kombu 5.7, py-amqp 5.4 and RabbitMQ 3.10.
"""

import sys
from collections.abc import Iterable
from typing import Any

from celery import signals
from kombu import Connection
from kombu.transport import pyamqp

from worker.broker.envelope import BACKFILL, QUEUES, BadEnvelope, safe_headers
from worker.broker.redis_transport import KEEPALIVE
from worker.config.redis_url import split_url

BACKFILL_PREFETCH = 8
"""Maximum number of backfill messages that a process fetches; each uses a thread and has up to 100 evaluations."""
_SECONDS = 2


def worker_options() -> dict[str, Any]:
    """Return kombu's options for a worker."""
    return {"connect_timeout": 5} | ({"socket_settings": KEEPALIVE} if sys.platform == "linux" else {})


def tls_options(url: str) -> dict[str, Any] | None:
    """Return the TLS options for RabbitMQ; None without TLS.

    py-amqp 5.4 checks the name in a certificate only if it is given one, and kombu 5.7 gives 127.0.0.1 for localhost.
    """
    parts = split_url(url)
    return {"server_hostname": parts.hostname} if parts.scheme == "amqps" else None


def publisher_options() -> dict[str, Any]:
    """Return kombu's options for a publisher: RabbitMQ confirms every message, and errors are raised within seconds.

    There is no heartbeat, because an idle publisher sends none, and RabbitMQ would close its connection.
    """
    return worker_options() | {
        "confirm_publish": True,
        "connect_timeout": _SECONDS,
        "read_timeout": _SECONDS,
        "write_timeout": _SECONDS,
        "heartbeat": 0,
    }


def count_waiting(connection: Connection, queues: Iterable[str]) -> dict[str, int]:
    """Return the number of messages in each queue that no worker has fetched.

    Raises:
        kombu.exceptions.KombuError: RabbitMQ does not answer.
    """
    with connection._reraise_as_library_errors():  # noqa: SLF001  # Celery uses it to publish
        channel = connection.default_channel
        return {name: channel.queue_declare(name, durable=True, auto_delete=False).message_count for name in queues}


class RabbitChannel(pyamqp.Channel):
    """A channel that survives any queue entry, and bounds the messages of each queue separately."""

    _prefetch_count = 0
    _checked_consumers: frozenset[str] = frozenset()

    def basic_qos(self, prefetch_size: int, prefetch_count: int, _a_global: object, **options: Any) -> Any:
        """Bound the fetched messages of each queue, so that a backfill uses no slots of the live queue."""
        self._prefetch_count = prefetch_count
        return super().basic_qos(prefetch_size, prefetch_count, False, **options)  # noqa: FBT003

    def basic_consume(self, queue: str = "", *args: Any, consumer_tag: str = "", **options: Any) -> Any:
        """Begin to fetch messages, but only a few at a time of a backfill, because each of them uses a thread."""
        # basic_qos applies to the consumers that begin after it.
        most = BACKFILL_PREFETCH if queue == BACKFILL else self._prefetch_count
        super().basic_qos(0, most, False)  # noqa: FBT003
        if queue in QUEUES:
            self._checked_consumers |= {consumer_tag}
        return super().basic_consume(queue, *args, consumer_tag=consumer_tag, **options)

    def _on_basic_deliver(self, consumer_tag: str, delivery_tag: int, *where: Any) -> None:
        if consumer_tag not in self._checked_consumers:
            # Messages between workers are not for our task, and need no check.
            super()._on_basic_deliver(consumer_tag, delivery_tag, *where)
            return
        *_, message = where
        kinds = (message.properties.get("content_type"), message.properties.get("content_encoding"))
        try:
            safe = safe_headers(kinds, message.body, message.properties.get("application_headers"))
        except BadEnvelope as error:
            self.basic_ack(delivery_tag)
            # `tasks.archive` records the rejected message.
            signals.task_rejected.send(sender=self, message=None, exc=error)
            return
        message.properties["application_headers"] = safe
        super()._on_basic_deliver(consumer_tag, delivery_tag, *where)
