"""What the fault tests play on: a Redis, a RiskOS, an archive and worker processes, all of which may be harmed."""

import asyncio
import contextlib
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr
from redis.exceptions import RedisError

from scripts.simulator.options import SimulatorOptions
from scripts.simulator.server import Simulator, start_simulator
from tasks.ledger.counters import RunCounters
from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.queueing.publisher import Publisher, enqueue
from tests import forked
from tests.commands import KEY
from tests.faults.redis_server import RedisServer, WatchedRedis
from worker.app import make_publishing_app
from worker.config.settings import Settings

IMAGE_BYTES = 1_500
WORKER = ("scripts.cli", "worker")
_READY = b" ready."
_BEGINNING = 16_384
_SETTINGS = {
    "DOCV_API_KEY": KEY,
    "DOCV_RATE": "10000",
    "DOCV_BACKFILL_SHARE": "1",
    "DOCV_DAILY_QUOTA": "10000000",
    "DOCV_CONCURRENCY": "8",
    # An evaluation may see many workers die without being to blame for it.
    "DOCV_ATTEMPTS": "100",
    "DOCV_RETRY_SECONDS": "0.2",
    "DOCV_LEASE_SECONDS": "3",
    "DOCV_DRAIN_SECONDS": "3",
}


@dataclass(frozen=True, eq=False)
class Worker:
    """A worker process in a process group of its own.

    Attributes:
        process: the process.
        log: the file that it writes what it says to.
    """

    process: asyncio.subprocess.Process
    log: Path

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.returncode is None

    @property
    def ready(self) -> bool:
        """Whether it lives and has begun to consume."""
        return self.alive and _READY in self.beginning

    @property
    def beginning(self) -> bytes:
        """What it said first."""
        with self.log.open("rb") as file:
            return file.read(_BEGINNING)


class Cluster:
    """Redis, RiskOS, an archive and worker processes; made by ``running_cluster``.

    Attributes:
        folder: all files of this cluster are below.
        redis: the server of queue and ledger.
        riskos: the simulator, in this event loop.
        settings: environment of the workers to be started; a test may change it.
        client: a client of Redis that answers or fails within seconds.
        ledger: the ledger, for looking.
        workers: every worker that was ever started.
    """

    def __init__(
        self, folder: Path, redis: RedisServer | WatchedRedis, riskos: Simulator, settings: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self.redis = redis
        self.riskos = riskos
        self.archive = folder / "archive"
        self.settings = _SETTINGS | {
            "DOCV_REDIS_URL": redis.url,
            "DOCV_RISKOS_URL": riskos.url,
            "DOCV_ARCHIVE_URL": self.archive.as_uri(),
            **settings,
        }
        self.client = redis.client()
        self.ledger = Ledger(self.client, replicas=int(settings.get("DOCV_REDIS_REPLICAS", 0)))
        self.workers: list[Worker] = []
        self._names = itertools.count(1)

    async def start_worker(self, *command: str, start: Any = forked.start) -> Worker:
        """Start a worker, ours unless another module and its arguments are named; it is not ready yet."""
        module, *arguments = command or WORKER
        log = self.folder / f"worker-{next(self._names)}.log"
        aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        with log.open("wb") as file:
            process = await start(
                *(module, *arguments),
                cwd=self.folder,
                env={"PATH": "/usr/bin:/bin", "HOME": str(self.folder), **aws, **self.settings},
                start_new_session=True,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        worker = Worker(process, log)
        self.workers.append(worker)
        return worker

    async def start_workers(self, count: int, *command: str) -> list[Worker]:
        """Start so many workers and wait until all of them consume."""
        workers = [await self.start_worker(*command) for _ in range(count)]
        for worker in workers:
            await self.until_ready(worker)
        return workers

    async def until_ready(self, worker: Worker, seconds: float = 60) -> None:
        """Wait until a worker consumes."""
        await self.until(lambda: worker.ready or not worker.alive, seconds)
        assert worker.ready, worker.log.read_text()

    async def kill(self, worker: Worker) -> None:
        """End a worker and all of its group as a crash does."""
        kill_now(worker)
        await worker.process.wait()

    async def terminate(self, worker: Worker, seconds: float = 60) -> float:
        """Tell a worker to stop and wait for it; return the seconds that took."""
        began = time.monotonic()
        worker.process.terminate()
        try:
            await asyncio.wait_for(worker.process.wait(), seconds)
        except TimeoutError:
            raise AssertionError(f"it did not stop within {seconds} s:\n{worker.log.read_text()}") from None
        return time.monotonic() - began

    async def enqueue(
        self, eval_ids: Sequence[str], *, run: str, queue: Queue = Queue.LIVE, account: str = "default"
    ) -> None:
        """Accept evaluations and publish them; live ones travel one in a message."""
        app = make_publishing_app(Settings(redis_url=SecretStr(self.redis.url)))
        with contextlib.closing(app), contextlib.closing(Publisher(app)) as publisher:
            await enqueue(self.ledger, publisher, eval_ids, EnqueueOptions(queue, account, Trigger("enqueue", run)))

    async def settled(self, run: str) -> int:
        """Return how many evaluations of a run have ended; -1 when Redis does not tell."""
        counters = await self.counters(run)
        return counters.total - counters.pending if counters else -1

    async def counters(self, run: str) -> RunCounters | None:
        """Return the counters of a run, None when Redis does not tell."""
        try:
            return await self.ledger.get_run(run)
        except (RedisError, OSError):
            return None

    async def wait_until_all_ended(self, run: str, total: int, seconds: float = 60) -> RunCounters:
        """Wait until a run of so many evaluations is over; return its counters."""
        try:
            async with asyncio.timeout(seconds):
                while (counters := await self.counters(run)) is None or counters.pending or counters.total < total:
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{await self.ledger.get_run(run)} {await self.ledger.get_stats()}") from None
        return counters

    async def let_a_minute_pass(self) -> None:
        """Make what is queued look a minute older: for so long a message is believed to be with somebody."""
        for queue in Queue:
            key = f"docv:ledger:queued:{queue}"
            aged = {eval_id: since - 60_000 for eval_id, since in await self.client.zrange(key, 0, -1, withscores=True)}
            if aged:
                await self.client.zadd(key, aged, xx=True)

    async def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        """End every process that was started."""
        for worker in self.workers:
            await self.kill(worker)
        await self.client.aclose()
        await self.redis.kill()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def kill_now(worker: Worker) -> None:
    """Send SIGKILL to a worker's group without waiting for its end."""
    if worker.alive:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def running_cluster(
    folder: Path, *, watched: bool = False, keys: Sequence[str] = (), one_rate: bool = False, **settings: str
) -> AsyncIterator[Cluster]:
    """Have a cluster with a Redis and a RiskOS that run, and no worker yet.

    Args:
        folder: for its files; made when it is not there.
        watched: whether Redis has a replica, and a Sentinel.
        keys: further keys that RiskOS accepts.
        one_rate: whether they share rate and quota.
        settings: ``DOCV_…`` variables of the workers that differ from what is usual here.
    """
    server = WatchedRedis(folder / "redis") if watched else RedisServer(folder / "redis")
    try:
        await server.start()
        async with (
            await start_simulator(
                SimulatorOptions(api_key=KEY, image_bytes=IMAGE_BYTES), keys, one_rate=one_rate
            ) as riskos,
            Cluster(folder, server, riskos, settings) as cluster,
        ):
            yield cluster
    finally:
        await server.kill()
