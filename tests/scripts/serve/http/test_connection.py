"""Slow clients are disconnected, and no client takes all connections."""

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from scripts.serve.http.limits import HttpLimits
from tests.faults.redis_server import RedisServer
from tests.scripts.serve.conftest import INTAKE, TOKEN, Client, event, running_client, settings_for
from worker.config.settings import Settings

REQUEST = b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n"
CANARY = "canary-77aa"


@contextlib.asynccontextmanager
async def connected(client: Client) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = client.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def read_until_closed(reader: asyncio.StreamReader) -> bytes:
    """Return the bytes that arrive before the server closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(10):
            while piece := await reader.read(65_536):
                received += piece
    return received


async def read_answer(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        await reader.readexactly(len(b'{"alive":true}'))


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET /livez HTTP/1.1\r\nHost: here\r\n"])
async def test_a_connection_is_closed_when_headers_do_not_arrive(settings: Settings, sent: bytes) -> None:
    async with running_client(settings, HttpLimits(head_seconds=0.1)) as client:
        async with connected(client) as (reader, writer):
            writer.write(sent)
            assert await read_until_closed(reader) == b""
        assert 'docv_http_connections_ended_total{why="slow_head"} 1.0' in await client.metrics()


async def test_the_next_request_has_its_own_deadline(settings: Settings) -> None:
    async with running_client(settings, HttpLimits(head_seconds=0.4)) as client, connected(client) as (reader, writer):
        writer.write(REQUEST)
        await read_answer(reader)
        writer.write(b"GET /li")
        assert await read_until_closed(reader) == b""


async def test_an_idle_connection_may_last_longer_than_the_deadline_for_headers(settings: Settings) -> None:
    async with running_client(settings, HttpLimits(head_seconds=0.4)) as client, connected(client) as (reader, writer):
        writer.write(REQUEST)
        await read_answer(reader)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await reader.read(1)
        writer.write(REQUEST)
        await read_answer(reader)


async def test_the_deadline_of_a_pipelined_request_starts_with_the_previous_answer(tmp_path: Path) -> None:
    body = json.dumps(event()).encode()
    head = f"POST /webhooks/riskos HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {TOKEN}\r\n"
    server = RedisServer(tmp_path / "own-redis")
    await server.start()
    bounds = HttpLimits(head_seconds=0.4, redis_seconds=0.4)
    try:
        async with (
            running_client(settings_for(server.url, tmp_path), bounds) as client,
            connected(client) as (reader, writer),
        ):
            server.freeze()
            writer.write(f"{head}Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            async with asyncio.timeout(10):
                await reader.readuntil(b"\r\n\r\n")
            for part in (body, b"GET /li"):
                writer.write(part)
                await asyncio.sleep(0.05)  # so that the parts arrive separately
            assert b"503" in await read_until_closed(reader)
            server.thaw()
    finally:
        await server.kill()


async def test_an_idle_connection_is_closed_after_its_time(settings: Settings) -> None:
    async with running_client(settings, HttpLimits(idle_seconds=0.4)) as client, connected(client) as (reader, writer):
        writer.write(REQUEST)
        await read_answer(reader)
        assert await read_until_closed(reader) == b""


async def test_pipelined_requests_are_all_answered(settings: Settings) -> None:
    async with running_client(settings) as client, connected(client) as (reader, writer):
        writer.write(REQUEST * 5)
        for _ in range(5):
            await read_answer(reader)


async def test_connections_of_one_address_are_limited_until_others_end(settings: Settings) -> None:
    async with running_client(settings, HttpLimits(connections_per_address=2)) as client:
        async with connected(client) as (first, writer), connected(client) as (second, other):
            for reader, each in ((first, writer), (second, other)):
                each.write(f"GET /metrics HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {INTAKE}\r\n\r\n".encode())
                async with asyncio.timeout(10):
                    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            async with connected(client) as (reader, _):
                assert await read_until_closed(reader) == b""
        async with asyncio.timeout(10):
            while True:
                async with connected(client) as (reader, writer):
                    writer.write(REQUEST)
                    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                        await read_answer(reader)
                        break


@pytest.mark.parametrize(
    "request_",
    [
        b"canary-77aa\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nX: " + b"canary-77aa" * 1_000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"".join(b"X-%d: canary-77aa\r\n" % n for n in range(200)) + b"\r\n",
        b"GET /livez HTTP/1.1\r\nbad header canary-77aa\r\n\r\n",
    ],
)
async def test_malformed_http_is_refused_and_leaves_no_trace(
    settings: Settings, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with capture_logs() as logged:
        async with running_client(settings) as client, connected(client) as (reader, writer):
            writer.write(request_)
            received = await read_until_closed(reader)
    assert received.split()[1] == b"400"
    assert CANARY not in f"{received!r} {logged} {caplog.text}"
    assert any(line["event"] == "request.malformed" for line in logged)


async def test_connections_without_a_secret_do_not_block_others(settings: Settings) -> None:
    async with running_client(settings, HttpLimits(connections=30, connections_per_address=10)) as client:
        host, port = client.url.removeprefix("http://").split(":")
        async with contextlib.AsyncExitStack() as stack:
            for number in range(60):
                connection = await asyncio.open_connection(host, int(port), local_addr=(f"127.0.0.{2 + number % 6}", 0))
                stack.callback(connection[1].close)
                connection[1].write(b"GET /page/runs HTTP/1.1\r\nHost: here\r\n\r\n")
            for _ in range(20):
                async with connected(client) as (reader, writer):
                    writer.write(REQUEST)
                    await read_answer(reader)


async def test_a_connection_is_closed_when_the_client_does_not_read_its_answer(settings: Settings) -> None:
    request = f"GET /openapi.json HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {INTAKE}\r\n\r\n".encode()
    async with running_client(settings, HttpLimits(answer_seconds=0.2)) as client:
        host, port = client.url.removeprefix("http://").split(":")
        with socket.socket() as greedy:
            greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            greedy.settimeout(0)
            await asyncio.get_running_loop().sock_connect(greedy, (host, int(port)))
            await asyncio.get_running_loop().sock_sendall(greedy, request * 200)
            async with asyncio.timeout(20):
                while 'docv_http_connections_ended_total{why="not_taken"} 1.0' not in await client.metrics():
                    await asyncio.sleep(0.05)


async def test_a_slow_client_gets_its_whole_answer(settings: Settings) -> None:
    request = f"GET /openapi.json HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {INTAKE}\r\n\r\n".encode()
    async with running_client(settings, HttpLimits(answer_seconds=5)) as client, connected(client) as (reader, writer):
        writer.write(request * 20)
        for _ in range(20):
            await asyncio.sleep(0.02)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.search(rb"Content-Length: (\d+)", head)[1]))  # type: ignore[index]


async def test_pipelined_requests_of_one_connection_do_not_delay_another(client: Client) -> None:
    count, answers = 1_500, 0
    async with connected(client) as (greedy, greedy_writer), connected(client) as (reader, writer):

        async def read_answers() -> None:
            nonlocal answers
            while answers < count:
                answers += (await greedy.read(65_536)).count(b"HTTP/1.1 200")

        greedy_writer.write(REQUEST * count)
        reading = asyncio.create_task(read_answers())
        while not answers:
            await asyncio.sleep(0)
        writer.write(REQUEST)
        await read_answer(reader)
        assert answers < count / 2
        async with asyncio.timeout(20):
            await reading


@pytest.mark.parametrize("path", ["/evaluations/x", "/", "/page/runs", "/is/not/there"])
@pytest.mark.parametrize("expectation", ["x", "100-continue"])
async def test_an_expect_header_reveals_nothing_without_a_secret(client: Client, path: str, expectation: str) -> None:
    async with connected(client) as (reader, writer):
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: here\r\nExpect: {expectation}\r\nConnection: close\r\n\r\n".encode()
        )
        received = await read_until_closed(reader)
    assert received.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").startswith(b"HTTP/1.1 401 ")


async def test_a_client_sends_its_body_after_100_continue(client: Client, eval_id: str) -> None:
    body = json.dumps({"eval_ids": [eval_id]}).encode()
    head = f"POST /evaluations HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {INTAKE}\r\nExpect: 100-continue\r\n"
    async with connected(client) as (reader, writer):
        writer.write(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        async with asyncio.timeout(10):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await read_until_closed(reader)).startswith(b"HTTP/1.1 202 ")
