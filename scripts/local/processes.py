"""A worker of our own beside a command: a real process, started again when it dies, stopped when we end."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from redis.asyncio import Redis

from worker.clients.embedded_redis import EmbeddedRedis, embedded_redis
from worker.clients.errors import ServiceUnavailable
from worker.clients.redis import check_redis, open_redis
from worker.config.settings import Settings, SettingsError

Result = TypeVar("Result")
_KILL_AFTER = 5.0
_MOST_STARTS = 5


class LocalWorker:
    """One worker process.

    Args:
        settings: its settings; they travel in its environment.
        log: file its log lines are appended to.
        lock: descriptor of the embedded Redis's lock, which it holds with us; None for another Redis.
    """

    def __init__(self, settings: Settings, log: Path, lock: int | None) -> None:
        self._settings, self._log, self._lock = settings, log, lock
        self._starts = 0
        self._process = self._start()

    def check_alive(self) -> None:
        """Start it again if it died.

        Raises:
            ServiceUnavailable: it dies again and again.
        """
        if self._process.poll() is None:
            return
        if self._starts >= _MOST_STARTS:
            words = f"see {self._log}"
            with contextlib.suppress(OSError):
                words = "\n".join(self._log.read_text("utf-8", errors="replace").splitlines()[-5:])
            raise ServiceUnavailable(f"the worker died {self._starts} times; its last words:\n{words}")
        self._close_log()
        self._process = self._start()

    def stop(self) -> None:
        """Tell it to hand back what it has, and wait; told twice (by the user's second Ctrl-C), kill it."""
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
        with self._log.open("ab") as log:
            return subprocess.Popen(  # our own command
                [sys.executable, "-m", "scripts.cli", "worker", "--with-parent"],
                env=environment | self._settings.as_environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is meant for us; we tell it
                pass_fds=() if self._lock is None else (self._lock,),
            )

    def _close_log(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()


@contextlib.contextmanager
def local_redis(settings: Settings) -> Iterator[tuple[Settings, EmbeddedRedis | None]]:
    """Yield settings that name a Redis: the given one, or an embedded one for as long as the block lasts.

    Raises:
        EmbeddedError: there is none, and none can be started.
    """
    if settings.redis_url:
        yield settings, None
        return
    with embedded_redis(settings.state_dir) as embedded:
        yield settings.with_redis(embedded.url), embedded


@contextlib.contextmanager
def find_redis(settings: Settings) -> Iterator[Settings]:
    """Yield settings that name the Redis something is under way in; for commands that only look, or steer.

    Raises:
        SettingsError: none is named, and nothing has been run here.
    """
    if settings.redis_url is None and not (settings.state_dir / "redis.users").exists():
        raise SettingsError(
            (f"DOCV_REDIS_URL is not set, and nothing has been run here ({settings.state_dir} does not exist)",)
        )
    with local_redis(settings) as (here, _):
        yield here


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
    """Have a worker process for as long as the block lasts."""
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if settings.metrics_port:
        # The port is that of a worker that is a service; both may run here at once.
        settings = settings.model_copy(update={"metrics_port": 0})
    worker = LocalWorker(settings, settings.state_dir / "worker.log", embedded.lock if embedded else None)
    try:
        yield worker
    finally:
        worker.stop()
