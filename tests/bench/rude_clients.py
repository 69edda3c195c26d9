"""Clients that a server has to withstand: slow ones, silent ones, and ones that send requests without pause."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

SLOW, SILENT, GREEDY = 150, 150, 4
_AT_ONCE = 50
_Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def rude_clients(url: str, token: str) -> AsyncIterator[Counter[str]]:
    """Let all of them connect to a server, and reconnect after the server closes the connection.

    Args:
        url: of the server.
        token: of the greedy ones, which read its description of the API.

    Yields:
        how many answers the greedy ones have received.
    """
    host, port = url.removeprefix("http://").split(":")
    answers: Counter[str] = Counter()
    request = f"GET /openapi.json HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()

    async def send_without_pause(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(request * _AT_ONCE)
            for _ in range(_AT_ONCE):
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(maxsplit=1)[0]))
                answers["greedy"] += 1

    async def reconnect(behave: _Behaviour) -> None:
        while True:
            with contextlib.suppress(OSError, EOFError):
                reader, writer = await asyncio.open_connection(host, int(port))
                with contextlib.closing(writer):
                    await behave(reader, writer)
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(reconnect(behave))
            for behave, count in ((_send_bytewise, SLOW), (_stay_silent, SILENT), (send_without_pause, GREEDY))
            for _ in range(count)
        ]
        yield answers
        for each in tasks:
            each.cancel()


async def _send_bytewise(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in itertools.cycle(b"GET / HTTP/1.1\r\nX-Filler: "):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.5)


async def _stay_silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()
