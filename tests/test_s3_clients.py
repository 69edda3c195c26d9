"""Every client of S3 sends the same requests to the same host, by the same proxy, and trusts the same servers.

boto3 is the reference. Each row has the variables of an environment, and the request that each client must send.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import obstore
import pytest
from botocore.exceptions import ClientError
from obstore.store import S3Store

from scripts.verify.s3_requests import open_s3_requests
from tests.bench.certificate import write_certificate
from tests.riskos import http, serve_replies
from tests.tls import server_context, tls_server
from tests.tls_proxy import ProxiedRequest, tls_proxy
from worker.clients.archive import open_archive
from worker.clients.object_lock import LockingClient
from worker.clients.s3_connection import connect_s3
from worker.config.settings import Settings, SettingsError

BUCKET = "archive"
SCOPE = re.compile(r"Credential=testing/\d{8}/([^/]+/[^/]+)/aws4_request")


async def obstore_of_workers(settings: Settings) -> None:
    archive = open_archive(settings)
    assert isinstance(archive, S3Store)
    await obstore.get_async(archive, "key")


async def obstore_under_object_lock(settings: Settings) -> None:
    archive = open_archive(settings)
    assert isinstance(archive, S3Store)
    await obstore.get_async(LockingClient(archive, "GOVERNANCE", 1)(), "key")


async def boto3_of_commands(settings: Settings) -> None:
    bucket = settings.archive_url.removeprefix("s3://")
    with contextlib.closing(connect_s3(settings.s3_endpoint).client) as client:
        sending = asyncio.ensure_future(asyncio.to_thread(client.get_object, Bucket=bucket, Key="key"))
        try:
            await asyncio.shield(sending)
        finally:
            # A thread cannot be cancelled, and a connection that it opens after the client was closed stays open.
            await asyncio.wait([sending])


async def pyreqwest_of_verify(settings: Settings) -> None:
    bucket = settings.archive_url.removeprefix("s3://")
    async with open_s3_requests(connect_s3(settings.s3_endpoint), bucket, 1, waits=()) as requests:
        await requests.send("GET", "key", "s3:GetObject")


CLIENTS: list[Callable[[Settings], Awaitable[None]]] = [
    *(obstore_of_workers, obstore_under_object_lock, boto3_of_commands, pyreqwest_of_verify)
]
# Without the client of Object Lock, which is made from that of the workers, as the tests of hosts show.
every_client = pytest.mark.parametrize("send", [*CLIENTS[:1], *CLIENTS[2:]], ids=lambda client: client.__name__)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a home with a key pair and no other AWS files; clients do not pause between tries."""
    folder = tmp_path / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text("[default]\naws_access_key_id=testing\naws_secret_access_key=testing\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", *(f"{scheme}_proxy" for scheme in ("http", "https", "all", "no"))):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return tmp_path


@dataclass(frozen=True)
class Row:
    """An environment, and the request for ``key`` that must result.

    Attributes:
        host: of the request.
        scope: region and service that it is signed for.
        variables: of the environment.
        config: lines of the profile.
        bucket: name of the bucket.
        path: of the request.
    """

    host: str
    scope: str = "us-east-1/s3"
    variables: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    bucket: str = BUCKET
    path: str = "/key"


FIPS, DUAL_STACK = {"AWS_USE_FIPS_ENDPOINT": "true"}, {"AWS_USE_DUALSTACK_ENDPOINT": "true"}
OF_OBSTORE = {
    "AWS_REGION": "eu-west-3",
    "AWS_ENDPOINT": "https://elsewhere.example.com",
    "AWS_SKIP_SIGNATURE": "true",
    "AWS_S3_EXPRESS": "true",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
    "AWS_ALLOW_INVALID_CERTIFICATES": "true",
    "AWS_PROXY_URL": "http://127.0.0.1:9",
}


def in_region(name: str) -> dict[str, str]:
    return {"AWS_DEFAULT_REGION": name}


