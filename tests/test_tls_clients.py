"""Every client of another system checks the name in a server's certificate before it sends anything.

Each client is tested with two certificates of a trusted authority: one for the server's address, one for another name.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import obstore
import pytest
from kombu import Connection
from pydantic import SecretStr

from scripts.doctor import rabbitmq
from scripts.doctor.riskos import open_session
from scripts.verify.s3_requests import open_s3_requests
from tasks.queueing.publisher import Publisher
from tests.tls import TlsServer, server_context, tls_server
from worker.app import make_publishing_app
from worker.clients.archive import open_archive
from worker.clients.redis import open_redis
from worker.clients.s3_connection import connect_s3
from worker.config.accounts import load_accounts
from worker.config.settings import Settings
from worker.resources import _open_sessions
from worker.tracing import open_tracer

REDIS = SecretStr("redis://127.0.0.1:1/0")
OTHER_NAME = "other.example"


async def riskos_of_a_worker(port: int) -> None:
    settings = Settings(riskos_url=f"https://127.0.0.1:{port}", api_key=SecretStr("a-key"))
    async with contextlib.AsyncExitStack() as stack:
        sessions = await _open_sessions(load_accounts(settings), stack)
        await sessions["default"].get(settings.base_url)


async def riskos_of_doctor(port: int) -> None:
    async with open_session(Settings()) as http:
        await http.get(f"https://127.0.0.1:{port}")


async def s3_that_a_worker_writes_to(port: int) -> None:
    settings = Settings(archive_url="s3://bucket", s3_endpoint=f"https://127.0.0.1:{port}")
    archive = open_archive(settings)
    assert not isinstance(archive, Path)
    await asyncio.wait_for(obstore.get_async(archive, "key"), 60)


async def s3_of_boto3(port: int) -> None:
    client = connect_s3(f"https://127.0.0.1:{port}").client
    await asyncio.to_thread(client.get_object, Bucket="bucket", Key="key")


async def s3_that_verify_reads(port: int) -> None:
    async with open_s3_requests(connect_s3(f"https://127.0.0.1:{port}"), "bucket", 1, waits=()) as requests:
        await requests.send("HEAD", "key", "s3:GetObject")


async def redis_of_the_ledger(port: int) -> None:
    async with open_redis(f"rediss://127.0.0.1:{port}/0", retries=0) as redis:
        await redis.ping()


def read_connection(settings: Settings) -> Connection:
    """Open the connection from which a worker reads messages."""
    return make_publishing_app(settings).connection_for_read()


def ping(connection: Connection) -> None:
    connection.channel().client.ping()


async def redis_of_the_queue(port: int) -> None:
    settings = Settings(redis_url=SecretStr(f"rediss://127.0.0.1:{port}/0"))
    with read_connection(settings) as connection:
        await asyncio.to_thread(ping, connection)


async def rabbitmq_of_a_worker(port: int) -> None:
    settings = Settings(redis_url=REDIS, broker_url=SecretStr(f"amqps://user:word@127.0.0.1:{port}//"))
    with read_connection(settings) as connection:
        await asyncio.to_thread(connection.connect)


async def rabbitmq_by_the_name_of_this_machine(port: int) -> None:
    settings = Settings(redis_url=REDIS, broker_url=SecretStr(f"amqps://user:word@localhost:{port}//"))
    with read_connection(settings) as connection:
        await asyncio.to_thread(connection.connect)


async def rabbitmq_of_a_publisher(port: int) -> None:
    settings = Settings(redis_url=REDIS, broker_url=SecretStr(f"amqps://user:word@127.0.0.1:{port}//"))
    publisher = Publisher(make_publishing_app(settings))
    with contextlib.closing(publisher):
        await asyncio.to_thread(publisher._connection.connect)


async def rabbitmq_of_doctor(port: int) -> None:
    await asyncio.to_thread(list, rabbitmq.examine(f"amqps://user:word@127.0.0.1:{port}//"))


async def sentinel_of_the_ledger(port: int) -> None:
    async with open_redis(f"rediss+sentinel://127.0.0.1:{port}/docv", retries=0) as redis:
        await redis.ping()


async def sentinel_of_the_queue(port: int) -> None:
    settings = Settings(redis_url=SecretStr(f"rediss+sentinel://127.0.0.1:{port}/docv"))
    with read_connection(settings) as connection:
        await asyncio.to_thread(ping, connection)


async def collector_of_spans(port: int) -> None:
    tracer = open_tracer(Settings(tracing=True))
    assert tracer
    with tracer.start_as_current_span("attempt"):
        pass
    # The exporter's own thread sends the spans, and pauses between its tries.
    provider = tracer.span_processor  # type: ignore[attr-defined]
    await asyncio.to_thread(provider.force_flush, 5_000)
    provider.shutdown()


CLIENTS: list[Callable[[int], Awaitable[None]]] = [
    *(riskos_of_a_worker, riskos_of_doctor),
    *(s3_that_a_worker_writes_to, s3_of_boto3, s3_that_verify_reads),
    *(redis_of_the_ledger, redis_of_the_queue, sentinel_of_the_ledger, sentinel_of_the_queue),
    *(rabbitmq_of_a_worker, rabbitmq_by_the_name_of_this_machine, rabbitmq_of_a_publisher, rabbitmq_of_doctor),
    collector_of_spans,
]
every_client = pytest.mark.parametrize("connect", CLIENTS, ids=lambda client: client.__name__)


async def connect_to_server(
    connect: Callable[[int], Awaitable[None]], folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str
) -> TlsServer:
    """Connect a client to a server with a certificate for these names; return the server."""
    context, authority = server_context(folder, *names)
    with tls_server(context) as server:
        for variable in ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
            monkeypatch.setenv(variable, str(authority))
        for sleep in ("time.sleep", "redis.retry.sleep"):
            monkeypatch.setattr(sleep, lambda _: None)  # between tries, which all end in the same way
        monkeypatch.setattr("redis.asyncio.retry.sleep", lambda _: asyncio.sleep(0))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"https://127.0.0.1:{server.port}")
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            monkeypatch.setenv(variable, "testing")
        # The server ends each connection without an answer, which is an error for each client.
        with contextlib.suppress(Exception):
            await connect(server.port)
        async with asyncio.timeout(60):
            while not server.ended:
                await asyncio.sleep(0.01)
    return server


@every_client
async def test_a_client_connects_when_the_certificate_has_the_name_of_the_server(
    connect: Callable[[int], Awaitable[None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await connect_to_server(connect, tmp_path, monkeypatch, "127.0.0.1", "localhost")
    assert server.received


@every_client
async def test_a_client_sends_nothing_when_the_certificate_has_another_name(
    connect: Callable[[int], Awaitable[None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await connect_to_server(connect, tmp_path, monkeypatch, OTHER_NAME)
    assert server.received == []
