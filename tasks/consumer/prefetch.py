"""Decide from which queues to fetch another message, and pause the backfill while enough of it waits here."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping

from tasks.model.job import Queue

# Per slot, N evaluations of a backfill may wait here. Each takes some kilobytes, and other workers could have them. But
# already archived ones end at thousands per second, and a paused queue is read again only 50 ms later.
_EVALUATIONS_PER_SLOT = 4


class PrefetchControl:
    """Counts the messages of a process, and the backfill evaluations that wait in it or are about to arrive.

    Args:
        concurrency: messages that may be worked on, and slots of the process.
        set_paused: called with True while enough of the backfill waits here, so that no more of it is fetched.
        limits: messages that are fetched at a time from a queue, if the broker limits them.
    """

    def __init__(
        self, concurrency: int, set_paused: Callable[[bool], None], limits: Mapping[Queue, int] | None = None
    ) -> None:
        self._concurrency, self._set_paused, self._limits = concurrency, set_paused, limits or {}
        self._messages = dict.fromkeys(Queue, 0)
        self._expected = 0
        self._waiting = 0
        # Celery's threads fetch messages faster than the loop gets to them.
        self._lock = threading.Lock()

    @property
    def can_accept(self) -> bool:
        """Whether another message could be worked on."""
        return sum(self._messages.values()) < self._concurrency

    def can_fetch(self, queue: Queue) -> bool:
        """Return whether another message of a queue could be fetched and worked on."""
        return self.can_accept and self._messages[queue] < self._limits.get(queue, self._concurrency)

    def expect_evaluations(self, queue: Queue, evaluations: int) -> None:
        """Count evaluations of a fetched message until they have arrived; may be called from any thread.

        Args:
            evaluations: number of them; negative once they have arrived, or if they will not.
        """
        if queue is Queue.BACKFILL:
            with self._lock:
                self._expected += evaluations
            self._update_paused()

    @contextlib.contextmanager
    def track_message(self, queue: Queue) -> Iterator[None]:
        """Count a message for as long as the block lasts."""
        self._messages[queue] += 1
        self._update_paused()
        try:
            yield
        finally:
            self._messages[queue] -= 1
            self._update_paused()

    @contextlib.contextmanager
    def track_waiting(self, queue: Queue) -> Iterator[None]:
        """Count an evaluation that waits to be admitted for as long as the block lasts."""
        is_backfill = queue is Queue.BACKFILL
        self._waiting += is_backfill
        try:
            yield
        finally:
            self._waiting -= is_backfill
            self._update_paused()

    def _update_paused(self) -> None:
        with self._lock:
            evaluations = self._waiting + self._expected
            # Each message occupies a thread.
            messages = self._messages[Queue.BACKFILL]
            has_enough = evaluations >= _EVALUATIONS_PER_SLOT * self._concurrency or messages >= self._concurrency
            self._set_paused(has_enough)