ROWS = {
    "no region": Row("archive.s3.amazonaws.com"),
    "AWS_REGION alone": Row("archive.s3.amazonaws.com", variables={"AWS_REGION": "eu-west-1"}),
    "a region": Row("archive.s3.eu-west-1.amazonaws.com", "eu-west-1/s3", in_region("eu-west-1")),
    "two regions": Row(
        "archive.s3.eu-west-1.amazonaws.com", "eu-west-1/s3", in_region("eu-west-1") | {"AWS_REGION": "eu-west-2"}
    ),
    "region of the profile": Row("archive.s3.eu-west-1.amazonaws.com", "eu-west-1/s3", config="region=eu-west-1"),
    "FIPS": Row("archive.s3-fips.us-west-2.amazonaws.com", "us-west-2/s3", in_region("us-west-2") | FIPS),
    "FIPS of the profile": Row(
        "archive.s3-fips.us-west-2.amazonaws.com", "us-west-2/s3", config="region=us-west-2\nuse_fips_endpoint=true"
    ),
    "dual-stack": Row(
        "archive.s3.dualstack.eu-west-1.amazonaws.com", "eu-west-1/s3", in_region("eu-west-1") | DUAL_STACK
    ),
    "FIPS and dual-stack": Row(
        "archive.s3-fips.dualstack.us-west-2.amazonaws.com",
        "us-west-2/s3",
        in_region("us-west-2") | FIPS | DUAL_STACK,
    ),
    "China": Row("archive.s3.cn-north-1.amazonaws.com.cn", "cn-north-1/s3", in_region("cn-north-1")),
    "GovCloud": Row("archive.s3.us-gov-west-1.amazonaws.com", "us-gov-west-1/s3", in_region("us-gov-west-1")),
    "a bucket with dots": Row(
        "s3.eu-west-1.amazonaws.com", "eu-west-1/s3", in_region("eu-west-1"), bucket="a.b.c", path="/a.b.c/key"
    ),
    "another S3": Row(
        "s3.example.com",
        variables={"AWS_ENDPOINT_URL_S3": "https://s3.example.com/below"},
        path="/below/archive/key",
    ),
    "variables of obstore": Row(
        "archive.s3.us-east-2.amazonaws.com", "us-east-2/s3", in_region("us-east-2") | OF_OBSTORE
    ),
}


def described(request: ProxiedRequest) -> tuple[str, str, str, str]:
    scope = SCOPE.search(request.headers.get("authorization", ""))
    return request.host, request.headers["host"], scope[1] if scope else "", request.path


