"""The error code of S3 decides the message, for obstore, for boto3 and for the requests of ``verify``."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import obstore
import pytest
from botocore import exceptions
from obstore.exceptions import BaseError
from obstore.store import S3Store

from scripts.archive_access.s3_client import translate_s3_errors
from scripts.verify.s3_objects import S3ObjectLister
from scripts.verify.s3_requests import open_s3_requests
from tasks.errors import StorageError
from tasks.storage.bucket import ObjectAttributes, S3Bucket
from tests.riskos import Reply, Then, http, s3_error, serve_replies, serve_requests
from tests.tls import server_context, tls_server
from worker.clients.archive import open_archive
from worker.clients.errors import ServiceUnavailable
from worker.clients.s3_connection import connect_s3
from worker.clients.s3_errors import explain_boto_error, explain_obstore_error
from worker.config.settings import Settings

_REASON = "geheim-4711"  # in S3's message, which may contain names and keys


def refusal(status: int, code: str, more: str = "") -> bytes:
    """Return a refusal of S3 with additional elements."""
    body = f"<?xml version='1.0'?>\n<Error><Code>{code}</Code><Message>{_REASON}</Message>{more}</Error>"
    return http(status, body.encode(), headers={"Content-Type": "application/xml"})


def skewed(hours: int) -> bytes:
    """Return the refusal of a request from a machine whose clock is wrong by some hours."""
    server_time = datetime.now(UTC) + timedelta(hours=hours, minutes=1)
    return refusal(403, "RequestTimeTooSkewed", f"<ServerTime>{server_time:%Y-%m-%dT%H:%M:%SZ}</ServerTime>")


ELSEWHERE = "the bucket is in another region, eu-central-1"
PAGE = http(403, b"<html><body>Blocked</body></html>", headers={"Content-Type": "text/html"})
ANSWERS: list[tuple[bytes | Callable[[], bytes], tuple[str, ...]]] = [
    (refusal(400, "ExpiredToken"), ("credentials have expired (ExpiredToken)", "aws sso login")),
    (refusal(400, "InvalidToken"), ("session token", "AWS_SESSION_TOKEN")),
    (lambda: skewed(2), ("the clock differs by 2:00:", "from S3's", "NTP")),
    (lambda: skewed(-30), ("the clock differs by 1 day, 5:5", "NTP")),
    (refusal(403, "RequestTimeTooSkewed"), ("the clock differs too much from S3's", "NTP")),
    (refusal(403, "SignatureDoesNotMatch"), ("the secret key does not belong to", "AWS_SECRET_ACCESS_KEY")),
    (refusal(403, "InvalidAccessKeyId"), ("does not know the access key", "AWS_ACCESS_KEY_ID", "DOCV_S3_ENDPOINT")),
    (
        refusal(400, "AuthorizationHeaderMalformed", "<Region>eu-central-1</Region>"),
        (ELSEWHERE, "set AWS_DEFAULT_REGION=eu-central-1"),
    ),
    (refusal(400, "AuthorizationHeaderMalformed"), ("cannot read the signature", "AWS_DEFAULT_REGION")),
    (refusal(400, "IllegalLocationConstraintException"), ("in another region", "set AWS_DEFAULT_REGION")),
    (refusal(400, "KMS.DisabledException"), ("the key of DOCV_KMS_KEY_ID (KMS.DisabledException)", "enabled")),
    (refusal(400, "Odd"), ("S3 answers Odd", "DOCV_S3_ENDPOINT")),
    (refusal(400, f"<{_REASON}>"), ("S3", "DOCV_S3_ENDPOINT")),
    (PAGE, ("a web page came instead of S3's answer (status 403)", "HTTPS_PROXY", "DOCV_S3_ENDPOINT")),
    (http(407, b"<html>Login</html>"), ("the proxy requires a login", "user and password into HTTPS_PROXY")),
    (refusal(403, "AccessDenied"), ("access is denied (AccessDenied)", "these credentials need s3:", "docs/iam")),
]


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@contextlib.asynccontextmanager
async def open_clients(url: str) -> AsyncIterator[dict[str, Callable[[], Awaitable[Any]]]]:
    """Open each client of S3; yield a request with each."""
    store = S3Bucket(open_archive(Settings(archive_url="s3://ours", s3_endpoint=url)))
    connection = connect_s3(url)

    def list_keys() -> None:
        with translate_s3_errors("s3:ListBucket"):
            connection.client.list_objects_v2(Bucket="ours")

    async with open_s3_requests(connection, "ours", 2, waits=()) as requests:
        yield {
            "obstore": lambda: store.read("a-key"),
            "boto3": lambda: asyncio.to_thread(list_keys),
            "verify": lambda: requests.send("GET", "a-key", "s3:GetObject"),
        }


async def test_each_client_explains_a_refusal_by_its_code() -> None:
    answer = b""
    async with serve_requests(lambda _: Reply(answer)) as server, open_clients(server.url) as clients:
        for wanted, words in ANSWERS:
            answer = wanted if isinstance(wanted, bytes) else wanted()
            for name, request in clients.items():
                with pytest.raises((StorageError, ServiceUnavailable)) as caught:
                    await request()
                message = str(caught.value)
                assert [word for word in words if word not in message] == [], f"{name}: {message}"
                assert [each for each in (_REASON, "a-key", "127.0.0.1", "testing") if each in message] == []


async def test_a_web_page_is_neither_a_missing_object_nor_a_document() -> None:
    for status in (200, 404):
        async with serve_replies(http(status, b"<html>Login</html>")) as server, open_clients(server.url) as clients:
            for name in ("obstore", "verify") if status != HTTPStatus.OK else ("obstore",):
                with pytest.raises(StorageError, match=rf"a web page came instead of S3's answer \(status {status}\)"):
                    await clients[name]()


async def test_a_web_page_is_not_the_head_of_an_object() -> None:
    async with (
        serve_replies(http(200, b"<html>Login</html>")) as server,
        open_s3_requests(connect_s3(server.url), "ours", 2, waits=()) as requests,
    ):
        with pytest.raises(StorageError, match="a web page came instead"):
            await S3ObjectLister(requests, "").get("a-key")


async def test_a_refused_write_names_the_header_that_a_policy_may_demand() -> None:
    async with serve_replies(s3_error(403, "AccessDenied")) as server:
        bucket = S3Bucket(open_archive(Settings(archive_url="s3://ours", s3_endpoint=server.url)))
        with pytest.raises(StorageError) as caught:
            await bucket.create("a-key", b"x", ObjectAttributes("image/png"))
        with pytest.raises(StorageError) as read:
            await bucket.read("a-key")
    header = "or the bucket's policy demands a header: DOCV_KMS_KEY_ID, DOCV_SSE=AES256, DOCV_TAGS"
    assert f"these credentials need s3:PutObject and s3:PutObjectTagging, {header}" in str(caught.value)
    assert "policy demands" not in str(read.value)


def denial(message: str) -> exceptions.ClientError:
    """Return the error of boto3 for a denied access, with S3's reason."""
    return exceptions.ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, "PutObject")


