"""A Redis server that a test may kill, restart, freeze and thaw."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tests.clocks import remove_shared_memory
from worker.clients.embedded_redis import server_binary

_START_SECONDS = 30.0
_SERVICE = "docv"
_QUICK_CLIENT: dict[str, Any] = {
    "decode_responses": True,
    "socket_timeout": 5,
    "socket_connect_timeout": 1,
    "retry": Retry(NoBackoff(), 2),
}


class RedisServer:
    """A server process whose TCP port stays the same after each restart.

    Args:
        folder: for its append-only file and its log.
        options: further options of the server.
        environment: further environment variables.
    """

    def __init__(self, folder: Path, *options: str, environment: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True)
        self._folder, self._options = folder, options
        self._environment = os.environ | dict(environment or {})
        self._process: asyncio.subprocess.Process | None = None
        self.port = _free_port()

    @property
    def url(self) -> str:
        """URL for ``DOCV_REDIS_URL``."""
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self, url: str | None = None) -> Redis:
        """Return a client with short timeouts, of this server or of another URL."""
        return Redis.from_url(url or self.url, **_QUICK_CLIENT)

    def change_port(self) -> None:
        """Make it listen on another port after its next start."""
        self.port = _free_port()

    async def start(self, *options: str) -> None:
        """Start or restart it, with further options, and wait until it answers."""
        with (self._folder / "redis.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                server_binary(),
                *self._arguments(),
                *options,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(_START_SECONDS):
            while not await self._answers():
                assert self._process.returncode is None, (self._folder / "redis.log").read_text()
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """Kill it, as a crash does."""
        self._signal(signal.SIGKILL)
        if self._process:
            await self._process.wait()
            remove_shared_memory(self._process.pid)

    def freeze(self) -> None:
        """Stop the process: connections stay open, but nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the process continue."""
        self._signal(signal.SIGCONT)

    def _arguments(self) -> tuple[str, ...]:
        return (
            *("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder)),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
            *("--maxmemory-policy", "noeviction", "--daemonize", "no", "--loglevel", "warning"),
            *self._options,
        )

    def _signal(self, number: signal.Signals) -> None:
        if self._process and self._process.returncode is None:
            os.kill(self._process.pid, number)

    async def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(b"PING\r\n")
                return (await reader.readline()).startswith((b"+PONG", b"-NOAUTH"))
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        return False


class SentinelServer(RedisServer):
    """A Sentinel: it watches a server, and promotes its replica when it has been down for a second.

    Args:
        folder: for its state and its log.
        service: the name of the watched servers.
        primary: port of the first primary.
        lines: further lines of its configuration.
    """

    def __init__(self, folder: Path, service: str, primary: int, *lines: str) -> None:
        super().__init__(folder)
        self._configuration = folder / "sentinel.conf"
        self._configuration.write_text(
            f"bind 127.0.0.1\nport {self.port}\ndir {folder}\n"
            f"sentinel monitor {service} 127.0.0.1 {primary} 1\n"
            f"sentinel down-after-milliseconds {service} 1000\n"
            f"sentinel failover-timeout {service} 5000\n" + "".join(f"{line}\n" for line in lines)
        )

    def _arguments(self) -> tuple[str, ...]:
        return str(self._configuration), "--sentinel"


class SentinelRedis:
    """Two Redis servers, and a Sentinel that promotes the second if the first fails.

    Args:
        folder: for all of their files.
    """

    def __init__(self, folder: Path) -> None:
        self.first = RedisServer(folder / "first")
        self.second = RedisServer(folder / "second", "--replicaof", "127.0.0.1", str(self.first.port))
        self._watcher = SentinelServer(folder / "watcher", _SERVICE, self.first.port)
        self._sentinel = Sentinel([("127.0.0.1", self._watcher.port)], **_QUICK_CLIENT)  # type: ignore[no-untyped-call]

    @property
    def url(self) -> str:
        """URL for ``DOCV_REDIS_URL``."""
        return f"redis+sentinel://127.0.0.1:{self._watcher.port}/{_SERVICE}/0"

    def client(self) -> Redis:
        """Return a client of the primary with short timeouts."""
        client: Redis = self._sentinel.master_for(_SERVICE)  # type: ignore[no-untyped-call]
        return client

    async def start(self) -> None:
        """Start all of them, and wait until the second follows the first."""
        for server in (self.first, self.second, self._watcher):
            await server.start()
        await self.wait_until_followed()

    async def bring_back_first(self) -> None:
        """Restart the first as a replica of the second; the Sentinel would reconfigure it half a minute later."""
        await self.first.start("--replicaof", "127.0.0.1", str(self.second.port))
        await self.wait_until_followed()

    async def wait_until_followed(self) -> None:
        """Wait until the primary has a replica with all of its writes."""
        async with asyncio.timeout(_START_SECONDS), self.client() as primary:
            while not await self._is_followed(primary):
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """Kill all of them, as a crash does."""
        await self._sentinel.aclose()
        for server in (self._watcher, self.second, self.first):
            await server.kill()

    @staticmethod
    async def _is_followed(primary: Redis) -> bool:
        with contextlib.suppress(RedisError, OSError):
            await primary.set("followed", 1)
            return int(await primary.execute_command("WAIT", 1, 100)) == 1
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
