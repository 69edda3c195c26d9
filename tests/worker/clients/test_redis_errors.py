"""Each reason why Redis cannot be used has its own sentence, which says what to do."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    InvalidResponse,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from scripts.console.error_messages import explain
from scripts.doctor.redis import examine
from tests.faults.redis_server import RedisServer, SentinelServer
from tests.tls import server_context, tls_server
from worker.clients.errors import ServiceUnavailable
from worker.clients.primary import NotPrimary
from worker.clients.redis import check_redis, open_redis
from worker.clients.redis_errors import explain_redis_error
from worker.config.settings import Settings

PASSWORD = "s3cr3t-w0rd"


async def explain_start(url: str) -> str:
    """Return the message of a process that starts with this Redis, and check that doctor gives the same one."""
    with pytest.raises(ServiceUnavailable) as caught:
        async with open_redis(url, seconds=10.0, retries=0) as redis:
            await check_redis(redis)
    (finding,) = [each async for each in examine(Settings(redis_url=url), ["default"])]
    assert f"Redis {finding.message.removeprefix('it ')}: {finding.fix}" == str(caught.value)
    assert finding.unreachable
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


@contextlib.asynccontextmanager
async def running(server: RedisServer) -> AsyncIterator[RedisServer]:
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


def with_login(server: RedisServer, login: str, database: int = 0) -> str:
    return f"redis://{login}@127.0.0.1:{server.port}/{database}"


async def test_errors_of_login_and_database_have_their_own_sentences(tmp_path: Path) -> None:
    async with running(RedisServer(tmp_path / "redis", "--requirepass", PASSWORD)) as server:
        async with Redis.from_url(with_login(server, f":{PASSWORD}")) as redis:
            await redis.execute_command("ACL", "SETUSER", "few", "on", f">{PASSWORD}", "~docv:*", "+ping")
            await redis.execute_command("ACL", "SETUSER", "keys", "on", f">{PASSWORD}", "~other:*", "+@all")
        assert "requires a password: set DOCV_REDIS_URL" in await explain_start(server.url)
        for login in (f":{PASSWORD}x", f"nobody:{PASSWORD}"):
            message = await explain_start(with_login(server, login))
            assert "does not accept user and password" in message
            assert "%40 %2F %23 %25" in message
        assert "this user the command info (NOPERM): give it the ACL" in await explain_start(
            with_login(server, f"few:{PASSWORD}")
        )
        assert "this user these keys or commands (NOPERM)" in await explain_start(
            with_login(server, f"keys:{PASSWORD}")
        )
        message = await explain_start(with_login(server, f":{PASSWORD}", 99))
        assert "has no database with this number: end DOCV_REDIS_URL in /0" in message


async def test_a_refused_login_is_not_retried() -> None:
    logins = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal logins
        with contextlib.closing(writer):
            while await reader.read(1 << 16):
                logins += 1
                writer.write(b"-NOAUTH Authentication required.\r\n")

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        url = "redis://{}:{}/0".format(*server.sockets[0].getsockname())
        async with open_redis(url) as redis:
            with pytest.raises(ServiceUnavailable, match="requires a password"):
                await check_redis(redis)
    assert logins <= 2


async def test_cluster_mode_is_reported_first(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path / "redis", "--cluster-enabled", "yes")
    while redis.port > 55_535:  # its second port is 10,000 higher
        redis.change_port()
    async with running(redis) as server:
        assert "runs in cluster mode, which is not supported" in await explain_start(server.url)


async def test_a_sentinel_is_reported(redis_url: str, tmp_path: Path) -> None:
    async with running(SentinelServer(tmp_path / "watcher", "docv", 1)) as sentinel:
        assert "is a Sentinel here" in await explain_start(sentinel.url)
        assert "no primary that its Sentinels report" in await explain_start(
            f"redis+sentinel://127.0.0.1:{sentinel.port}/other/0"
        )


async def test_errors_of_certificates_and_ports_have_their_own_sentences(tmp_path: Path) -> None:
    context, _ = server_context(tmp_path, "127.0.0.1")
    with tls_server(context) as server:
        message = await explain_start(f"rediss://127.0.0.1:{server.port}/0")
        assert "has a certificate that is not trusted" in message
        assert "?ssl_ca_certs=" in message
    async with answering(b"\x15\x03\x01\x00\x02\x02\x46") as port:
        assert "closes plain connections: if the port expects TLS, use rediss://" in await explain_start(
            f"redis://127.0.0.1:{port}"
        )
    async with answering(b"") as port:
        assert "use rediss://" in await explain_start(f"redis://127.0.0.1:{port}")
    for protocol in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x00\x00\x09\x01\r\n", b"SSH-2.0-OpenSSH\r\n"):
        async with answering(protocol) as port:
            assert "is not the service that answers there: check host and port" in await explain_start(
                f"redis://127.0.0.1:{port}"
            )
            assert "does not speak TLS on this port: use redis://" in await explain_start(f"rediss://127.0.0.1:{port}")


async def test_a_missing_server_has_its_own_sentence(redis_url: str, unused_tcp_port: int) -> None:
    assert "does not answer (ConnectionError): check that it runs" in await explain_start(
        f"redis://127.0.0.1:{unused_tcp_port}"
    )
    assert "its host name is unknown" in await explain_start("redis://nowhere.invalid:6379")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            AuthenticationError("AUTH <password> called without any password configured for the default user"),
            "has no password",
        ),
        (BusyLoadingError("Redis is loading the dataset in memory"), "is still reading its file"),
        (ClusterCrossSlotError("Keys in request don't hash to the same slot"), "cluster mode, which is not supported"),
        (
            ResponseError("ACL failure in script: User docv has no permissions to run the 'time' command"),
            "does not allow this user the command time (NOPERM)",
        ),
        (
            ResponseError(
                "The user executing the script can't run this command or subcommand script: 1, on @user_script:1."
            ),
            "does not allow this user these keys or commands (NOPERM)",
        ),
        (ResponseError("SELECT is not allowed in cluster mode"), "cluster mode, which is not supported"),
        (ResponseError("unknown command 'SELECT', with args beginning with: '1' "), "is a Sentinel"),
        (MasterNotFoundError("No master found for 'docv'"), "no primary that its Sentinels report"),
        (InvalidResponse("Protocol Error: b'HTTP/1.1 400'"), "is not the service that answers there"),
        (
            NotPrimary("MISCONF Errors writing to the AOF file: No space left on device"),
            "takes no writes because its disk is full (MISCONF): free some space there",
        ),
        (NotPrimary("MISCONF Redis is configured to save RDB snapshots"), "cannot write to its disk (MISCONF)"),
        (TimeoutError(), "does not answer in time"),
        (RedisConnectionError("anything else"), "does not answer (ConnectionError)"),
    ],
)
def test_every_other_cause_has_its_own_sentence_in_every_command(error: Exception, message: str) -> None:
    assert message in str(explain_redis_error(error))
    if isinstance(error, RedisError):
        sentence, code = explain(error) or ("", 0)
        assert (message in sentence, code) == (True, 3)


def test_the_first_cause_of_an_error_decides() -> None:
    error = RedisConnectionError("Error 1 connecting")
    error.__cause__ = ssl.SSLError("WRONG_VERSION_NUMBER")
    assert "does not speak TLS" in str(explain_redis_error(error))


@contextlib.asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    """Answer any request with these bytes, and close the connection; yield the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await reader.read(1 << 16)
            writer.write(answer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
