"""How Celery talks to Redis, as a worker and as a publisher.

Every figure here was tried on kombu 5.7 with Redis; ``docs/design.md`` tells what happens without it.
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
from redis.exceptions import OutOfMemoryError

from worker.broker.envelope import QUEUES, UNREADABLE, BadEnvelope, check_control_message, check_task_message
from worker.clients import sentinel
from worker.config.redis_url import is_sentinel_url

KEY_PREFIX = "docv:"
"""Prefix of every key that Celery keeps in Redis."""
KEEPALIVE = {4: 30, 5: 10, 6: 3, 18: 60_000}
"""Numbers of the TCP options on Linux: TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT (ms)."""

_SOON = 0.05
# A name that no queue has: Redis is asked about it while no queue is to be read, and so again soon.
_NOBODY = "nobody"


def broker_transport_url(redis_url: str) -> str:
    """Return the URL of Redis as kombu writes it.

    A socket is ``redis+socket://`` there and its database a virtual host; over TLS kombu believes any certificate
    unless it is told to check it.
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
    """Return how a worker talks to the queue.

    There is no ``socket_timeout``: after one, a failed acknowledgement never frees its place and the worker
    stalls. Keepalive finds a dead connection instead.
    """
    return {
        "global_keyprefix": KEY_PREFIX,
        "visibility_timeout": 3600,
        "unacked_restore_interval": 15,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 30,
        "queue_order_strategy": "worker.broker.redis_transport:LiveFirst",
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
    } | ({"socket_keepalive_options": KEEPALIVE} if sys.platform == "linux" else {})


def publisher_transport_options() -> dict[str, Any]:
    """Return how a publisher talks to the queue: an error is answered within seconds, not waited out."""
    return {
        "global_keyprefix": KEY_PREFIX,
        "visibility_timeout": 3600,
        "socket_timeout": 2,
        "socket_connect_timeout": 2,
        "max_retries": 0,
    }


class PausedQueues(set[str]):
    """Queues that are not to be read for now, though there is room: their messages would only lie about here."""

    def pause(self, queue: str) -> None:
        """Read no more of a queue."""
        self.add(queue)

    def resume(self, queue: str) -> None:
        """Read it again."""
        self.discard(queue)


paused_queues = PausedQueues()
"""What rests in this process; kombu makes its channels itself, so there is no other way to hand it over."""


class LiveFirst:
    """The order in which Redis is asked for the queues' messages: by name from the end, so ``live`` comes first."""

    def __init__(self, queues: Collection[str] = ()) -> None:
        self._queues = sorted(queues, reverse=True)

    def update(self, queues: Collection[str]) -> None:
        """Learn which queues are read."""
        self._queues = sorted(queues, reverse=True)

    def consume(self, _most: int) -> list[str]:
        """Return the queues to read now."""
        return [queue for queue in self._queues if queue not in paused_queues] or [_NOBODY] * bool(self._queues)

    def rotate(self, _queue: str) -> None:
        """Nobody loses its rank by having been read."""


class SlotReleasingQoS(redis.QoS):
    """The places of a worker for messages that it has taken and not finished.

    kombu's own gives a place back only when Redis confirms it. So while Redis is away each message that ends takes its
    place along; when none is left nothing is read from Redis any more, and so nobody notices that it is back. Here
    the place is given back in any case. The message stays among the unacknowledged; it comes again much later, and is
    dropped, for the ledger knows its evaluations.
    """

    def append(self, message: Any, delivery_tag: str) -> None:
        """Take a message; a full Redis cannot note that, and need not."""
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
        """Put back what others took very long ago; while Redis is full, it has to wait."""
        with contextlib.suppress(OutOfMemoryError):
            super().restore_visible(*args, **options)


class RedisChannel(redis.Channel):
    """A channel that goes on whatever is in a queue, and when Redis is full, so that work can make room again."""

    QoS = SlotReleasingQoS
    _kept: Any = None

    def basic_consume(self, queue: str, *args: Any, **options: Any) -> None:
        """Read a queue: one of tasks, or one by which Celery's processes speak; a channel may have both."""
        super().basic_consume(queue, *args, **options)
        look = check_task_message if queue in QUEUES else check_control_message
        deliver = self.connection._callbacks[queue]  # noqa: SLF001  # kombu has no other place for it
        self.connection._callbacks[queue] = lambda entry: deliver(look(entry))  # noqa: SLF001

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002  # as kombu has it
        # kombu makes one for each message it takes and for each it acknowledges, which costs more than what is sent.
        if asynchronous:
            return super()._create_client(asynchronous=True)
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = super()._create_client()
        return self._kept

    def _handle_message(self, client: Any, response: Any) -> Any:
        """Leave out what is no JSON: kombu would log it, and brackets without end would end the worker."""
        said = super()._handle_message(client, response)
        try:
            loads(bytes_to_str(said["data"]) if isinstance(said["data"], bytes | str) else "0")
        except UNREADABLE:
            said["data"] = None
        return said

    def _deliver_fanout_message(self, message: Any, exchange: str) -> Any:
        try:
            return super()._deliver_fanout_message(message, exchange)
        except BadEnvelope:
            # Whoever can write to Redis may say anything there; it is nobody's evaluation.
            return True

    def _brpop_start(self, timeout: float | None = None) -> None:
        super()._brpop_start(_SOON if paused_queues else timeout)

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except UNREADABLE as error:
            # It has been taken out of its queue. Whoever keeps what was refused hears of it.
            why = error if isinstance(error, BadEnvelope) else BadEnvelope("it is no JSON")
            signals.task_rejected.send(sender=self, message=None, exc=why)
            raise Empty from None

    def _queue_bind(self, *args: Any) -> None:
        # Our queues are known by their names; the note is for exchanges that we do not use.
        with contextlib.suppress(OutOfMemoryError):
            super()._queue_bind(*args)


class SentinelRedisChannel(RedisChannel, redis.SentinelChannel):
    """The same to a Redis that Sentinel watches."""


def install_channels() -> None:
    """Have every connection of this process use our channel; ``Channel`` is kombu's own hook for that."""
    redis.Transport.Channel = RedisChannel
    redis.SentinelTransport.Channel = SentinelRedisChannel
