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
from tests.riskos import ReceivedRequest, Reply, Server, Then, http, s3_error, serve_replies, serve_requests
from worker.clients.s3_connection import connect_s3
from worker.config.settings import SettingsError

SLOW_DOWN = s3_error(503, "SlowDown")
ABC = http(200, b"abc", headers={"ETag": '"1"'})


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")


@asynccontextmanager
async def open_requests(url: str, *, tries: int = 3, at_once: int = 2) -> AsyncIterator[S3Requests]:
    async with open_s3_requests(connect_s3(url), "ours", at_once, waits=[0.0] * (tries - 1)) as requests:
        yield requests


async def request_tags(requests: S3Requests, key: str = "a b/ü") -> S3Response | None:
    return await requests.send("GET", key, "s3:GetObjectTagging", "tagging", x_amz_checksum_mode="ENABLED")


async def get_tags(server: Server, *, tries: int = 3) -> bytes | None:
    """Return the answer to a request for the tags of an object."""
    async with open_requests(server.url, tries=tries) as requests:
        answer = await request_tags(requests)
    return answer and bytes(answer.body)


async def test_an_object_is_requested_at_its_key_in_the_bucket() -> None:
    async with serve_replies(ABC) as server:
        assert await get_tags(server) == b"abc"
    (request,) = server.requests
    assert (request.method, request.path) == ("GET", "/ours/a%20b/%C3%BC?tagging")
    assert request.headers["x-amz-checksum-mode"] == "ENABLED"
    assert "/eu-central-1/s3/aws4_request" in request.headers["authorization"]
    assert request.headers["host"] == server.url.removeprefix("http://")


async def test_requests_have_no_user_agent_and_cookies_are_not_kept() -> None:
    async with (
        serve_replies(http(200, headers={"Set-Cookie": "a=b; Path=/"})) as server,
        open_requests(server.url) as requests,
    ):
        await request_tags(requests)
        await request_tags(requests)
    for request in server.requests:
        names = {name for name, value in request.headers.items() if value and not name.startswith("x-amz-")}
        assert names == {"accept", "authorization", "host"}


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
    async with serve_replies(ABC) as server, open_requests(server.url) as requests:
        await request_tags(requests, key)
    assert server.requests[0].path == f"/ours/{sent}?tagging"


@pytest.mark.parametrize("key", ["a/../b", "../b", "a/..", "a/./b", "./b", "a/.", ".", "..", "a/../../theirs/b"])
async def test_a_key_that_a_url_cannot_express_is_reported_and_not_requested(key: str) -> None:
    async with serve_replies(ABC) as server, open_requests(server.url) as requests:
        with pytest.raises(StorageError, match=r"its key has a part \. or \.\."):
            await request_tags(requests, key)
    assert not server.requests


async def test_an_object_with_a_content_encoding_is_not_decoded() -> None:
    async with serve_replies(http(200, b"no gzip", headers={"Content-Encoding": "gzip"})) as server:
        assert await get_tags(server) == b"no gzip"
    assert "accept-encoding" not in server.requests[0].headers


async def test_metadata_that_is_not_ascii_does_not_hide_other_metadata() -> None:
    foreign = {"x-amz-meta-theirs": "ü".encode(), "x-amz-meta-latin": b"\xfc"}
    reply = http(200, headers={"ETag": '"1"', **foreign, "x-amz-meta-ours": "a"})
    async with serve_replies(reply) as server, open_requests(server.url) as requests:
        answer = await request_tags(requests)
    assert answer
    assert answer.headers == {"content-length": "0", "etag": '"1"', "x-amz-meta-ours": "a"}


async def test_a_document_that_looks_like_an_error_of_s3_is_not_an_error() -> None:
    document = b"<Error><Code>NoSuchKey</Code></Error>"
    async with serve_replies(http(200, document)) as server:
        assert await get_tags(server) == document


@pytest.mark.parametrize("failure", [SLOW_DOWN, s3_error(500, "InternalError"), Reply(b"", Then.RESET)])
async def test_a_temporary_failure_of_s3_is_retried(failure: Reply | bytes) -> None:
    async with serve_replies(failure, failure, ABC) as server:
        assert await get_tags(server) == b"abc"
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (SLOW_DOWN, "SlowDown"),
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
async def test_a_refusal_is_a_storage_error(reply: Reply | bytes, message: str) -> None:
    closing_reply = reply if isinstance(reply, Reply) else Reply(reply, Then.CLOSE)
    async with serve_replies(closing_reply) as server:
        with pytest.raises(StorageError, match=message) as caught:
            await get_tags(server, tries=2)
    for secret in ("testing", "127.0.0.1", "ours", "a%20b", "a b"):
        assert secret not in str(caught.value)


@pytest.mark.parametrize("reply", [s3_error(404, "NoSuchKey"), http(404)])
async def test_a_request_for_a_missing_object_returns_none(reply: bytes) -> None:
    async with serve_replies(reply) as server:
        assert await get_tags(server) is None


async def test_a_proxy_of_the_environment_is_used_unless_the_host_is_exempt(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve_replies(ABC) as server, serve_replies(http(200, b"by the proxy")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert await get_tags(server) == b"by the proxy"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert await get_tags(server) == b"abc"


async def test_an_invalid_proxy_is_reported_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://somebody:secret@[proxy")
    async with serve_replies(ABC) as server:
        with pytest.raises(SettingsError, match="HTTPS_PROXY or HTTP_PROXY: ") as caught:
            await get_tags(server)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("incomplete", [b"", http(200, b"ab", promised=3)])
async def test_an_answer_that_does_not_end_times_out(incomplete: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_http, "_TOTAL", timedelta(seconds=0.2))
    async with serve_replies(Reply(incomplete, Then.HANG), ABC) as server:
        assert await get_tags(server) == b"abc"
    assert len(server.requests) == 2


async def test_a_server_that_accepts_no_connections_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_http, "_CONNECT", timedelta(seconds=0.2))
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.create_connection(full.getsockname()):
        async with asyncio.timeout(30), open_requests(f"http://127.0.0.1:{full.getsockname()[1]}", tries=1) as requests:
            with pytest.raises(StorageError, match="ConnectTimeoutError"):
                await request_tags(requests)


async def test_connections_are_limited() -> None:
    running = most = 0

    async def answer(_: ReceivedRequest) -> Reply:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return Reply(ABC)

    async with serve_requests(answer) as server, open_requests(server.url, at_once=3) as requests:
        await asyncio.gather(*(request_tags(requests) for _ in range(12)))
    assert (most, len(server.requests)) == (3, 12)


async def test_a_cancelled_request_ends_immediately() -> None:
    async with (
        serve_replies(Reply(b"", Then.HANG)) as server,
        asyncio.timeout(30),
        open_requests(server.url) as requests,
    ):
        task = asyncio.ensure_future(request_tags(requests))
        while not server.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


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
    async with serve_requests(lambda _: Reply(ABC), tls) as server:
        if trusted:
            assert await get_tags(server) == b"abc"
        else:
            with pytest.raises(StorageError, match="ConnectError"):
                await get_tags(server, tries=1)
    assert len(server.requests) == trusted
