"""A TCP proxy from a worker to a service, whose connections a test can watch and cut."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

_CHUNK = 1 << 16


class Proxy:
    """Forwards each connection to one service; made by ``proxy_to``.

    A reply is what the service sends in one piece.

    Attributes:
        port: the port of the proxy.
        replies: how many replies have come from the service.
        dropped_reply: number of the reply that is not forwarded; None forwards all.
        on_drop: called instead of forwarding that reply.
        delay: seconds by which each piece for the service is delayed.
    """

    def __init__(self, host: str, port: int) -> None:
        self._service = (host, port)
        self._server: asyncio.Server | None = None
        # This socket keeps the port while the proxy does not listen.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._cut = False
        self.port = 0
        self.replies = 0
        self.dropped_reply: int | None = None
        self.on_drop: Callable[[], None] = lambda: None
        self.delay = 0.0

    async def listen(self) -> None:
        """Listen again, at the same port."""
        self.restore()
        if not self.port:
            self._holder.bind(("127.0.0.1", 0))
            self.port = self._holder.getsockname()[1]
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_port=True)

    def cut(self) -> None:
        """End every connection and close new ones at once, until ``restore``."""
        self._cut = True
        for writer in self._open.values():
            writer.transport.abort()

    def refuse(self) -> None:
        """End every connection and stop listening, so that new ones are refused until ``listen``."""
        self.cut()
        if self._server:
            self._server.close()

    def restore(self) -> None:
        """Forward new connections again."""
        self._cut = False

    def move(self, port: int) -> None:
        """Forward new connections to another service; open ones stay where they are."""
        self._service = (self._service[0], port)

    async def close(self) -> None:
        """End every connection and stop listening."""
        self.cut()
        if self._server:
            self._server.close()
        self._holder.close()
        for task in tuple(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if self._cut or task is None:
            writer.transport.abort()
            return
        self._open[task] = writer
        try:
            await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # one side is closed, so this connection ends
        finally:
            writer.transport.abort()
            del self._open[task]

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_service, to_service = await asyncio.open_connection(*self._service)
        try:
            directions = {
                asyncio.ensure_future(self._forward(reader, to_service)),
                asyncio.ensure_future(self._reply(from_service, writer)),
            }
            try:
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for direction in directions:
                    direction.cancel()
                await asyncio.gather(*directions, return_exceptions=True)
        finally:
            to_service.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await asyncio.sleep(self.delay)
            writer.write(data)
            await writer.drain()

    async def _reply(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            self.replies += 1
            if self.replies == self.dropped_reply:
                self.on_drop()
                return
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    """Run a proxy to a port of this machine."""
    proxy = Proxy("127.0.0.1", port)
    await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.close()
