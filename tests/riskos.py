"""Servers with scripted answers, for tests of answers that neither the simulator nor moto gives."""

import asyncio
import contextlib
import enum
import hashlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import aiohttp
from pydantic import SecretStr
from redis.asyncio import Redis

from tasks.model.account import Account, Allowance
from tasks.resilience.adaptive_rate import AdaptiveRate
from tasks.resilience.circuit_breaker import CircuitBreaker
from tasks.resilience.holds import Holds, hold_key
from tasks.resilience.permission import PermissionMonitor
from tasks.resilience.rate_limiter import RateLimiter
from tasks.resilience.retry import RetryPolicy
from tasks.riskos.client import RiskOSClient
from tasks.riskos.download import DownloadOptions

KEY = "key-of-the-tests"
_SHORT_SECONDS = 0.5
_BLOCK = bytes(1 << 16)
_MOST_SENT = 64 << 20


class Then(enum.Enum):
    """What happens to the connection after a reply."""

    STAY = enum.auto()
    """It stays open for the next request."""
    CLOSE = enum.auto()
    """It is closed."""
    RESET = enum.auto()
    """It is reset."""
    HANG = enum.auto()
    """It stays open, and the server sends nothing more."""
    SEND_ENDLESSLY = enum.auto()
    """The server sends zeros until the client closes the connection."""


@dataclass(frozen=True)
class Reply:
    """The bytes of one response, valid or not, and what happens to the connection afterwards."""

    data: bytes
    then: Then = Then.STAY


@dataclass(frozen=True)
class ReceivedRequest:
    """One request as it was received; names of headers in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


Answer = Callable[[ReceivedRequest], Reply | Awaitable[Reply]]


@dataclass
class Server:
    """A running server.

    Attributes:
        url: of the server.
        requests: the requests that it received.
        sent: the zeros that it sent for ``Then.SEND_ENDLESSLY``.
    """

    url: str
    requests: list[ReceivedRequest] = field(default_factory=list)
    sent: int = 0


def http(
    status: int, body: bytes = b"", *, promised: int | None = None, headers: Mapping[str, str | bytes] | None = None
) -> bytes:
    """Return a response.

    Args:
        status: of the response.
        body: of the response.
        promised: the ``Content-Length``, if it is not that of the body.
        headers: values may be bytes that are not text.
    """
    promised = len(body) if promised is None else promised
    lines = [f"HTTP/1.1 {status} OK".encode(), f"Content-Length: {promised}".encode()]
    for name, value in (headers or {}).items():
        lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()))
    return b"\r\n".join([*lines, b"", body])


def bundle_reply(body: bytes, disposition: str | bytes | None = None) -> bytes:
    """Return a response with a bundle, as RiskOS sends it."""
    named = {} if disposition is None else {"Content-Disposition": disposition}
    return http(200, body, headers={"Content-Type": "application/zip", **named})


def json_reply(status: int, body: bytes, **headers: str) -> bytes:
    """Return an error, as RiskOS sends it; an underscore in a header's name stands for a hyphen."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return http(status, body, headers={"Content-Type": "application/json", **named})


def account_at(url: str, *, api_version: str | None = None) -> Account:
    """Return an account of a RiskOS in a test, with a rate that does not limit it."""
    allowance = Allowance(rate=10_000.0, burst=1_000, backfill_share=1.0)
    return Account("default", "sandbox", url, SecretStr(KEY), api_version, allowance)


@dataclass
class Clock:
    """A clock on which each wait ends at once.

    Attributes:
        redis: where holds are.
        waits: seconds of each wait, except short ones.
    """

    redis: "Redis"
    waits: list[float] = field(default_factory=list)
    _rate_limiter: RateLimiter = field(init=False)

    def __post_init__(self) -> None:
        self._rate_limiter = RateLimiter(self.redis, self.sleep)

    async def sleep(self, seconds: float) -> None:
        """Wait for a permit, or for the end of a hold."""
        if seconds > _SHORT_SECONDS:
            self.waits.append(seconds)
            await self.let_time_pass()

    async def let_time_pass(self) -> None:
        """Let time pass until every hold is over, or due for its probe."""
        async for key in self.redis.scan_iter(match=hold_key("*")):
            if await self.redis.hexists(key, "pause"):
                await self.redis.hset(key, "until", 0)
            else:
                await self.redis.delete(key)
            self._rate_limiter.set_hold(key.removeprefix(hold_key("")), 0.0)

    def make_client(
        self, url: str, http: aiohttp.ClientSession, terms: DownloadOptions, policy: RetryPolicy
    ) -> RiskOSClient:
        """Return a RiskOS client that waits on this clock."""
        account, holds = account_at(url), Holds(self.redis)
        pace = AdaptiveRate(self.redis, account.name, account.allowance, holds)
        breaker = CircuitBreaker(self.redis, account.name, holds)
        permissions = PermissionMonitor(self.redis, account.name)
        return RiskOSClient(http, account, self._rate_limiter, holds, pace, breaker, permissions, terms, policy)


