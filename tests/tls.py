"""A TLS server that records what clients send, and can forward it to a service without TLS."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.bench.certificate import write_certificate

_SECONDS = 10.0
_CLIENT_HELLO = b"\x16"


class TlsServer:
    """Accept connections at 127.0.0.1; made by ``tls_server``.

    Attributes:
        port: of the listener.
        received: the first bytes of each connection whose client trusted the certificate.
        ended: how many connections with TLS have ended, for any reason.
    """

    def __init__(self, context: ssl.SSLContext, service: int | None) -> None:
        self._context, self._service = context, service
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.received: list[bytes] = []
        self.ended = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Close the listener."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(_SECONDS)
        # Sentinel connects to its primary without TLS.
        has_tls = connection.recv(1, socket.MSG_PEEK) == _CLIENT_HELLO
        try:
            with self._context.wrap_socket(connection, server_side=True) if has_tls else connection as client:
                data = client.recv(1 << 16)
                if has_tls and data:
                    self.received.append(data)
                if self._service is not None:
                    self._forward(client, data)
        except OSError:
            connection.close()  # the client does not trust the certificate, or has ended
        self.ended += has_tls

    def _forward(self, client: socket.socket, data: bytes) -> None:
        assert self._service is not None
        with socket.create_connection(("127.0.0.1", self._service)) as service:
            service.sendall(data)
            threading.Thread(target=_copy, args=(service, client), daemon=True).start()
            _copy(client, service)


def _copy(source: socket.socket, target: socket.socket) -> None:
    source.settimeout(None)
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def server_context(folder: Path, *names: str) -> tuple[ssl.SSLContext, Path]:
    """Return the context of a server with a certificate for these names, and the file of its authority."""
    authority, certificate, key = write_certificate(folder, *names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, authority


@contextlib.contextmanager
def tls_server(context: ssl.SSLContext, service: int | None = None) -> Iterator[TlsServer]:
    """Run a server until the block ends.

    Args:
        context: of the server.
        service: port of the service to forward to; if None, each connection ends after the first bytes.
    """
    server = TlsServer(context, service)
    try:
        yield server
    finally:
        server.close()
