"""A RiskOS and an S3 that cost next to nothing, so that they are not what is measured.

One process each. A body that arrives is counted and thrown away; an answer is made once and sent again and again.
"""

import asyncio
import json
import random
import signal
import ssl
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import cast

import click
import uvloop

from scripts.simulator.rate import SlidingSecond
from tests.bench.answers import END, NO_KEY, response
from tests.bench.kept_archive import KeptArchive
from tests.bench.sample import bundles, number_of

_BUFFER = memoryview(bytearray(1 << 18))
_NO_DOCUMENTS = b'{"message": "No Documents Found"}'
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class RiskOS:
    """Answers with bundles; or, at most so many a second, and otherwise 429.

    Args:
        rate: requests that it allows in any second, 0 for as many as may come.
        documents: whether there are any; else it says that there are none.
    """

    def __init__(self, rate: int, *, documents: bool) -> None:
        self.counts: Counter[str] = Counter()
        self._rate = rate
        self._arrived, self._allowed = SlidingSecond(), SlidingSecond()
        self._bundles = [_zip(data) for data in bundles()] if documents else []

    def __call__(self, _method: str, path: str, _query: str) -> bytes:
        """Return the answer to a request."""
        now = time.monotonic()
        if self._rate and not self._allow(now):
            self.counts["refused"] += 1
            return self._with_headers(response(429, b"{}", "application/json"), now)
        self.counts["allowed"] += 1
        if not self._bundles:
            return self._with_headers(response(400, _NO_DOCUMENTS, "application/json"), now)
        return self._with_headers(self._bundles[number_of(path.split("/")[3])], now)

    def _with_headers(self, answer: bytes, now: float) -> bytes:
        """Return an answer that says what is left of the rate, as RiskOS's do."""
        if not self._rate:
            return answer
        left = self._rate - self._allowed.count(now)
        said = f"\r\nX-Ratelimit-Limit-Window: {self._rate}\r\nX-Ratelimit-Remaining-Window: {left}\r\n"
        return answer.replace(b"\r\n", said.encode(), 1)

    def _allow(self, now: float) -> bool:
        self._arrived.add(now)
        self.counts["worst_second"] = self._arrived.worst
        if self._allowed.count(now) >= self._rate:
            return False
        self._allowed.add(now)
        return True


class S3:
    """Takes every object and has none."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __call__(self, method: str, path: str, _query: str) -> bytes:
        """Return the answer to a request."""
        if method != "PUT":
            self.counts["looks"] += 1
            return NO_KEY
        self.counts["manifests" if path.endswith("manifest.json") else "documents"] += 1
        return _STORED


class _Connection(asyncio.BufferedProtocol):
    """One connection; what arrives on any of them passes through one buffer."""

    def __init__(self, server: RiskOS | S3 | KeptArchive, latency: Callable[[], float]) -> None:
        self._server, self._latency = server, latency
        self._head = b""
        self._left = 0
        self._request: tuple[str, str, str] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none by their class.
        self._transport = cast("asyncio.WriteTransport", transport)

    def get_buffer(self, _size: int) -> memoryview:
        return _BUFFER

    def buffer_updated(self, count: int) -> None:
        at = 0
        while at < count:
            if self._request is None:
                at = self._read_head(at, count)
            passed = min(self._left, count - at)
            self._left -= passed
            at += passed
            if self._request and not self._left:
                self._answer(*self._request)
                self._request = None

    def _read_head(self, at: int, count: int) -> int:
        """Take what belongs to a head; return where it ends."""
        before = len(self._head)
        self._head += _BUFFER[at:count]
        end = self._head.find(END)
        if end < 0:
            return count
        head, self._head = self._head[:end], b""
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        path, _, query = path.partition("?")
        self._request = method, path, query
        lower = head.lower()
        length = lower.find(b"\r\ncontent-length:")
        self._left = int(lower[length + 17 :].split(b"\r\n", 1)[0]) if length >= 0 else 0
        if b"expect: 100" in lower:
            self._transport.write(_CONTINUE)
        return at + end + len(END) - before

    def _answer(self, method: str, path: str, query: str) -> None:
        if path == "/counts":
            self._send(response(200, json.dumps(self._server.counts).encode(), "application/json"))
            return
        answer, latency = self._server(method, path, query), self._latency()
        if latency:
            asyncio.get_running_loop().call_later(latency, self._send, answer)
        else:
            self._send(answer)

    def _send(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


def _zip(data: bytes) -> bytes:
    return response(200, data, "application/zip")


_STORED = response(200, b"", "text/plain", 'ETag: "1"')


async def _serve(server: RiskOS | S3 | KeptArchive, latency: Callable[[], float], tls: ssl.SSLContext | None) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    listener = await loop.create_server(lambda: _Connection(server, latency), "127.0.0.1", 0, ssl=tls, backlog=512)
    click.echo(listener.sockets[0].getsockname()[1])
    await ended.wait()


@click.command()
@click.argument("role", type=click.Choice(["riskos", "s3", "archive"]))
@click.option("--latency", default=0.0, help="Seconds before each answer.")
@click.option("--jitter", default=0.0, help="Seconds by which that is more or less.")
@click.option("--rate", default=0, help="Requests that RiskOS allows in any second.")
@click.option("--no-documents", is_flag=True, help="RiskOS has no documents for anybody.")
@click.option("--folder", type=Path, help="The archive is what is in this folder.")
@click.option("--certificate", type=(Path, Path), help="Speak TLS with this certificate and key.")
def main(
    *,
    role: str,
    latency: float,
    jitter: float,
    rate: int,
    no_documents: bool,
    folder: Path,
    certificate: tuple[Path, Path] | None,
) -> None:
    """Be a RiskOS, an S3 that takes everything, or one that has an archive; print the port."""
    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*certificate)
    server: RiskOS | S3 | KeptArchive
    match role:
        case "riskos":
            server = RiskOS(rate, documents=not no_documents)
        case "archive":
            server = KeptArchive(folder)
        case _:
            server = S3()
    uvloop.run(_serve(server, lambda: latency and random.uniform(latency - jitter, latency + jitter), tls))  # noqa: S311


if __name__ == "__main__":
    main()
