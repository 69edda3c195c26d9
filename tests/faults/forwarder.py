"""Redis servers behind one address, like a managed Redis: the address moves, and old connections stay open."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from redis.asyncio import Redis

from tests.faults.proxy import Proxy
from tests.faults.redis_server import RedisServer
from worker.clients.primary import async_primary_only

_FOLLOWS_SECONDS = 30.0
_PAUSE_MILLISECONDS = 10_000
_AT_ONCE = ("--repl-diskless-sync-delay", "0")


class RedisFailover:
    """A primary and its replicas behind a forwarder with their common address.

    Args:
        folder: for the files of all servers.
        replicas: how many follow the primary.

    Attributes:
        primary: the server that takes writes.
        replicas: the servers that follow it.
    """

    def __init__(self, folder: Path, replicas: int = 1) -> None:
        self.primary = RedisServer(folder / "redis-0", *_AT_ONCE)
        self.replicas = [RedisServer(folder / f"redis-{number}", *_AT_ONCE) for number in range(1, replicas + 1)]
        self._proxy = Proxy("127.0.0.1", self.primary.port)

    @property
    def url(self) -> str:
        """URL for ``DOCV_REDIS_URL``."""
        return f"redis://127.0.0.1:{self._proxy.port}/0"

    def client(self) -> Redis:
        """Return a client that connects through the forwarder."""
        client = self.primary.client(self.url)
        client.connection_pool.connection_class = async_primary_only(client.connection_pool.connection_class)
        return client

    async def start(self) -> None:
        """Start all servers, and wait until the replicas follow."""
        await self._proxy.listen()
        await self.primary.start()
        for replica in self.replicas:
            await replica.start(*self._following())
        await self.wait_until_followed()

    async def demote(self) -> None:
        """Make a replica the primary as soon as it has every write, and the primary its replica."""
        async with self.primary.client() as old, self.replicas[0].client() as new:
            await old.execute_command("CLIENT", "PAUSE", _PAUSE_MILLISECONDS, "WRITE")
            await _wait_until_equal(old, new)
            former = self.primary
            await self.promote()
            await self.follow(former)
            await old.execute_command("CLIENT", "UNPAUSE")
        await self.wait_until_followed()

    async def promote(self) -> None:
        """Make the first replica the primary of the others, without notifying the former primary."""
        self.primary, *self.replicas = self.replicas
        async with self.primary.client() as new:
            await new.execute_command("REPLICAOF", "NO", "ONE")
        for replica in self.replicas:
            await self._point_at_primary(replica)

    async def follow(self, server: RedisServer) -> None:
        """Make a running server a replica of the primary."""
        await self._point_at_primary(server)
        self.replicas.append(server)

    async def start_again(self, server: RedisServer) -> None:
        """Start a killed server as a replica of the primary."""
        await server.start(*self._following())
        self.replicas.append(server)

    async def restart_elsewhere(self) -> None:
        """Kill the primary, and start it at another address."""
        await self.primary.kill()
        self.primary.change_port()
        await self.primary.start()
        for replica in self.replicas:
            await self._point_at_primary(replica)

    def move_name(self) -> None:
        """Forward new connections to the primary; open ones are not moved."""
        self._proxy.move(self.primary.port)

    async def wait_until_followed(self) -> None:
        """Wait until the replicas have all writes of the primary."""
        async with asyncio.timeout(_FOLLOWS_SECONDS), self.primary.client() as primary:
            wanted = len(self.replicas)
            await primary.set("followed", 1)
            while int(await primary.execute_command("WAIT", wanted, 100)) < wanted:
                await primary.set("followed", 1)

    async def kill(self) -> None:
        """Kill all servers and the forwarder."""
        await self._proxy.close()
        for server in (self.primary, *self.replicas):
            await server.kill()

    def _following(self) -> tuple[str, ...]:
        return "--replicaof", "127.0.0.1", str(self.primary.port)

    async def _point_at_primary(self, server: RedisServer) -> None:
        async with server.client() as client:
            await client.execute_command("REPLICAOF", "127.0.0.1", self.primary.port)


@contextlib.asynccontextmanager
async def running_failover(folder: Path) -> AsyncIterator[RedisFailover]:
    """Run two servers behind one address until the block ends."""
    redises = RedisFailover(folder)
    try:
        await redises.start()
        yield redises
    finally:
        await redises.kill()


async def _wait_until_equal(old: Redis, new: Redis) -> None:
    async with asyncio.timeout(_FOLLOWS_SECONDS):
        while (await old.info("replication"))["master_repl_offset"] != (await new.info("replication"))[
            "slave_repl_offset"
        ]:
            await asyncio.sleep(0.01)
