"""Feed the ledger from the lists of runs, up to its backlog.

Every worker of the backfill queue does this. The ledger accepts the IDs at a position only once, so a slower worker
changes nothing.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from kombu.exceptions import KombuError

from tasks.errors import IntegrityError
from tasks.ledger.ledger import Ledger
from tasks.model.evidence import EvaluationFacts
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.model.members import read_member
from tasks.model.outcome import ManifestOutcome
from tasks.queueing.publisher import Publisher, batch_size
from tasks.storage.bucket import Bucket
from tasks.storage.run_list import Chunk, RunList, find_run_list, read_chunk_with_facts
from tasks.telemetry import log_events

INTERVAL = 0.2
"""Seconds between two attempts to feed the ledger."""
# A step with 500 IDs keeps Redis busy for 2 ms, and Celery waits for Redis three times for each message.
_FEED_BATCH = 500


@dataclass(slots=True)
class _OpenList:
    """A list of a run, and the chunk of it that is in memory.

    Attributes:
        position: number of IDs that are fed; None if another worker may have fed more.
    """

    run_list: RunList
    chunk: Chunk | None = None
    eval_ids: Sequence[str] = ()
    facts: Mapping[str, EvaluationFacts] = field(default_factory=dict)
    position: int | None = None


class Feeder:
    """Feeds the ledger.

    Args:
        ledger: the ledger.
        publisher: publishes accepted evaluations.
        bucket: the bucket of the archive, which has the lists.
        environment: environment in which a list is searched first.
        backlog: feed nothing while the ledger has this number of evaluations, or more.
    """

    def __init__(self, ledger: Ledger, publisher: Publisher, bucket: Bucket, environment: str, backlog: int) -> None:
        self._ledger, self._publisher, self._bucket = ledger, publisher, bucket
        self._environment, self._backlog = environment, backlog
        self._lists: dict[str, _OpenList] = {}
        self._unpublished: tuple[Sequence[str], int] | None = None

    async def feed_once(self) -> bool:
        """Feed the next IDs of every run that is being fed; return whether there may be more to feed at once.

        The IDs are published during the next call. A caller that does not call again at once must call ``publish``.

        Raises:
            StorageError: a list cannot be read now.
            RedisError: Redis is not available.
        """
        names = await self._ledger.runs.list_feeding()
        self._lists = {name: each for name, each in self._lists.items() if name in names}
        more, failed = False, None
        for name in names:
            try:
                more |= await self._feed_run(name)
            except Exception as error:  # noqa: BLE001  # a list that cannot be fed must not stop the others
                failed = failed or error
                self._lists.pop(name, None)
        if not more:
            await self.publish()
            if failed:
                raise failed
        return more

    async def publish(self) -> None:
        """Publish the IDs that were fed last, unless they have been published already."""
        if self._unpublished is None:
            return
        (eval_ids, size), self._unpublished = self._unpublished, None
        try:
            await asyncio.to_thread(self._publisher.publish, Queue.BACKFILL, eval_ids, size)
        except KombuError as error:
            # They are accepted, and `dispatch` publishes them later.
            log_events.loop_failed("feed", error)

    async def _feed_run(self, name: str) -> bool:
        """Feed the next IDs of a run; return whether the ledger accepted them."""
        known = self._lists.get(name)
        position = (
            await self._ledger.runs.get_position(name) if known is None or known.position is None else known.position
        )
        try:
            eval_ids = await self._read_next(name, position)
        except IntegrityError as error:
            log_events.run_list_unusable(name, str(error))
            await self._ledger.runs.stop_feeding(name)
            return False
        if not eval_ids:
            return False
        opened = self._lists[name]
        order = _make_options(name, opened)
        new, _ = await asyncio.gather(
            self._ledger.runs.feed(name, eval_ids, order, position=position, backlog=self._backlog), self.publish()
        )
        opened.position = None if new is None else position + len(eval_ids)
        if new is None:
            return False
        self._unpublished = new, batch_size(Queue.BACKFILL, opened.run_list.source.ids)
        return True

    async def _read_next(self, name: str, position: int) -> Sequence[str]:
        """Return at most ``_FEED_BATCH`` IDs of a run's list from a position on."""
        opened = self._lists.get(name) or await self._open(name)
        if position >= opened.run_list.source.ids:
            return ()
        chunk, start = opened.run_list.chunk_at(position)
        if opened.chunk is not chunk:
            opened.eval_ids, opened.facts = await read_chunk_with_facts(self._bucket, chunk)
            opened.chunk = chunk
        return opened.eval_ids[position - start : position - start + _FEED_BATCH]

    async def _open(self, name: str) -> _OpenList:
        fingerprint = await self._ledger.runs.get_fingerprint(name)
        found = await find_run_list(self._bucket, name, fingerprint, self._environment)
        if found is None:
            raise IntegrityError(f"there is no list of run {name}")
        self._lists[name] = _OpenList(found)
        return self._lists[name]


def _make_options(name: str, opened: _OpenList) -> EnqueueOptions:
    """Return the order of the run of a list."""
    run_list = opened.run_list
    return EnqueueOptions(
        Queue.BACKFILL,
        run_list.account,
        Trigger("backfill", run=name),
        refresh=run_list.refresh,
        facts=opened.facts,
        even_if_erased=run_list.even_if_erased,
        ordered_at=datetime.fromisoformat(run_list.begun_at).timestamp(),
        refresh_outcomes=tuple(read_member(ManifestOutcome, each) for each in run_list.refresh_outcomes),
    )
