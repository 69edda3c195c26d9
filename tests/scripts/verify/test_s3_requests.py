"""Small requests to S3: the meaning of each answer, and the requests that are repeated."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from scripts.verify import s3_http
from scripts.verify.s3_requests import S3Requests, S3Response, open_s3_requests
from tasks.errors import StorageError
from tests.bench.certificate import write_certificate
from tests.riskos import Heard, Reply, Server, Then, http, listening, s3_error, saying
from worker.clients.s3_connection import connect_s3
from worker.config.settings import SettingsError

NOT_NOW = s3_error(503, "SlowDown")
ABC = http(200, b"abc", headers={"ETag": '"1"'})


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")


@asynccontextmanager
async def line_to(url: str, *, tries: int = 3, at_once: int = 2) -> AsyncIterator[S3Requests]:
    async with open_s3_requests(connect_s3(url), "ours", at_once, waits=[0.0] * (tries - 1)) as line:
        yield line


async def tags_of(line: S3Requests, key: str = "a b/ü") -> S3Response | None:
    return await line.send("GET", key, "s3:GetObjectTagging", "tagging", x_amz_checksum_mode="ENABLED")


async def asked(server: Server, *, tries: int = 3) -> bytes | None:
    """Ask for the tags of an object."""
    async with line_to(server.url, tries=tries) as line:
        answer = await tags_of(line)
    return answer and bytes(answer.body)


async def test_an_object_is_requested_at_its_key_in_the_bucket() -> None:
    async with saying(ABC) as server:
        assert await asked(server) == b"abc"
    (heard,) = server.heard
    assert (heard.method, heard.path) == ("GET", "/ours/a%20b/%C3%BC?tagging")
    assert heard.headers["x-amz-checksum-mode"] == "ENABLED"
    assert "/eu-central-1/s3/aws4_request" in heard.headers["authorization"]
    assert heard.headers["host"] == server.url.removeprefix("http://")


async def test_requests_have_no_user_agent_and_cookies_are_not_kept() -> None:
    async with saying(http(200, headers={"Set-Cookie": "a=b; Path=/"})) as server, line_to(server.url) as line:
        await tags_of(line)
        await tags_of(line)
    for heard in server.heard:
        told = {name for name, value in heard.headers.items() if value and not name.startswith("x-amz-")}
        assert told == {"accept", "authorization", "host"}


@pytest.mark.parametrize(
    ("key", "sent"),
    [
        ("a%2Fb", "a%252Fb"),
        ("a//b/", "a//b/"),
        ("/a", "/a"),
        ("a..b/..c/d../...", "a..b/..c/d../..."),
        ("a%2e%2E/%2e/b", "a%252e%252E/%252e/b"),
        ("~-._", "~-._"),
        (
            "# ?&=+;:@!$'()*,|^`{}[]<>\"",
            "%23%20%3F%26%3D%2B%3B%3A%40%21%24%27%28%29%2A%2C%7C%5E%60%7B%7D%5B%5D%3C%3E%22",
        ),
        ("\\..\\\t\n\0\x7f", "%5C..%5C%09%0A%00%7F"),
        ("é/\U0001f600", "%C3%A9/%F0%9F%98%80"),
    ],
)
async def test_a_key_arrives_as_it_was_signed(key: str, sent: str) -> None:
    async with saying(ABC) as server, line_to(server.url) as line:
        await tags_of(line, key)
    assert server.heard[0].path == f"/ours/{sent}?tagging"


@pytest.mark.parametrize("key", ["a/../b", "../b", "a/..", "a/./b", "./b", "a/.", ".", "..", "a/../../theirs/b"])
async def test_a_key_that_a_url_cannot_express_is_reported_and_not_requested(key: str) -> None:
    async with saying(ABC) as server, line_to(server.url) as line:
        with pytest.raises(StorageError, match=r"its key has a part \. or \.\."):
            await tags_of(line, key)
    assert not server.heard


async def test_an_object_with_a_content_encoding_is_not_decoded() -> None:
    async with saying(http(200, b"no gzip", headers={"Content-Encoding": "gzip"})) as server:
        assert await asked(server) == b"no gzip"
    assert "accept-encoding" not in server.heard[0].headers


async def test_metadata_that_is_not_ascii_does_not_hide_other_metadata() -> None:
    theirs = {"x-amz-meta-theirs": "ü".encode(), "x-amz-meta-latin": b"\xfc"}
    said = http(200, headers={"ETag": '"1"', **theirs, "x-amz-meta-ours": "a"})
    async with saying(said) as server, line_to(server.url) as line:
        answer = await tags_of(line)
    assert answer
    assert answer.headers == {"content-length": "0", "etag": '"1"', "x-amz-meta-ours": "a"}


async def test_a_document_that_looks_like_an_error_of_s3_is_not_an_error() -> None:
    document = b"<Error><Code>NoSuchKey</Code></Error>"
    async with saying(http(200, document)) as server:
        assert await asked(server) == document


@pytest.mark.parametrize("trouble", [NOT_NOW, s3_error(500, "InternalError"), Reply(b"", Then.RESET)])
async def test_a_temporary_failure_of_s3_is_retried(trouble: Reply | bytes) -> None:
    async with saying(trouble, trouble, ABC) as server:
        assert await asked(server) == b"abc"
    assert len(server.heard) == 3


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (NOT_NOW, "SlowDown"),
        (Reply(b"", Then.RESET), "ConnectError"),
        (http(200, b"ab", promised=3)[:-1], "BodyDecodeError"),
        (s3_error(403, "AccessDenied"), r"AccessDenied.*need s3:GetObjectTagging"),
        (http(403), r"\(403\).*need s3:GetObjectTagging"),
        (s3_error(400, "ExpiredToken"), "ExpiredToken"),
        (s3_error(404, "NoSuchBucket"), "NoSuchBucket"),
        (http(301, headers={"Location": "http://127.0.0.1:1/"}), "301"),
        (http(200, b"x", headers={"Content-Length": "nonsense"}), "Error"),
    ],
)
async def test_a_refusal_is_a_storage_error(reply: Reply | bytes, said: str) -> None:
    shut = reply if isinstance(reply, Reply) else Reply(reply, Then.CLOSE)
    async with saying(shut) as server:
        with pytest.raises(StorageError, match=said) as caught:
            await asked(server, tries=2)
    for secret in ("testing", "127.0.0.1", "ours", "a%20b", "a b"):
        assert secret not in str(caught.value)


@pytest.mark.parametrize("reply", [s3_error(404, "NoSuchKey"), http(404)])
async def test_a_missing_object_is_none(reply: bytes) -> None:
    async with saying(reply) as server:
        assert await asked(server) is None


async def test_a_proxy_of_the_environment_is_used_unless_the_host_is_exempt(monkeypatch: pytest.MonkeyPatch) -> None:
    async with saying(ABC) as server, saying(http(200, b"by the proxy")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert await asked(server) == b"by the proxy"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert await asked(server) == b"abc"


async def test_an_invalid_proxy_is_reported_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://somebody:secret@[proxy")
    async with saying(ABC) as server:
        with pytest.raises(SettingsError, match="HTTPS_PROXY or HTTP_PROXY: ") as caught:
            await asked(server)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("said", [b"", http(200, b"ab", promised=3)])
async def test_an_answer_that_does_not_end_times_out(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_http, "_TOTAL", timedelta(seconds=0.2))
    async with saying(Reply(said, Then.HANG), ABC) as server:
        assert await asked(server) == b"abc"
    assert len(server.heard) == 2


async def test_a_server_that_accepts_no_connections_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_http, "_CONNECT", timedelta(seconds=0.2))
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.create_connection(full.getsockname()):
        async with asyncio.timeout(30), line_to(f"http://127.0.0.1:{full.getsockname()[1]}", tries=1) as line:
            with pytest.raises(StorageError, match="ConnectTimeoutError"):
                await tags_of(line)


async def test_connections_are_limited() -> None:
    there = most = 0

    async def answer(_: Heard) -> Reply:
        nonlocal there, most
        there += 1
        most = max(most, there)
        await asyncio.sleep(0.02)
        there -= 1
        return Reply(ABC)

    async with listening(answer) as server, line_to(server.url, at_once=3) as line:
        await asyncio.gather(*(tags_of(line) for _ in range(12)))
    assert (most, len(server.heard)) == (3, 12)


async def test_a_cancelled_request_ends_immediately() -> None:
    async with saying(Reply(b"", Then.HANG)) as server, asyncio.timeout(30), line_to(server.url) as line:
        asking = asyncio.ensure_future(tags_of(line))
        while not server.heard:
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


@pytest.mark.parametrize("trusted", [True, False])
async def test_only_a_server_with_a_trusted_certificate_gets_requests(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trusted: bool,  # noqa: FBT001  # both are tried
) -> None:
    authority, certificate, key = write_certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    tls.set_alpn_protocols(["h2", "http/1.1"])
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    async with listening(lambda _: Reply(ABC), tls) as server:
        if trusted:
            assert await asked(server) == b"abc"
        else:
            with pytest.raises(StorageError, match="ConnectError"):
                await asked(server, tries=1)
    assert len(server.heard) == trusted
