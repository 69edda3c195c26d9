"""A wire that can be watched and cut: TCP from a worker to a service, through this process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

_CHUNK = 1 << 16


class Proxy:
    """Carries bytes between whoever connects and one service; made by ``proxy_to``.

    A reply is what the service sends in one piece.

    Attributes:
        port: where it listens.
        replies: how many replies of the service came back until now.
        fuse: the reply that is not passed on; None passes all of them on.
        blown: called instead of passing that reply on.
    """

    def __init__(self, host: str, port: int) -> None:
        self._service = (host, port)
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._cut = False
        self.port = 0
        self.replies = 0
        self.fuse: int | None = None
        self.blown: Callable[[], None] = lambda: None

    async def listen(self) -> None:
        """Begin to carry."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """End every connection and refuse all others, until it is mended."""
        self._cut = True
        for writer in self._open.values():
            writer.transport.abort()

    def mend(self) -> None:
        """Carry again."""
        self._cut = False

    async def close(self) -> None:
        """End every connection and stop listening."""
        self.cut()
        if self._server:
            self._server.close()
        for task in tuple(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if self._cut or task is None:
            writer.transport.abort()
            return
        self._open[task] = writer
        try:
            await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # either side is gone, and so is the wire
        finally:
            writer.transport.abort()
            del self._open[task]

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._service)
        try:
            ways = {
                asyncio.ensure_future(_forward(reader, back)),
                asyncio.ensure_future(self._reply(there, writer)),
            }
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            back.transport.abort()

    async def _reply(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await there.read(_CHUNK):
            self.replies += 1
            if self.replies == self.fuse:
                self.blown()
                return
            writer.write(data)
            await writer.drain()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()


@contextlib.asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    """Have a wire to a port of this machine."""
    proxy = Proxy("127.0.0.1", port)
    await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.close()
