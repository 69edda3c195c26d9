"""Publish accepted evaluations; if that fails, nothing is lost: a worker publishes them later from the ledger."""

import asyncio
from collections.abc import Sequence

import structlog
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from tasks.model.job import Queue
from tasks.queueing.publisher import Publisher, batch_size

_log = structlog.get_logger("docv.serve")
_SECONDS = 2.0


class BackgroundPublisher:
    """Publishes in a thread, with a deadline, so that other requests do not wait."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def publish(self, queue: Queue, eval_ids: Sequence[str]) -> None:
        """Put accepted evaluations on their queue; return after at most two seconds."""
        if not eval_ids:
            return
        size = batch_size(queue, len(eval_ids))
        try:
            async with asyncio.timeout(_SECONDS):
                await asyncio.to_thread(self._publisher.publish, queue, eval_ids, size)
        except (KombuError, RedisError, OSError) as error:
            _log.warning("publish.delayed", queue=queue.value, evaluations=len(eval_ids), error=type(error).__name__)
