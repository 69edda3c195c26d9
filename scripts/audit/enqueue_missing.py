"""Put evaluations that an audit finds missing on the backfill queue."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from redis.asyncio import Redis

from scripts.archive_access.evaluation_rows import MISSING, EvaluationRow
from scripts.archive_access.open_bucket import open_read_only_bucket
from tasks.errors import IntegrityError
from tasks.ledger.cancellation import Cancellation
from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.queueing.publisher import Publisher, enqueue
from tasks.storage.bucket import Bucket
from tasks.storage.run_list import find_run_list, read_cancelled_ids, read_chunk
from worker.app import make_publishing_app
from worker.clients.errors import ServiceUnavailable
from worker.clients.redis import check_redis, open_redis
from worker.config.settings import Settings


@dataclass(slots=True)
class MissingCounts:
    """Counts of missing evaluations by what was done with them.

    Attributes:
        enqueued: put on the queue now.
        in_ledger: accepted before and without an outcome yet, dead letters included, or in a list that is being fed.
        cancelled: cancelled by an operator, alone or with a run.
        damaged: left out, since the manifest is damaged and another attempt would fail.
    """

    enqueued: int = 0
    in_ledger: int = 0
    cancelled: int = 0
    damaged: int = 0

    def sentence(self) -> str:
        """Return the counts in a line."""
        return (
            f"{self.enqueued:,} of the missing enqueued; not enqueued: {self.in_ledger:,} in the ledger, "
            f"{self.cancelled:,} cancelled, {self.damaged:,} with a damaged manifest"
        )


@dataclass(frozen=True, slots=True)
class MissingQueue:
    """Enqueues missing evaluations.

    Attributes:
        redis: the Redis of the ledger.
        ledger: accepts the evaluations.
        publisher: puts them on the queue.
        account: name of the account whose evaluations they are.
        listed: evaluations in lists that are being fed to the ledger.
        cancelled: evaluations in lists of cancelled runs.
        counts: counts so far.
    """

    redis: "Redis"
    ledger: Ledger
    publisher: Publisher
    account: str
    listed: frozenset[str]
    cancelled: frozenset[str]
    counts: MissingCounts = field(default_factory=MissingCounts)

    async def add(self, rows: Sequence[EvaluationRow]) -> None:
        """Enqueue missing evaluations that are neither in the ledger, nor listed, nor cancelled.

        Raises:
            RedisError: the ledger did not accept them.
            kombu.exceptions.KombuError: they are accepted, and a worker publishes them later.
        """
        missing = [row.eval_id for row in rows if row.outcome == MISSING and not row.is_damaged]
        self.counts.damaged += sum(row.is_damaged for row in rows)
        # The ledger is read first, so that an evaluation is still found if it is cancelled between the two reads.
        states = dict(zip(missing, await self.ledger.locate(missing), strict=True))
        unknown = [each for each, (state, _) in states.items() if state is None and each not in self.listed]
        cancelled = await Cancellation(self.redis).find_cancelled(unknown) | self.cancelled.intersection(unknown)
        wanted = [eval_id for eval_id in unknown if eval_id not in cancelled]
        self.counts.in_ledger += len(missing) - len(unknown)
        self.counts.cancelled += len(cancelled)
        self.counts.enqueued += len(wanted)
        if wanted:
            order = EnqueueOptions(Queue.BACKFILL, self.account, Trigger("enqueue"))
            await enqueue(self.ledger, self.publisher, wanted, order)


@contextlib.asynccontextmanager
async def open_missing_queue(settings: Settings, account: str) -> AsyncIterator[MissingQueue]:
    """Open Redis and the broker for as long as the block lasts.

    Raises:
        ServiceUnavailable: Redis is not configured or does not answer, or the list of a run is damaged.
    """
    if settings.redis_url is None:
        raise ServiceUnavailable("--enqueue-missing needs the Redis of the workers: set DOCV_REDIS_URL")
    async with open_redis(settings.need_redis_url()) as redis:
        await check_redis(redis)
        ledger = Ledger(redis, replicas=settings.redis_replicas)
        async with open_read_only_bucket(settings) as bucket:
            try:
                listed = await _read_listed(ledger, bucket, settings.environment)
                cancelled = frozenset(await read_cancelled_ids(bucket, settings.environment))
            except IntegrityError as error:
                raise ServiceUnavailable(
                    f"nothing was enqueued: {error}; `docv-archive verify` shows the details"
                ) from None
        with contextlib.closing(Publisher(make_publishing_app(settings))) as publisher:
            yield MissingQueue(redis, ledger, publisher, account, listed, cancelled)


async def _read_listed(ledger: Ledger, bucket: Bucket, environment: str) -> frozenset[str]:
    """Return the evaluations of lists that are being fed; accepting them now would exceed DOCV_BACKLOG."""
    found: set[str] = set()
    for run in await ledger.runs.list_feeding():
        known = await find_run_list(bucket, run, await ledger.runs.get_fingerprint(run), environment)
        for piece in known.pieces if known else ():
            found.update(await read_chunk(bucket, piece))
    return frozenset(found)
