"""A worker that archives nothing: it takes evaluations from Celery, and leases and settles them in the ledger."""

import asyncio
import contextlib
import secrets
from typing import Any

from celery import Celery, signals

from tasks.ledger.ledger import Ledger
from tasks.model.outcome import Outcome
from tasks.queueing.feeder import INTERVAL, Feeder
from tasks.queueing.publisher import Publisher
from tasks.storage.open_bucket import open_bucket
from worker.app import make_configuration
from worker.broker.envelope import ARCHIVE_TASK
from worker.broker.redis_transport import install_channels
from worker.clients.archive import open_archive
from worker.clients.redis import open_redis
from worker.config.settings import load_settings
from worker.runtime import Runtime


class Process:
    """The parts of a worker process that lease and settle evaluations."""

    def __init__(self) -> None:
        self._settings = load_settings()
        self._runtime = Runtime(0.0)
        self._open = contextlib.AsyncExitStack()
        self._publisher = Publisher(app)
        self._ledger = self._runtime.run(self._start())

    async def _start(self) -> Ledger:
        url = self._settings.need_redis_url()
        ledger = Ledger(await self._open.enter_async_context(open_redis(url, self._settings.concurrency)))
        bucket = open_bucket(open_archive(self._settings))
        feeder = Feeder(ledger, self._publisher, bucket, self._settings.environment, self._settings.backlog)
        self._feeding = asyncio.create_task(_feed(feeder))
        return ledger

    def work(self, eval_ids: list[str]) -> None:
        """Lease evaluations and settle them."""
        self._runtime.run(self._work(eval_ids))

    async def _work(self, eval_ids: list[str]) -> None:
        entries = await self._ledger.lease(eval_ids, token=secrets.token_hex(8))
        await self._ledger.complete_all([(entry, Outcome.UNCHANGED) for entry in entries])

    def close(self) -> None:
        """Close the connections."""
        self._runtime.close()
        self._publisher.close()


async def _feed(feeder: Feeder) -> None:
    while True:
        if not await feeder.feed_once():
            await asyncio.sleep(INTERVAL)


install_channels()
app = Celery("noop", set_as_current=False)
app.add_defaults(lambda: make_configuration(load_settings()))
_processes: list[Process] = []


@app.task(name=ARCHIVE_TASK)
def archive(eval_ids: list[str], **_: Any) -> None:
    """Archive nothing."""
    _processes[0].work(eval_ids)


@signals.worker_init.connect(weak=False)
def _start(**_: object) -> None:
    _processes.append(Process())


@signals.worker_shutdown.connect(weak=False)
def _close(**_: object) -> None:
    while _processes:
        _processes.pop().close()


if __name__ == "__main__":
    app.Worker(queues=["backfill"], loglevel="WARNING", without_gossip=True, without_mingle=True).start()
