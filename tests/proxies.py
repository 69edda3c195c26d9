"""An HTTP proxy for tests: it records the first line and the headers of each request."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

_END = b"\r\n\r\n"


@dataclass
class HttpProxy:
    """The proxy.

    Attributes:
        url: of the proxy.
        requests: the head of each request.
    """

    url: str = ""
    requests: list[str] = field(default_factory=list)


@contextlib.asynccontextmanager
async def http_proxy(answer: bytes | None = None, login: str | None = None) -> AsyncIterator[HttpProxy]:
    """Start a proxy.

    Args:
        answer: the answer to each request; if None, the proxy forwards requests without a body, and opens tunnels.
        login: ``user:password``; the proxy answers 407 to requests without it.
    """
    proxy = HttpProxy()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(_END)
            proxy.requests.append(head.decode())
            if not _is_allowed(head, login):
                writer.write(b'HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm="here"\r\nContent-Length: 0\r\n\r\n')
            elif answer is None and head.startswith(b"CONNECT "):
                await _tunnel(head, reader, writer)
            else:
                writer.write(answer if answer is not None else await _forward_request(head))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        proxy.url = "http://127.0.0.1:{1}".format(*server.sockets[0].getsockname())
        yield proxy


async def _forward_request(head: bytes) -> bytes:
    """Send a request to its server over a new connection, and return the beginning of the answer."""
    method, url, rest = head.split(b" ", 2)
    host, _, path = url.removeprefix(b"http://").partition(b"/")
    name, _, port = host.decode().partition(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    writer.write(b" ".join((method, b"/" + path, rest)))
    answer = await reader.read(1 << 16)
    writer.close()
    return answer


def _is_allowed(head: bytes, login: str | None) -> bool:
    return login is None or b"\r\nProxy-Authorization: Basic " + base64.b64encode(login.encode()) + b"\r\n" in head


async def _tunnel(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward bytes in both directions until one side closes its connection."""
    name, _, port = head.split(b" ")[1].decode().partition(":")
    server_reader, server_writer = await asyncio.open_connection(name, int(port))
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    both = [asyncio.create_task(_copy(reader, server_writer)), asyncio.create_task(_copy(server_reader, writer))]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    for each in both:
        each.cancel()
    server_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
