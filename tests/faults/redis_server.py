"""A Redis server that a test may kill, start again, freeze and thaw."""

import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path

from worker.embedded import server_binary

_START_SECONDS = 30.0


class RedisServer:
    """A server process on a TCP port of this machine that stays the same for its whole life.

    Args:
        folder: where its append-only file and its log are.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self.port = _free_port()

    @property
    def url(self) -> str:
        """URL for ``DOCV_REDIS_URL``."""
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Start it, for the first time or again, and wait until it answers."""
        with (self._folder / "redis.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                server_binary(),
                *("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder)),
                *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
                *("--maxmemory-policy", "noeviction", "--daemonize", "no", "--loglevel", "warning"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(_START_SECONDS):
            while not await self._answers():
                assert self._process.returncode is None, (self._folder / "redis.log").read_text()
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """End it as a crash does."""
        self._signal(signal.SIGKILL)
        if self._process:
            await self._process.wait()

    def freeze(self) -> None:
        """Let it stand still: connections stay, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process and self._process.returncode is None:
            os.kill(self._process.pid, number)

    async def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(b"PING\r\n")
                return (await reader.readline()).startswith(b"+PONG")
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
