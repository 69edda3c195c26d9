"""IDs → ledger → queue. Accepting is the promise; publishing only makes it quick."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from celery import Celery
from kombu import Connection
from kombu.exceptions import KombuError
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Queue
from tasks.queueing.message import MAX_BATCH
from worker.broker import rabbitmq
from worker.broker.envelope import ARCHIVE_TASK
from worker.broker.options import is_rabbitmq, publisher_options
from worker.broker.redis_transport import KEY_PREFIX

_AT_ONCE = 1000
_CONFIRM_SECONDS = 2.0
# IDs are spread over at least so many messages, as long as there are enough, so that every worker gets some.
_MESSAGES = 64


class Publisher:
    """Publishes messages over a connection of its own, one thread at a time.

    Args:
        app: the Celery application.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._connection: Connection = app.connection_for_write(transport_options=publisher_options(app.conf))
        self._is_rabbitmq = is_rabbitmq(app.conf.broker_url)

    def publish(self, queue: Queue, eval_ids: Sequence[str], size: int) -> None:
        """Put accepted evaluations on their queue, so many in a message.

        Raises:
            kombu.exceptions.KombuError: Redis did not take them, or not all; the ledger will find them later.
        """
        with self._lock, self._connection.Producer(auto_declare=False) as producer, producer.batch():
            for batch in _batches(eval_ids, size):
                self._app.send_task(
                    ARCHIVE_TASK,
                    kwargs={"eval_ids": list(batch), "accepted": True},
                    queue=queue.value,
                    producer=producer,
                    retry=False,
                    confirm_timeout=_CONFIRM_SECONDS,
                )

    def count_waiting(self) -> dict[Queue, int] | None:
        """Count the messages that wait in RabbitMQ; None where Redis has them, which is asked with the rest there.

        Raises:
            kombu.exceptions.KombuError: it does not answer.
        """
        if not self._is_rabbitmq:
            return None
        with self._lock:
            return {Queue(name): count for name, count in rabbitmq.count_waiting(self._connection, Queue).items()}

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


async def enqueue(ledger: Ledger, publisher: Publisher, eval_ids: Sequence[str], options: EnqueueOptions) -> int:
    """Accept evaluations into the ledger and publish those that were not under way; return how many those are.

    Args:
        eval_ids: canonical IDs, see ``tasks.model.evaluation.parse_eval_id``.
        options: how they are wanted.

    Raises:
        redis.exceptions.RedisError: the ledger did not take them; those before are accepted.
        kombu.exceptions.OperationalError: all are accepted, but not all published; the ledger will do it later.
    """
    size = batch_size(options.queue, len(eval_ids))
    published, refused = 0, None
    for some in _batches(eval_ids, _AT_ONCE):
        new = await ledger.accept(some, options)
        published += len(new)
        try:
            await asyncio.to_thread(publisher.publish, options.queue, new, size)
        except KombuError as error:
            # Accepting is the promise; it goes on, and the ledger publishes later.
            refused = error
    if refused:
        raise refused
    return published


@dataclass(frozen=True, slots=True)
class Backlog:
    """Messages that Celery has put into its queues.

    Attributes:
        waiting: in each queue.
        unacknowledged: taken by a worker and not finished, or lost with it.
    """

    waiting: dict[Queue, int]
    unacknowledged: int


async def count_backlog(redis: "Redis") -> Backlog:
    """Count the messages in the queues."""
    async with redis.pipeline(transaction=True) as pipe:
        for queue in Queue:
            pipe.llen(KEY_PREFIX + queue.value)
        pipe.hlen(KEY_PREFIX + "unacked")
        *waiting, unacknowledged = await pipe.execute()
    return Backlog(dict(zip(Queue, waiting, strict=True)), unacknowledged)


def batch_size(queue: Queue, evaluations: int) -> int:
    """Return how many IDs go into one message: live events travel alone."""
    if queue is Queue.LIVE:
        return 1
    return max(1, min(MAX_BATCH, evaluations // _MESSAGES))


def _batches(eval_ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(eval_ids), size):
        yield eval_ids[start : start + size]
