"""Accept evaluations into the ledger, and publish them to their queue.

An accepted evaluation is never lost. Publishing only makes it start sooner, because ``dispatch`` repeats it if needed.
"""

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

_ACCEPT_BATCH = 1000
_CONFIRM_SECONDS = 2.0
# A large order is spread over at least 64 messages, so that every worker gets some of it.
_MIN_MESSAGES = 64


class Publisher:
    """Publishes messages over its own connection, from one thread at a time.

    Args:
        app: the Celery application.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._connection: Connection = app.connection_for_write(transport_options=publisher_options(app.conf))
        self._is_rabbitmq = is_rabbitmq(app.conf.broker_url)

    def publish(self, queue: Queue, eval_ids: Sequence[str], size: int) -> None:
        """Publish accepted evaluations to their queue, at most ``size`` in each message.

        Raises:
            kombu.exceptions.KombuError: some were not published; ``dispatch`` publishes them later.
        """
        with self._lock, self._connection.Producer(auto_declare=False) as producer, producer.batch():
            for batch in _split(eval_ids, size):
                self._app.send_task(
                    ARCHIVE_TASK,
                    kwargs={"eval_ids": list(batch), "accepted": True},
                    queue=queue.value,
                    producer=producer,
                    retry=False,
                    confirm_timeout=_CONFIRM_SECONDS,
                )

    def count_waiting(self) -> dict[Queue, int] | None:
        """Return the number of messages that wait in RabbitMQ; None if Redis is the broker (see ``count_backlog``).

        Raises:
            kombu.exceptions.KombuError: RabbitMQ does not answer.
        """
        if not self._is_rabbitmq:
            return None
        with self._lock:
            return {Queue(name): count for name, count in rabbitmq.count_waiting(self._connection, Queue).items()}

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


async def enqueue(ledger: Ledger, publisher: Publisher, eval_ids: Sequence[str], options: EnqueueOptions) -> int:
    """Accept evaluations into the ledger, publish those that are due now, and return how many.

    Args:
        eval_ids: canonical IDs, see ``tasks.model.evaluation.parse_eval_id``.
        options: the options of the order.

    Raises:
        redis.exceptions.RedisError: a batch was not accepted; the batches before it were.
        kombu.exceptions.OperationalError: all are accepted, but some are not published; ``dispatch`` does that later.
    """
    size = batch_size(options.queue, len(eval_ids))
    published, failed = 0, None
    for some in _split(eval_ids, _ACCEPT_BATCH):
        new = await ledger.accept(some, options)
        published += len(new)
        try:
            await asyncio.to_thread(publisher.publish, options.queue, new, size)
        except KombuError as error:
            # The remaining batches must be accepted anyway; `dispatch` publishes these later.
            failed = error
    if failed:
        raise failed
    return published


@dataclass(frozen=True, slots=True)
class Backlog:
    """The number of messages in Celery's queues.

    Attributes:
        waiting: messages that wait in each queue.
        unacknowledged: messages that a worker has taken and not finished, or that were lost with a worker.
    """

    waiting: dict[Queue, int]
    unacknowledged: int


async def count_backlog(redis: "Redis") -> Backlog:
    """Count the messages in the queues if Redis is the broker."""
    async with redis.pipeline(transaction=True) as pipe:
        for queue in Queue:
            pipe.llen(KEY_PREFIX + queue.value)
        pipe.hlen(KEY_PREFIX + "unacked")
        *waiting, unacknowledged = await pipe.execute()
    return Backlog(dict(zip(Queue, waiting, strict=True)), unacknowledged)


def batch_size(queue: Queue, evaluations: int) -> int:
    """Return how many IDs to put into one message. A live message has one ID."""
    if queue is Queue.LIVE:
        return 1
    return max(1, min(MAX_BATCH, evaluations // _MIN_MESSAGES))


def _split(eval_ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(eval_ids), size):
        yield eval_ids[start : start + size]