@pytest.mark.parametrize("name", ROWS)
async def test_every_client_sends_the_same_request_to_the_same_host(
    name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ROWS[name]
    (home / ".aws" / "config").write_text(f"[default]\n{row.config}\n")
    with tls_proxy(home, row.host) as proxy:
        for variable, value in {
            **row.variables,
            "HTTPS_PROXY": proxy.url,
            "AWS_CA_BUNDLE": str(proxy.authority),
        }.items():
            monkeypatch.setenv(variable, value)
        for send in CLIENTS:
            with contextlib.suppress(FileNotFoundError, ClientError):
                await send(Settings(archive_url=f"s3://{row.bucket}"))
    assert [described(each) for each in proxy.requests] == [(row.host, row.host, row.scope, row.path)] * len(CLIENTS)


async def test_every_client_uses_the_host_of_s3_express(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = "a--usw2-az1--x-s3.s3express-usw2-az1.us-west-2.amazonaws.com"
    with tls_proxy(home, host) as proxy:
        for variable, value in {"HTTPS_PROXY": proxy.url, "AWS_CA_BUNDLE": str(proxy.authority)}.items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
        for send in CLIENTS:
            # obstore first requests a session, and does not get one.
            with contextlib.suppress(Exception):
                await send(Settings(archive_url="s3://a--usw2-az1--x-s3"))
    assert [each.host for each in proxy.requests] == [host] * len(CLIENTS)
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    with pytest.raises(SettingsError, match="S3 Express cannot be used with AWS_USE_FIPS_ENDPOINT"):
        open_archive(Settings(archive_url="s3://a--usw2-az1--x-s3"))


@every_client
@pytest.mark.parametrize(
    ("variables", "is_direct"),
    [
        ({}, False),
        ({"NO_PROXY": "127.0.0.1"}, True),
        ({"NO_PROXY": "127.0.0.0/8"}, False),
        ({"HTTP_PROXY": "", "ALL_PROXY": "{proxy}"}, True),
        ({"HTTP_PROXY": "", "HTTPS_PROXY": "{proxy}"}, True),
    ],
)
async def test_every_client_uses_the_proxy_of_boto3(
    send: Callable[[Settings], Awaitable[None]],
    variables: Mapping[str, str],
    is_direct: bool,  # noqa: FBT001  # a parameter of the test
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serve_replies(http(404)) as server, serve_replies(http(404)) as proxy:
        for name, value in {"HTTP_PROXY": proxy.url, **variables}.items():
            monkeypatch.setenv(name, value.format(proxy=proxy.url))
        with contextlib.suppress(FileNotFoundError, ClientError):
            await send(Settings(archive_url="s3://archive", s3_endpoint=server.url))
    assert (len(server.requests), len(proxy.requests)) == (is_direct, not is_direct)


TRUST = {
    "AWS_CA_BUNDLE": ({"AWS_CA_BUNDLE": "ours"}, True),
    "SSL_CERT_FILE": ({"SSL_CERT_FILE": "ours"}, True),
    "profile": ({"AWS_CONFIG_FILE": "config"}, True),
    "AWS_CA_BUNDLE wins": ({"AWS_CA_BUNDLE": "ours", "SSL_CERT_FILE": "theirs"}, True),
    "SSL_CERT_FILE loses": ({"AWS_CA_BUNDLE": "theirs", "SSL_CERT_FILE": "ours"}, False),
    "another authority": ({"SSL_CERT_FILE": "theirs"}, False),
    "nothing": ({}, False),
}


@every_client
@pytest.mark.parametrize("name", TRUST)
async def test_every_client_trusts_the_same_server(
    send: Callable[[Settings], Awaitable[None]], name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables, is_trusted = TRUST[name]
    for folder in ("a", "b"):
        (home / folder).mkdir()
    context, ours = server_context(home / "a", "127.0.0.1")
    theirs, *_ = write_certificate(home / "b", "127.0.0.1")
    config = home / "config"
    config.write_text(f"[default]\nca_bundle={ours}\n")
    for variable, which in variables.items():
        monkeypatch.setenv(variable, str({"ours": ours, "theirs": theirs, "config": config}[which]))
    with tls_server(context) as server:
        sending = asyncio.ensure_future(
            send(Settings(archive_url="s3://archive", s3_endpoint=f"https://127.0.0.1:{server.port}"))
        )
        while not server.ended and not sending.done():
            await asyncio.sleep(0.01)
        # The server ends each connection without an answer, so clients need not try again.
        sending.cancel()
        await asyncio.wait([sending])
    assert bool(server.received) is is_trusted


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), (b"no certificate", "it holds no certificates")]
)
def test_unreadable_authorities_are_reported_in_one_sentence(
    variable: str, content: bytes | None, message: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home / "authorities.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv(variable, str(path))
    with pytest.raises(SettingsError, match=f"{variable}: {path}: {message}.*; use a PEM file"):
        connect_s3(None)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"AWS_DEFAULT_REGION": "cn-north-1", "AWS_USE_FIPS_ENDPOINT": "true"}, "no endpoint of S3 matches"),
        ({"HTTPS_PROXY": "socks5://127.0.0.1:9"}, "HTTPS_PROXY or HTTP_PROXY: .*SOCKS is not supported"),
    ],
)
def test_an_invalid_endpoint_is_reported_in_one_sentence(
    variables: Mapping[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=message):
        open_archive(Settings(archive_url="s3://archive"))
