"""Connect Celery to Redis, for workers and publishers.

Every option here was tested on kombu 5.7 with Redis. ``docs/design.md`` says what happens without the important ones.
"""

import contextlib
import sys
from collections.abc import Collection
from queue import Empty
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from celery import signals
from kombu.transport import redis, virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.exceptions import OutOfMemoryError, RedisError

from worker.broker.envelope import QUEUES, UNREADABLE, BadEnvelope, check_control_message, check_task_message
from worker.clients import sentinel
from worker.clients.primary import primary_only
from worker.config.redis_url import is_sentinel_url

KEY_PREFIX = "docv:"
"""Prefix of all keys of Celery in Redis."""
KEEPALIVE = {4: 30, 5: 10, 6: 3, 18: 60_000}
"""Numbers of the TCP options on Linux: TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT (ms)."""

_PAUSED_POLL_SECONDS = 0.05
# A BRPOP ends after a second, so a Redis that does not answer for longer is frozen or has another address now.
_ANSWER_SECONDS = 5
# A queue that never exists; it is read while all real queues are paused, so that a resumed queue is read soon.
_NO_QUEUE = "nobody"


def broker_transport_url(redis_url: str) -> str:
    """Return the URL of Redis in kombu's form.

    kombu names a socket ``redis+socket://`` and its database a virtual host. Over TLS it accepts any certificate unless
    the URL demands a check.
    """
    if is_sentinel_url(redis_url):
        return sentinel.kombu_url(redis_url)
    parts = urlsplit(redis_url)
    query = dict(parse_qsl(parts.query))
    database = query.pop("db", "")
    if parts.scheme == "unix":
        query |= {"virtual_host": database} if database else {}
        return f"redis+socket://{parts.netloc}{parts.path}" + (f"?{urlencode(query)}" if query else "")
    if parts.scheme == "rediss":
        query.setdefault("ssl_cert_reqs", "required")
    path = f"/{database}" if database else parts.path
    return parts._replace(path=path, query=urlencode(query)).geturl()


def worker_transport_options() -> dict[str, Any]:
    """Return kombu's options for a worker.

    Every ``health_check_interval``, kombu drops a connection with an overdue BRPOP. Keepalive would not detect a frozen
    Redis, because its kernel still answers.
    """
    return {
        "global_keyprefix": KEY_PREFIX,
        "visibility_timeout": 3600,
        "unacked_restore_interval": 15,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 30,
        "queue_order_strategy": "worker.broker.redis_transport:LiveFirst",
        "health_check_interval": 2,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
    } | ({"socket_keepalive_options": KEEPALIVE} if sys.platform == "linux" else {})


def publisher_transport_options() -> dict[str, Any]:
    """Return kombu's options for a publisher, which fails within seconds if Redis does not answer."""
    return {
        "global_keyprefix": KEY_PREFIX,
        "visibility_timeout": 3600,
        "socket_timeout": 2,
        "socket_connect_timeout": 2,
        "max_retries": 0,
    }


class PausedQueues(set[str]):
    """Queues that are not read for now, because their messages would only wait in this process.

    Attributes:
        is_worker_paused: whether no queue is read.
    """

    is_worker_paused = False

    def __contains__(self, queue: object) -> bool:
        return self.is_worker_paused or super().__contains__(queue)

    def __bool__(self) -> bool:
        return self.is_worker_paused or len(self) > 0

    def pause(self, queue: str) -> None:
        """Stop reading a queue."""
        self.add(queue)

    def resume(self, queue: str) -> None:
        """Read a queue again."""
        self.discard(queue)


paused_queues = PausedQueues()
"""The paused queues of this process. This is global because kombu creates its channels without custom arguments."""


class LiveFirst:
    """The order in which queues are read: by name in reverse, so ``live`` comes first."""

    def __init__(self, queues: Collection[str] = ()) -> None:
        self._queues = sorted(queues, reverse=True)

    def update(self, queues: Collection[str]) -> None:
        """Set the queues of the worker."""
        self._queues = sorted(queues, reverse=True)

    def consume(self, _most: int) -> list[str]:
        """Return the queues to read now."""
        return [queue for queue in self._queues if queue not in paused_queues] or [_NO_QUEUE] * bool(self._queues)

    def rotate(self, _queue: str) -> None:
        """Keep the order after a queue was read."""


