"""A RiskOS and an S3 that use little processor time, so that they do not limit the contestants.

Each is a process. Bodies of requests are read and thrown away; each answer is made once and sent many times.
"""

import asyncio
import json
import random
import signal
import ssl
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import click
import uvloop

from scripts.simulator.rate import SlidingSecond
from tests.bench.answers import CONDITION_FAILED, END, NO_KEY, response
from tests.bench.kept_archive import KeptArchive
from tests.bench.sample import LARGE_ID, SIZES, bundle_number, make_bundles, make_large_bundle

_BUFFER = memoryview(bytearray(1 << 18))
# A worker starts only if S3 refuses this object, whose condition is never met.
_PROBE = "probe/conditional-write"
_NO_DOCUMENTS = b'{"message": "No Documents Found"}'
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class RiskOS:
    """Answer with bundles, or with 429 if the rate is exceeded.

    Args:
        rate: requests that it allows in any second; 0 for any number.
        bundles: of the evaluations; if there are none, it answers that there are no documents.
        large: the bundle of ``LARGE_ID``.
    """

    def __init__(self, rate: int, bundles: Sequence[bytes], large: bytes = b"") -> None:
        self.counts: Counter[str] = Counter()
        self._rate = rate
        self._arrived, self._allowed = SlidingSecond(), SlidingSecond()
        self._bundles = [_zip(data) for data in bundles]
        self._large = _zip(large)

    def __call__(self, _method: str, path: str, _query: str) -> bytes:
        """Return the answer to a request."""
        now = time.monotonic()
        if self._rate and not self._allow(now):
            self.counts["refused"] += 1
            return self._with_headers(response(429, b"{}", "application/json"), now)
        self.counts["allowed"] += 1
        if not self._bundles:
            return self._with_headers(response(400, _NO_DOCUMENTS, "application/json"), now)
        eval_id = path.split("/")[3]
        bundle = self._bundles[bundle_number(eval_id, len(self._bundles))] if eval_id != LARGE_ID else self._large
        return self._with_headers(bundle, now)

    def _with_headers(self, answer: bytes, now: float) -> bytes:
        """Return an answer with RiskOS's headers for the rate and its remaining requests."""
        if not self._rate:
            return answer
        left = self._rate - self._allowed.count(now)
        headers = f"\r\nX-Ratelimit-Limit-Window: {self._rate}\r\nX-Ratelimit-Remaining-Window: {left}\r\n"
        return answer.replace(b"\r\n", headers.encode(), 1)

    def _allow(self, now: float) -> bool:
        self._arrived.add(now)
        self.counts["worst_second"] = self._arrived.worst
        if self._allowed.count(now) >= self._rate:
            return False
        self._allowed.add(now)
        return True


class S3:
    """Accept every object, and keep none."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __call__(self, method: str, path: str, _query: str) -> bytes:
        """Return the answer to a request."""
        if method != "PUT":
            self.counts["looks"] += 1
            return NO_KEY
        if path.endswith(_PROBE):
            return CONDITION_FAILED
        self.counts["manifests" if path.endswith("manifest.json") else "documents"] += 1
        return _STORED


class _Connection(asyncio.BufferedProtocol):
    """A connection; all connections share one buffer."""

    def __init__(self, server: RiskOS | S3 | KeptArchive, latency: Callable[[], float]) -> None:
        self._server, self._latency = server, latency
        self._head = b""
        self._left = 0
        self._request: tuple[str, str, str] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Transports of uvloop do not inherit from asyncio.WriteTransport.
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
        """Add bytes to the head of a request; return where the head ends."""
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
@click.option("--jitter", default=0.0, help="Seconds by which the latency varies.")
@click.option("--rate", default=0, help="Requests that RiskOS allows in any second.")
@click.option("--no-documents", is_flag=True, help="RiskOS has no documents for any evaluation.")
@click.option("--size", "sizes", type=float, multiple=True, default=SIZES[:1], help="MB of the bundles of RiskOS.")
@click.option("--large", is_flag=True, help="RiskOS has one bundle of 200 MB as well.")
@click.option("--folder", type=Path, help="Folder of the archive to serve.")
@click.option("--certificate", type=(Path, Path), help="Use TLS with this certificate and key.")
def main(  # noqa: PLR0913  # each is an option of the command
    *,
    role: str,
    latency: float,
    jitter: float,
    rate: int,
    no_documents: bool,
    sizes: tuple[float, ...],
    large: bool,
    folder: Path,
    certificate: tuple[Path, Path] | None,
) -> None:
    """Serve as RiskOS, as an S3 that accepts every object, or as the S3 of an archive; print the port."""
    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*certificate)
    server: RiskOS | S3 | KeptArchive
    match role:
        case "riskos":
            bundles = [] if no_documents else [bundle for size in sizes for bundle in make_bundles(size)]
            server = RiskOS(rate, bundles, make_large_bundle() if large else b"")
        case "archive":
            server = KeptArchive(folder)
        case _:
            server = S3()
    uvloop.run(_serve(server, lambda: latency and random.uniform(latency - jitter, latency + jitter), tls))  # noqa: S311


if __name__ == "__main__":
    main()