@contextlib.asynccontextmanager
async def serve_replies(*replies: Reply | bytes) -> AsyncIterator[Server]:
    """Listen, and answer requests with these replies in order; the last one is repeated."""
    script = [reply if isinstance(reply, Reply) else Reply(reply) for reply in replies]
    left = iter(script)
    async with serve_requests(lambda _: next(left, script[-1])) as server:
        yield server


@contextlib.asynccontextmanager
async def serve_requests(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Listen, and answer each request with the result of a callable."""
    server = Server("")
    connections: dict[asyncio.Task[None], asyncio.WriteTransport] = {}
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        connections[task] = writer.transport
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while (then := await _exchange(server, answer, reader, writer)) is Then.STAY:
                pass
            if then is Then.HANG:
                await ended.wait()
        writer.transport.abort()
        del connections[task]

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    host, port = listener.sockets[0].getsockname()
    server.url = f"{'https' if tls else 'http'}://{host}:{port}"
    try:
        yield server
    finally:
        ended.set()
        listener.close()
        for connection in connections.values():
            connection.abort()
        await asyncio.gather(*connections)
        await listener.wait_closed()


async def _exchange(server: Server, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Then:
    """Answer one request; return what happens to the connection."""
    request = await _request(reader)
    server.requests.append(request)
    result = answer(request)
    reply = result if isinstance(result, Reply) else await result
    writer.write(reply.data)
    await writer.drain()
    match reply.then:
        case Then.CLOSE:
            writer.close()
            await writer.wait_closed()
        case Then.RESET:
            no_linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
        case Then.SEND_ENDLESSLY:
            while server.sent < _MOST_SENT:
                writer.write(_BLOCK)
                server.sent += len(_BLOCK)
                await writer.drain()
    return reply.then


async def _request(reader: asyncio.StreamReader) -> ReceivedRequest:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, *lines = head.rstrip().split("\r\n")
    method, path, _ = line.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return ReceivedRequest(method, path, headers, body)


@dataclass(frozen=True)
class Write:
    """How ``ScriptedS3`` treats one write.

    Attributes:
        stores: whether it stores the object.
        reply: its answer; None for the answer of S3.
    """

    stores: bool
    reply: Reply | None = None


class S3State(enum.Enum):
    """The states of ``ScriptedS3``."""

    FINE = enum.auto()
    """It works."""
    DOWN = enum.auto()
    """It resets every connection."""
    SLOW = enum.auto()
    """It answers SlowDown."""
    READ_ONLY = enum.auto()
    """It refuses writes."""
    GONE = enum.auto()
    """Its bucket was deleted."""
    EXPIRED = enum.auto()
    """It answers that the credentials have expired."""
    SKEWED = enum.auto()
    """It answers that the client's clock is wrong."""


_REFUSALS = {
    S3State.SLOW: (503, "SlowDown"),
    S3State.READ_ONLY: (403, "AccessDenied"),
    S3State.GONE: (404, "NoSuchBucket"),
    S3State.EXPIRED: (403, "ExpiredToken"),
    S3State.SKEWED: (403, "RequestTimeTooSkewed"),
}


class ScriptedS3:
    """An S3 that treats its first writes as scripted, and later ones as S3 does in its current state.

    Attributes:
        state: its current state; a test may change it.
        objects: its contents by path.
        writes: how many writes it has received.
    """

    def __init__(self, *script: Write) -> None:
        self._script = list(script)
        self.state = S3State.FINE
        self.objects: dict[str, bytes] = {}
        self.writes = 0

    def next_write(self, request: ReceivedRequest) -> Write | None:  # noqa: ARG002  # subclasses use it
        """Return how to treat a write; None to treat it as S3 does."""
        return self._script.pop(0) if self._script else None

    def __call__(self, request: ReceivedRequest) -> Reply:
        """Answer a request."""
        if self.state is S3State.DOWN:
            return Reply(b"", Then.RESET)
        if self.state in _REFUSALS and not (self.state is S3State.READ_ONLY and request.method != "PUT"):
            return Reply(s3_error(*_REFUSALS[self.state]))
        if request.method == "PUT":
            return self._write(request)
        held = self.objects.get(request.path)
        return Reply(s3_error(404, "NoSuchKey") if held is None else http(200, held, headers=_object_headers(held)))

    def _write(self, request: ReceivedRequest) -> Reply:
        self.writes += 1
        write = self.next_write(request)
        if write is None and not self._allows(request):
            return Reply(s3_error(412, "PreconditionFailed"))
        if write is None or write.stores:
            self.objects[request.path] = request.body
        return (write and write.reply) or Reply(http(200, headers={"ETag": _etag(request.body)}))

    def _allows(self, request: ReceivedRequest) -> bool:
        held = self.objects.get(request.path)
        if "if-match" in request.headers:
            return held is not None and _etag(held) == request.headers["if-match"]
        return held is None or "if-none-match" not in request.headers


def s3_error(status: int, code: str) -> bytes:
    """Return an error as S3 sends it; the code is one of its API reference."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{HTTPStatus(status).phrase}</Message></Error>"
    return http(status, body.encode(), headers={"Content-Type": "application/xml"})


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def _object_headers(body: bytes) -> dict[str, str | bytes]:
    return {"ETag": _etag(body), "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