class SlotReleasingQoS(redis.QoS):
    """Releases the slot of a finished message even if Redis does not answer.

    kombu's own QoS releases a slot only after Redis has confirmed the acknowledgement. During an outage of Redis, each
    finished message therefore uses up a slot. Without free slots, kombu reads no more from Redis, and never notices
    that Redis is back. Here the slot is released in any case. The message stays unacknowledged and is delivered again
    much later. It is dropped then, because the ledger knows that its evaluations are no longer queued.
    """

    def append(self, message: Any, delivery_tag: str) -> None:
        """Take a message, even if a full Redis cannot record that it was taken."""
        try:
            super().append(message, delivery_tag)
        except OutOfMemoryError:
            virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message."""
        try:
            super().ack(delivery_tag)
        finally:
            virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002  # as kombu has it
        """Put a message back on its queue, or drop it."""
        try:
            super().reject(delivery_tag, requeue=requeue)
        finally:
            virtual.QoS.ack(self, delivery_tag)

    def restore_visible(self, *args: Any, **options: Any) -> None:
        """Requeue messages that were taken very long ago, unless Redis is full."""
        with contextlib.suppress(OutOfMemoryError):
            super().restore_visible(*args, **options)


class PrimaryOnlyChannel(redis.Channel):
    """Fails to open on a Redis that refuses writes, and disconnects from one that begins to (celery issue 7946).

    A replica answers PING but fails BRPOP, so Celery would restart its consumer five times per second.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        try:
            with self.conn_or_acquire() as client:
                client.delete(_NO_QUEUE)
        except RedisError:
            self.connection.cycle.discard(self)
            self._disconnect_pools()
            raise

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002  # as kombu has it
        options: dict[str, Any] = super()._connparams(asynchronous)
        options["connection_class"] = primary_only(options["connection_class"])
        options["socket_timeout"] = options["socket_timeout"] or _ANSWER_SECONDS
        return options


class ClientReusingChannel(redis.Channel):
    """Reuses its client. kombu makes one for each message and acknowledgement, which costs more than the command."""

    _cached_client: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002  # as kombu has it
        if asynchronous:
            return super()._create_client(asynchronous=True)
        if self._cached_client is None or self._cached_client.connection_pool is not self.pool:
            self._cached_client = super()._create_client()
        return self._cached_client


class EnvelopeCheckingChannel(redis.Channel):
    """Checks every entry of a queue before Celery decodes it; see ``worker.broker.envelope``."""

    def basic_consume(self, queue: str, *args: Any, **options: Any) -> None:
        """Read a queue of tasks, or one of messages between Celery's processes; a channel may have both."""
        super().basic_consume(queue, *args, **options)
        check = check_task_message if queue in QUEUES else check_control_message
        deliver = self.connection._callbacks[queue]  # noqa: SLF001  # kombu has no public hook for this
        self.connection._callbacks[queue] = lambda entry: deliver(check(entry))  # noqa: SLF001

    def _handle_message(self, client: Any, response: Any) -> Any:
        """Drop data that is not JSON: kombu would log it, and deeply nested brackets would end the worker."""
        message = super()._handle_message(client, response)
        try:
            loads(bytes_to_str(message["data"]) if isinstance(message["data"], bytes | str) else "0")
        except UNREADABLE:
            message["data"] = None
        return message

    def _deliver_fanout_message(self, message: Any, exchange: str) -> Any:
        try:
            return super()._deliver_fanout_message(message, exchange)
        except BadEnvelope:
            # Any program with access to Redis may publish there, and no evaluation is lost.
            return True

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except UNREADABLE as error:
            # The entry has left its queue. `tasks.archive` records it as rejected.
            why = error if isinstance(error, BadEnvelope) else BadEnvelope("it is not JSON")
            signals.task_rejected.send(sender=self, message=None, exc=why)
            raise Empty from None


class PausingChannel(redis.Channel):
    """Polls often while a queue is paused, so that it is read soon after it is resumed."""

    def _brpop_start(self, timeout: float | None = None) -> None:
        super()._brpop_start(_PAUSED_POLL_SECONDS if paused_queues else timeout)


class FullRedisChannel(redis.Channel):
    """Takes messages even if Redis is full, so that evaluations can end and free memory."""

    QoS = SlotReleasingQoS

    def _queue_bind(self, *args: Any) -> None:
        # Bindings are needed only for exchanges, which we do not use.
        with contextlib.suppress(OutOfMemoryError):
            super()._queue_bind(*args)


class RedisChannel(EnvelopeCheckingChannel, PausingChannel, FullRedisChannel, PrimaryOnlyChannel, ClientReusingChannel):
    """The channel of all connections to Redis. Each base class changes one behaviour of kombu 5.7."""


class SentinelRedisChannel(RedisChannel, redis.SentinelChannel):
    """The same channel for a Redis behind Sentinel."""


def install_channels() -> None:
    """Make every connection of this process use our channel; ``Channel`` is kombu's hook for that."""
    redis.Transport.Channel = RedisChannel
    redis.SentinelTransport.Channel = SentinelRedisChannel
