"""A proxy that decrypts TLS connections: it records each request and answers instead of the server."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.tls import server_context

_SECONDS = 10.0
_END = b"\r\n\r\n"
_MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class ProxiedRequest:
    """A request that the proxy received; names of headers in lower case."""

    host: str
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class TlsProxy:
    """The proxy.

    Attributes:
        authority: file of the authority that signed its certificate.
        url: of the proxy.
        requests: that it received, in order.
    """

    authority: Path
    url: str = ""
    requests: list[ProxiedRequest] = field(default_factory=list)


@contextlib.contextmanager
def tls_proxy(folder: Path, *hosts: str) -> Iterator[TlsProxy]:
    """Run a proxy until the block ends; it answers 404 instead of these hosts."""
    context, authority = server_context(folder, *hosts)
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = TlsProxy(authority, "http://{}:{}".format(*listener.getsockname()))

    def serve(connection: socket.socket) -> None:
        connection.settimeout(_SECONDS)
        with contextlib.suppress(OSError), connection:
            host = _read_head(connection).split()[1].partition(":")[0]
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with context.wrap_socket(connection, server_side=True) as client:
                proxy.requests.append(_parse(host, _read_head(client)))
                client.sendall(_MISSING)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield proxy
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _read_head(connection: socket.socket | ssl.SSLSocket) -> str:
    head = b""
    while _END not in head:
        data = connection.recv(1 << 16)
        if not data:
            raise ConnectionError
        head += data
    return head.partition(_END)[0].decode()


def _parse(host: str, head: str) -> ProxiedRequest:
    first, *lines = head.split("\r\n")
    method, path, _ = first.split()
    named = (line.partition(": ") for line in lines)
    return ProxiedRequest(host, method, path, {name.lower(): value for name, _, value in named})
