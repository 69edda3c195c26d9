"""Run a worker process next to a command: restart it if it dies, and stop it when the command ends."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from redis.asyncio import Redis

from scripts.local.log_file import rotate_log
from worker.clients.disk_errors import explain_disk_error, find_disk_problem
from worker.clients.embedded_redis import EmbeddedError, EmbeddedRedis, embedded_redis, was_started
from worker.clients.errors import ServiceUnavailable
from worker.clients.primary import NotPrimary
from worker.clients.private_folder import make_private
from worker.clients.redis import check_redis, open_redis
from worker.config.settings import Settings, SettingsError

Result = TypeVar("Result")
_KILL_AFTER = 5.0
_MOST_STARTS = 5


class LocalWorker:
    """One worker process.

    Args:
        settings: its settings, passed in its environment.
        log: file its log lines are appended to; see ``rotate_log``.
        lock: descriptor of the embedded Redis's lock, which it shares with this process; None for another Redis.
    """

    def __init__(self, settings: Settings, log: Path, lock: int | None) -> None:
        self._settings, self.log, self._lock = settings, log, lock
        self._starts = 0
        self._process = self._start()

    @property
    def pid(self) -> int:
        """The ID of the process; another one after a restart."""
        return self._process.pid

    def check_alive(self) -> None:
        """Restart the worker if it died, and rotate its log.

        Raises:
            ServiceUnavailable: it died too often.
        """
        rotate_log(self.log)
        if self._process.poll() is None:
            return
        if self._starts >= _MOST_STARTS:
            if problem := find_disk_problem(self.log.parent):
                raise ServiceUnavailable(f"the worker died {self._starts} times: {problem}")
            words = f"see {self.log}"
            with contextlib.suppress(OSError):
                words = "\n".join(self.log.read_text("utf-8", errors="replace").splitlines()[-5:])
            raise ServiceUnavailable(f"the worker died {self._starts} times; its last output:\n{words}")
        self._close_log()
        self._process = self._start()

    def stop(self) -> None:
        """Ask it to release its evaluations, and wait. A second Ctrl-C of the user kills it."""
        self._process.terminate()
        try:
            self._process.wait(self._settings.drain_seconds + _KILL_AFTER)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.wait()
        self._close_log()

    def _start(self) -> subprocess.Popen[bytes]:
        self._starts += 1
        environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("DOCV_")}
        with open(self.log, "ab", opener=partial(os.open, mode=0o600)) as log:
            return subprocess.Popen(  # our own command
                [sys.executable, "-P", "-m", "scripts.cli", "worker", "--with-parent"],
                env=environment | self._settings.as_environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches this process only, which stops the worker
                pass_fds=() if self._lock is None else (self._lock,),
            )

    def _close_log(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()


@contextlib.contextmanager
def local_redis(settings: Settings) -> Iterator[tuple[Settings, EmbeddedRedis | None]]:
    """Yield settings that name a Redis: the given one, or an embedded one that runs while the block runs.

    Raises:
        EmbeddedError: no Redis is named and none can be started, or its disk is full by now.
    """
    if settings.redis_url:
        yield settings, None
        return
    with embedded_redis(settings.private_dir) as embedded:
        try:
            yield settings.with_redis(embedded.url), embedded
        except NotPrimary:
            if problem := find_disk_problem(settings.private_dir):
                raise EmbeddedError(problem) from None
            raise


@contextlib.contextmanager
def find_redis(settings: Settings) -> Iterator[Settings]:
    """Yield settings that name the Redis with evaluations under way, for commands that only read or control.

    Raises:
        SettingsError: no Redis is named, and nothing has been run here.
    """
    with find_local_redis(settings) as (here, _):
        yield here


@contextlib.contextmanager
def find_local_redis(settings: Settings) -> Iterator[tuple[Settings, EmbeddedRedis | None]]:
    """Yield the settings as ``find_redis`` does, and the embedded Redis if it is used.

    Raises:
        SettingsError: none is named, and nothing has been run here.
    """
    if settings.redis_url is None and not was_started(settings.private_dir):
        sentence = (
            f"DOCV_REDIS_URL is not set, and nothing has been run here ({settings.state_dir} does not exist): go to "
            "the folder where `docv-archive run` or `backfill` was started, or set DOCV_REDIS_URL to the workers' Redis"
        )
        raise SettingsError((sentence,))
    with local_redis(settings) as found:
        yield found


def run_with_redis(settings: Settings, work: Callable[["Redis"], Coroutine[Any, Any, Result]]) -> Result:
    """Do work with a client of the Redis that ``find_redis`` finds; return its result."""

    async def run(url: str) -> Result:
        async with open_redis(url) as redis:
            await check_redis(redis)
            return await work(redis)

    with find_redis(settings) as here:
        return asyncio.run(run(here.need_redis_url()))


@contextlib.contextmanager
def local_worker(settings: Settings, embedded: EmbeddedRedis | None) -> Iterator[LocalWorker]:
    """Run a worker process while the block runs.

    Raises:
        ServiceUnavailable: the folder for its log cannot be used.
    """
    log = settings.private_dir / "worker.log"
    try:
        make_private(settings.private_dir)
        log.touch(mode=0o600)
    except OSError as error:
        raise ServiceUnavailable(f"{settings.private_dir}: it cannot be used: {explain_disk_error(error)}") from None
    if settings.metrics_port:
        # The configured port is for a worker that runs as a service, which may run here too.
        settings = settings.model_copy(update={"metrics_port": 0})
    worker = LocalWorker(settings, log, embedded.lock if embedded else None)
    try:
        yield worker
    finally:
        worker.stop()
