"""Feed the ledger from the lists of runs, as much as it is to hold and no more.

Every worker of the backfill queue does so; who is slower than another has done nothing, for the ledger takes the IDs
at a position only once.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kombu.exceptions import KombuError

from tasks.errors import IntegrityError
from tasks.ledger.ledger import Ledger
from tasks.model.evidence import EvaluationFacts
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.queueing.publisher import Publisher, batch_size
from tasks.storage.bucket import Bucket
from tasks.storage.run_list import Chunk, RunList, find_run_list, read_chunk_with_facts
from tasks.telemetry import log_events

INTERVAL = 0.2
"""Seconds between two looks whether the ledger may be fed."""
# A step of so many takes Redis two milliseconds. Celery asks it three times for a message, and waits for it each time.
_AT_ONCE = 500


@dataclass(slots=True)
class _OpenList:
    """A list, the piece of it that is in memory, and how far we have fed it: None where somebody else may have."""

    of_run: RunList
    piece: Chunk | None = None
    eval_ids: Sequence[str] = ()
    facts: Mapping[str, EvaluationFacts] = field(default_factory=dict)
    position: int | None = None


class Feeder:
    """Feeds the ledger.

    Args:
        ledger: which is fed.
        publisher: what puts evaluations on their queue.
        bucket: of the archive.
        environment: in which a list is looked for first.
        backlog: evaluations that the ledger may hold.
    """

    def __init__(self, ledger: Ledger, publisher: Publisher, bucket: Bucket, environment: str, backlog: int) -> None:
        self._ledger, self._publisher, self._bucket = ledger, publisher, bucket
        self._environment, self._backlog = environment, backlog
        self._lists: dict[str, _OpenList] = {}
        self._unpublished: tuple[Sequence[str], int] | None = None

    async def feed_once(self) -> bool:
        """Feed some of every run that is not done; return whether there may be more to feed at once.

        What is fed is published while the next is fed: whoever does not call again at once calls ``publish``.

        Raises:
            StorageError: a list cannot be read now.
            RedisError: the ledger cannot be reached.
        """
        names = await self._ledger.list_feeding()
        self._lists = {name: each for name, each in self._lists.items() if name in names}
        more = False
        try:
            more = any([await self._feed_run(name) for name in names])
        finally:
            if not more:
                await self.publish()
        return more

    async def publish(self) -> None:
        """Publish what was fed last, where that has not been done yet."""
        if self._unpublished is None:
            return
        (eval_ids, size), self._unpublished = self._unpublished, None
        try:
            await asyncio.to_thread(self._publisher.publish, Queue.BACKFILL, eval_ids, size)
        except KombuError as error:
            # They are accepted; the ledger publishes them later.
            log_events.loop_failed("feed", error)

    async def _feed_run(self, name: str) -> bool:
        """Feed the next some of a run; return whether that was done."""
        known = self._lists.get(name)
        position = await self._ledger.get_position(name) if known is None or known.position is None else known.position
        try:
            eval_ids = await self._read_next(name, position)
        except IntegrityError as error:
            log_events.run_list_unusable(name, str(error))
            await self._ledger.stop_feeding(name)
            return False
        if not eval_ids:
            return False
        reading = self._lists[name]
        of_run = reading.of_run
        order = EnqueueOptions(
            Queue.BACKFILL,
            of_run.account,
            Trigger("backfill", run=name),
            refresh=of_run.refresh,
            facts=reading.facts,
            even_if_erased=of_run.even_if_erased,
            refresh_outcomes=of_run.refresh_outcomes,
        )
        new, _ = await asyncio.gather(
            self._ledger.feed(name, eval_ids, order, position=position, backlog=self._backlog), self.publish()
        )
        reading.position = None if new is None else position + len(eval_ids)
        if new is None:
            return False
        self._unpublished = new, batch_size(Queue.BACKFILL, of_run.source.ids)
        return True

    async def _read_next(self, name: str, position: int) -> Sequence[str]:
        """Return the IDs of a run's list from a position on, as many as are fed at once."""
        reading = self._lists.get(name) or await self._open(name)
        if position >= reading.of_run.source.ids:
            return ()
        piece, before = reading.of_run.chunk_at(position)
        if reading.piece is not piece:
            reading.eval_ids, reading.facts = await read_chunk_with_facts(self._bucket, piece)
            reading.piece = piece
        return reading.eval_ids[position - before : position - before + _AT_ONCE]

    async def _open(self, name: str) -> _OpenList:
        listed = await self._ledger.get_fingerprint(name)
        found = await find_run_list(self._bucket, name, listed, self._environment)
        if found is None:
            raise IntegrityError(f"run {name} has no list in it")
        self._lists[name] = _OpenList(found)
        return self._lists[name]
