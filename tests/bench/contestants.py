"""The contestants: a worker of docv-archive, and other programs that do the same work."""

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from celery import Celery
from pydantic import SecretStr
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.account import DEFAULT_ACCOUNT
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.queueing.publisher import Publisher
from tests.bench.environment import PEERS_PYTHON, BenchEnvironment, started
from tests.bench.peers.place import BUCKET, KEY, TASK
from worker.app import make_publishing_app
from worker.clients.embedded_redis import embedded_redis
from worker.clients.redis import open_redis
from worker.config.settings import Settings

_BATCH = 100
_AT_ONCE = 1000
_READY_SECONDS = 60.0
Processes = list["subprocess.Popen[bytes]"]


class Contestant(Protocol):
    """A program that archives the evaluations it is given.

    Attributes:
        processes: its processes; each leads a session.
    """

    processes: Processes

    def feed(self, eval_ids: Sequence[str]) -> None:
        """Hand over evaluations; this costs the contestant nothing."""


class Piped:
    """A contestant that reads IDs from its standard input."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.processes = [process]

    def feed(self, eval_ids: Sequence[str]) -> None:
        pipe = self.processes[0].stdin
        assert pipe  # a pipe
        pipe.write("".join(f"{eval_id}\n" for eval_id in eval_ids).encode())
        pipe.flush()


class Prefork:
    """The usual Celery worker."""

    def __init__(self, process: "subprocess.Popen[bytes]", broker: str) -> None:
        self.processes = [process]
        self._app = Celery(broker=broker, set_as_current=False)
        self._app.conf.task_ignore_result = True

    def feed(self, eval_ids: Sequence[str]) -> None:
        for eval_id in eval_ids:
            self._app.send_task(TASK, [eval_id])


class Ours:
    """A docv-archive worker, fed through ledger and queue.

    Args:
        processes: of the workers.
        redis_url: of ledger and queue.
        queue: that gets the evaluations.
        batch: evaluations in a message.
    """

    def __init__(self, processes: Processes, redis_url: str, queue: Queue, batch: int) -> None:
        self.processes = processes
        self._url, self._queue, self._batch = redis_url, queue, batch

    def feed(self, eval_ids: Sequence[str]) -> None:
        asyncio.run(self._accept(eval_ids))
        app = make_publishing_app(Settings(redis_url=SecretStr(self._url)))
        with contextlib.closing(app), contextlib.closing(Publisher(app)) as publisher:
            publisher.publish(self._queue, eval_ids, self._batch)

    def count_round_trips(self) -> int:
        """Return how many requests Redis has received from all clients."""
        return asyncio.run(self._round_trips())

    async def _accept(self, eval_ids: Sequence[str]) -> None:
        order = EnqueueOptions(self._queue, DEFAULT_ACCOUNT, Trigger("enqueue", run="bench"))
        async with open_redis(self._url) as redis:
            for start in range(0, len(eval_ids), _AT_ONCE):
                await Ledger(redis).accept(eval_ids[start : start + _AT_ONCE], order)

    async def _round_trips(self) -> int:
        async with open_redis(self._url) as redis:
            return await _count_reads(redis)


async def _count_reads(redis: "Redis") -> int:
    return int((await redis.info("stats"))["total_reads_processed"])


@contextlib.contextmanager
def peer(bench: BenchEnvironment, name: str) -> Iterator[Contestant]:
    """Run a contestant that reads from its standard input."""
    with started([f"tests.bench.peers.{name}"], bench.environment(), bench.folder, python=PEERS_PYTHON) as process:
        yield Piped(process)


@contextlib.contextmanager
def prefork(bench: BenchEnvironment) -> Iterator[Contestant]:
    """Run the usual Celery worker with eight processes."""
    name = "tests.bench.peers.prefork"
    with embedded_redis(bench.folder / "redis-of-prefork") as redis:
        environment = bench.environment() | {"BENCH_REDIS": _for_celery(redis.url)}
        with started([name], environment, bench.folder, python=PEERS_PYTHON) as process:
            _wait_until_ready(bench.folder / f"{name}.log", [process])
            yield Prefork(process, _for_celery(redis.url))


@contextlib.contextmanager
def ours(
    bench: BenchEnvironment, workers: int = 1, settings: Mapping[str, str] | None = None, batch: int = _BATCH
) -> Iterator[dict[Queue, Ours]]:
    """Run workers of docv-archive; yield a contestant that is fed in batches, and one that is fed one by one."""
    folder = bench.folder / f"ours-{workers}"
    folder.mkdir()
    with embedded_redis(folder / "redis") as redis, contextlib.ExitStack() as stack:
        environment = bench.environment() | _settings(bench, folder, redis.url) | dict(settings or {})
        processes = [
            stack.enter_context(started(["scripts.cli", "worker"], environment, folder)) for _ in range(workers)
        ]
        _wait_until_ready(folder / "scripts.cli.log", processes)
        yield {
            queue: Ours(processes, redis.url, queue, size) for queue, size in ((Queue.BACKFILL, batch), (Queue.LIVE, 1))
        }


def _settings(bench: BenchEnvironment, folder: Path, redis_url: str) -> dict[str, str]:
    return {
        "DOCV_ENVIRONMENT": "production",
        "DOCV_API_KEY": KEY,
        "DOCV_RISKOS_URL": bench.riskos,
        "DOCV_ARCHIVE_URL": f"s3://{BUCKET}/kyc",
        "DOCV_S3_ENDPOINT": bench.s3,
        "DOCV_REDIS_URL": redis_url,
        "DOCV_STATE_DIR": str(folder / "state"),
        "DOCV_RATE": "10000",
    }


def _for_celery(url: str) -> str:
    return make_publishing_app(Settings(redis_url=SecretStr(url))).conf.broker_url  # type: ignore[no-any-return]


def _wait_until_ready(log: Path, processes: Processes) -> None:
    began = time.monotonic()
    while log.read_text().count(" ready.") < len(processes):
        late = time.monotonic() - began > _READY_SECONDS
        if late or any(process.poll() is not None for process in processes):
            raise TimeoutError(f"no worker is ready; see {log}:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)
