"""Redis, RiskOS, an archive and worker processes; the fault tests may damage each of them."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import SecretStr
from redis.exceptions import RedisError

from scripts.simulator.options import SimulatorOptions
from scripts.simulator.server import Simulator, start_simulator
from tasks.ledger.counters import RunCounters
from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.queueing.publisher import Publisher, enqueue
from tests import forked
from tests.clocks import MovableClock, remove_shared_memory
from tests.commands import KEY
from tests.faults.forwarder import RedisFailover
from tests.faults.redis_server import RedisServer, SentinelRedis
from worker.app import make_publishing_app
from worker.config.settings import Settings

IMAGE_BYTES = 1_500
WORKER = ("scripts.cli", "worker")
_READY = b" ready."
_BEGINNING = 16_384
_STARTS = 3
_SETTINGS = {
    "DOCV_API_KEY": KEY,
    "DOCV_RATE": "10000",
    "DOCV_BACKFILL_SHARE": "1",
    "DOCV_DAILY_QUOTA": "10000000",
    "DOCV_CONCURRENCY": "8",
    # One evaluation may be in flight each time a worker is killed, and is not the cause.
    "DOCV_ATTEMPTS": "100",
    "DOCV_RETRY_SECONDS": "0.2",
    "DOCV_LEASE_SECONDS": "3",
    "DOCV_DRAIN_SECONDS": "3",
}


@dataclass(frozen=True, eq=False)
class Worker:
    """A worker process in its own process group.

    Attributes:
        process: the process.
        log: the file with its output.
    """

    process: asyncio.subprocess.Process
    log: Path

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.returncode is None

    @property
    def is_ready(self) -> bool:
        """Whether it is alive and consumes messages."""
        return self.is_alive and _READY in self.beginning

    @property
    def beginning(self) -> bytes:
        """The beginning of its log."""
        with self.log.open("rb") as file:
            return file.read(_BEGINNING)

    def clock(self) -> float:
        """Return how many seconds its clock was ahead of this process at the last line of its log."""
        line = next(line for line in reversed(self.log.read_text().splitlines()) if line.startswith("{"))
        logged_at = datetime.fromisoformat(json.loads(line)["timestamp"])
        return logged_at.timestamp() - self.log.stat().st_mtime


class Cluster:
    """Redis, RiskOS, an archive and worker processes; made by ``running_cluster``.

    Attributes:
        folder: the parent of all files of this cluster.
        redis: the server of the queue and the ledger.
        riskos: the simulator, in this event loop.
        settings: environment of workers that are started later; a test may change it.
        client: a client of Redis that answers or fails within seconds.
        ledger: the ledger, for tests to read.
        workers: every worker that was started.
    """

    def __init__(
        self,
        folder: Path,
        redis: RedisServer | SentinelRedis | RedisFailover,
        riskos: Simulator,
        settings: Mapping[str, str],
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

    async def start_worker(self, *command: str, new_interpreter: bool = False) -> Worker:
        """Start a worker without waiting until it is ready.

        Args:
            command: a module and its arguments; docv-archive's worker by default.
            new_interpreter: whether docv-archive starts in a new interpreter. Other programs always do, since a fork
                has docv-archive's modules loaded.
        """
        module, *arguments = command or WORKER
        start = forked.start_in_new_interpreter if new_interpreter or module != WORKER[0] else forked.start
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

    async def start_worker_with_clock(self, clock: MovableClock) -> Worker:
        """Start a worker with this clock in a new interpreter, and wait until it consumes messages.

        libfaketime 0.9.10 crashed two of some hundred workers while they started (SIGSEGV). No worker without it ever
        crashed, so a crashed one is replaced.
        """
        settings, self.settings = self.settings, {**self.settings, **clock.environment}
        for _ in range(_STARTS):
            worker = await self.start_worker(new_interpreter=True)
            await self._wait_until_started(worker)
            if worker.process.returncode != -signal.SIGSEGV:
                break
        self.settings = settings
        await self.wait_until_ready(worker)
        return worker

    async def start_workers(self, count: int, *command: str) -> list[Worker]:
        """Start this number of workers and wait until all of them consume messages."""
        workers = [await self.start_worker(*command) for _ in range(count)]
        for worker in workers:
            await self.wait_until_ready(worker)
        return workers

    async def wait_until_ready(self, worker: Worker, seconds: float = 120) -> None:
        """Wait until a worker consumes messages."""
        await self._wait_until_started(worker, seconds)
        assert worker.is_ready, f"exit code {worker.process.returncode}: {worker.log.read_text()}"

    async def _wait_until_started(self, worker: Worker, seconds: float = 120) -> None:
        await self.wait_until(lambda: worker.is_ready or not worker.is_alive, seconds)

    async def kill(self, worker: Worker) -> None:
        """Kill a worker and its whole process group, as a crash does."""
        kill_now(worker)
        await worker.process.wait()

    async def terminate(self, worker: Worker, seconds: float = 120) -> float:
        """Stop a worker with SIGTERM and wait for its end; return how many seconds it took."""
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
        """Accept evaluations and publish them; each live one has its own message."""
        app = make_publishing_app(Settings(redis_url=SecretStr(self.redis.url)))
        with contextlib.closing(app), contextlib.closing(Publisher(app)) as publisher:
            await enqueue(self.ledger, publisher, eval_ids, EnqueueOptions(queue, account, Trigger("enqueue", run)))

    async def count_ended(self, run: str) -> int:
        """Return how many evaluations of a run have ended; -1 if Redis does not answer."""
        counters = await self.counters(run)
        return counters.total - counters.pending if counters else -1

    async def counters(self, run: str) -> RunCounters | None:
        """Return the counters of a run; None if Redis does not answer."""
        try:
            return await self.ledger.runs.get_counters(run)
        except (RedisError, OSError):
            return None

    async def wait_until_all_ended(self, run: str, total: int, seconds: float = 120) -> RunCounters:
        """Wait until all evaluations of a run have ended; return its counters."""
        try:
            async with asyncio.timeout(seconds):
                while (counters := await self.counters(run)) is None or counters.pending or counters.total < total:
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(
                f"{await self.ledger.runs.get_counters(run)} {await self.ledger.get_stats()}"
            ) from None
        return counters

    async def wait_until(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Wait until a condition is met."""
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Kill all processes."""
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
    if worker.is_alive:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)
    remove_shared_memory(worker.process.pid)


@contextlib.asynccontextmanager
async def running_cluster(
    folder: Path,
    *,
    watched: bool = False,
    replicas: int = 0,
    keys: Sequence[str] = (),
    one_rate: bool = False,
    redis_clock: MovableClock | None = None,
    **settings: str,
) -> AsyncIterator[Cluster]:
    """Start a cluster with a Redis and a RiskOS, without workers.

    Args:
        folder: for its files; created if it does not exist.
        watched: whether Redis has a replica and a Sentinel.
        replicas: of Redis behind one address, without a Sentinel.
        keys: further keys that RiskOS accepts.
        one_rate: whether the keys share rate and quota.
        redis_clock: the clock of a Redis without replicas, if the test moves it.
        settings: ``DOCV_…`` variables of the workers that differ from the defaults of these tests.
    """
    server = _make_redis(folder / "redis", redis_clock, watched=watched, replicas=replicas)
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


def _make_redis(
    folder: Path, clock: MovableClock | None, *, watched: bool, replicas: int
) -> RedisServer | SentinelRedis | RedisFailover:
    if watched:
        return SentinelRedis(folder)
    if replicas:
        return RedisFailover(folder, replicas)
    return RedisServer(folder, environment=clock.environment if clock else None)