def test_the_permission_that_s3_names_is_reported() -> None:
    error = denial("User: arn:x is not authorized to perform: kms:GenerateDataKey on resource: y")
    assert "need kms:GenerateDataKey; docs" in explain_boto_error(error, "s3:PutObject").fix
    assert "need s3:PutObject," in explain_boto_error(denial("Access Denied"), "s3:PutObject").fix


ROLE = exceptions.ClientError({"Error": {"Code": "AccessDenied"}}, "AssumeRole")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (exceptions.UnauthorizedSSOTokenError(), ("the login to AWS has ended", "`aws sso login`")),
        (exceptions.SSOTokenLoadError(error_msg=_REASON), ("the login to AWS has ended", "`aws sso login`")),
        (ROLE, ("AWS gives no credentials (AssumeRole: AccessDenied)", "the role and its trust policy")),
        (
            exceptions.CredentialRetrievalError(provider="custom-process", error_msg=_REASON),
            ("cannot be renewed (CredentialRetrievalError)", "~/.aws/config"),
        ),
    ],
)
def test_credentials_that_cannot_be_renewed_are_reported(error: Exception, words: tuple[str, ...]) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(BaseError) as caught:
        obstore.get(S3Store("ours", endpoint="https://127.0.0.1:9", credential_provider=fail), "a-key")
    for problem in (explain_boto_error(error, ""), explain_obstore_error(caught.value, "")):
        assert [word for word in words if word not in str(problem)] == []
        assert _REASON not in str(problem)


async def explain_missing_answer(url: str, seconds: float = 30) -> str:
    """Return why obstore gets no answer from a URL."""
    options: Any = {"allow_http": True, "timeout": timedelta(seconds=seconds)}
    store = S3Store("ours", endpoint=url, client_options=options, retry_config={"max_retries": 0})
    with pytest.raises(BaseError) as caught:
        await obstore.get_async(store, "a-key")
    problem = explain_obstore_error(caught.value, "")
    assert problem.unreachable
    assert ("AWS_CA_BUNDLE" if "certificate" in problem.message else "DOCV_S3_ENDPOINT") in problem.fix
    return problem.message


async def test_a_server_that_does_not_answer_is_reported_with_the_reason(tmp_path: Path) -> None:
    assert "(the connection is refused)" in await explain_missing_answer("http://127.0.0.1:1")
    assert "(its host name is unknown)" in await explain_missing_answer("http://no-such-host.invalid")
    async with serve_replies(Reply(b"", Then.HANG)) as silent:
        assert await explain_missing_answer(silent.url, 0.3) == "S3 does not answer in time"
    context, _ = server_context(tmp_path)
    with tls_server(context) as secured:
        assert "(its certificate is not trusted)" in await explain_missing_answer(f"https://127.0.0.1:{secured.port}")

    def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 no")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as plain:
        port = plain.sockets[0].getsockname()[1]
        assert "(the port does not speak TLS)" in await explain_missing_answer(f"https://127.0.0.1:{port}")


def test_an_endless_redirect_is_explained_as_a_web_page() -> None:
    for error in (RecursionError(), exceptions.HTTPClientError(error=RecursionError("maximum recursion depth"))):
        assert "a web page came instead" in explain_boto_error(error, "").message
