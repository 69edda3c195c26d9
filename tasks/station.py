"""What one worker process is made of: a message's evaluations are taken out of the ledger and brought to an end."""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from tasks import report
from tasks.account import Account, Allowance
from tasks.attempt import attempt
from tasks.bucket import Bucket, ObjectBucket
from tasks.dispatch import INTERVAL, dispatch
from tasks.download import Terms
from tasks.enqueue import Publisher
from tasks.errors import LeaseLost
from tasks.folder import FolderBucket
from tasks.hold import Holds
from tasks.leases import Leases
from tasks.ledger import Entry, Ledger
from tasks.message import Message
from tasks.pipeline import Means
from tasks.rate_limit import Turns
from tasks.request import Line
from tasks.retrying import Policy
from tasks.store import Shelf
from tasks.unpack import Limits
from worker.resources import Resources
from worker.runtime import Runtime
from worker.settings import Settings


class Station:
    """What one worker process is made of: made when it starts, closed when it ends.

    Args:
        settings: of this process.
        resources: what is open.
        runtime: the loop it works on.
        publisher: what puts evaluations back on their queue.
    """

    def __init__(self, settings: Settings, resources: Resources, runtime: Runtime, publisher: Publisher) -> None:
        self._redis = resources.redis
        self._runtime = runtime
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._gate = asyncio.Semaphore(settings.concurrency)
        self._turns = Turns(resources.redis, runtime.pause)
        self._holds = Holds(resources.redis)
        self._account = account_of(settings)
        self._ledger = Ledger(resources.redis, settings.lease_seconds)
        self._leases = Leases(self._ledger)
        self._publisher = publisher
        self._means = Means(
            line=Line(
                http=resources.http,
                account=self._account,
                turns=self._turns,
                holds=self._holds,
                terms=Terms(max_bundle_bytes=settings.max_bundle_bytes, no_documents_texts=settings.no_documents_texts),
                policy=Policy(attempts=settings.attempts, parking=settings.retry_seconds),
            ),
            shelf=Shelf(bucket_of(resources, settings), settings.tags),
            limits=Limits(max_documents=settings.max_documents, max_unpacked_bytes=settings.max_unpacked_bytes),
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the loops of this process going for as long as the block lasts."""
        loops = [
            asyncio.create_task(_every(INTERVAL, "dispatch", self._dispatch)),
            asyncio.create_task(_every(self._leases.interval, "leases", self._leases.beat)),
        ]
        try:
            yield
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)

    async def work(self, message: Message) -> bool:
        """Bring every evaluation of a message to its end; return whether some were handed back.

        Raises:
            RedisError: one of them could not be written down; the others have been brought to their end all the same.
        """
        if not message.accepted:
            await self._ledger.accept(
                message.eval_ids,
                queue=message.queue,
                account=self._account.name,
                trigger=message.trigger,
                refresh=message.refresh,
            )
        entries = await self._ledger.take(message.eval_ids, token=f"{self._name}:{secrets.token_hex(8)}")
        with self._leases.kept(entries):
            ends = await asyncio.gather(*map(self._end, entries), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return any(ends)

    async def _end(self, entry: Entry) -> bool:
        """Make an attempt at one evaluation when there is room; return whether it was handed back instead."""
        try:
            await self._runtime.unless_draining(self._gate.acquire())
            try:
                await attempt(entry, self._means, self._ledger)
            finally:
                self._gate.release()
        except asyncio.CancelledError:
            return await self._hand_back(entry)
        finally:
            self._leases.drop(entry)
        return False

    async def _hand_back(self, entry: Entry) -> bool:
        try:
            await self._ledger.hand_back(entry)
        except LeaseLost:
            report.lease_lost(entry)
            return False
        report.handed_back(entry)
        return True

    async def _dispatch(self) -> None:
        if self._runtime.draining:
            return
        hold = await self._holds.of(self._account.name)
        self._turns.notice(self._account.name, hold.left if hold else 0.0)
        await dispatch(self._ledger, self._publisher, self._redis, hold)


def account_of(settings: Settings) -> Account:
    """Return the account that the settings speak of.

    Raises:
        SettingsError: its key is missing.
    """
    return Account(
        name="default",
        environment=settings.environment,
        url=settings.base_url,
        key=settings.need_api_key(),
        api_version=settings.api_version,
        allowance=Allowance(
            rate=settings.rate,
            burst=settings.burst,
            backfill_share=settings.backfill_share,
            daily_quota=settings.quota,
        ),
    )


def bucket_of(resources: Resources, settings: Settings) -> Bucket:
    """Return the archive's bucket."""
    if isinstance(resources.archive, Path):
        return FolderBucket(resources.archive)
    return ObjectBucket(resources.archive, settings.storage_class)


async def _every(seconds: float, name: str, round_: Callable[[], Awaitable[None]]) -> None:
    """Do something again and again; a round that fails is told and does not end the loop."""
    while True:
        try:
            await round_()
        except (RedisError, KombuError, OSError) as error:
            report.loop_failed(name, error)
        await asyncio.sleep(seconds)
