"""Resources are opened, checked and closed again, and the session meets RiskOS's TLS requirements."""

import asyncio
import datetime as dt
import ipaddress
import ssl
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import obstore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from obstore.store import S3Store
from pydantic import SecretStr

from tests.conftest import S3
from tests.riskos import Reply, http, json_reply, serve_replies, serve_requests
from worker.clients.archive import open_archive
from worker.clients.errors import ServiceUnavailable
from worker.config.accounts import load_accounts
from worker.config.settings import Settings, SettingsError
from worker.resources import Resources, _open_write_client, open_resources


def with_(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update=changes)


def open_all(settings: Settings) -> AbstractAsyncContextManager[Resources]:
    return open_resources(settings, load_accounts(settings))


# All resources


async def test_resources_answer_and_are_closed_afterwards(settings: Settings, tmp_path: Path) -> None:
    async with serve_replies(http(200, b"hello")) as server, open_all(settings) as resources:
        assert await resources.redis.ping()
        async with resources.http["default"].get(server.url) as response:
            assert await response.read() == b"hello"
        assert resources.archive == tmp_path / "archive"
    assert resources.http["default"].closed


async def test_an_archive_in_s3_is_opened_with_its_prefix(settings: Settings, s3: S3) -> None:
    settings = with_(settings, archive_url=f"s3://{s3.bucket}/of/ours", s3_endpoint=s3.endpoint)
    async with open_all(settings) as resources:
        assert isinstance(resources.archive, S3Store)
        await obstore.put_async(resources.archive, "key", b"x")
    listed = s3.client.list_objects_v2(Bucket=s3.bucket)["Contents"]
    assert [each["Key"] for each in listed] == ["of/ours/key"]


@pytest.mark.parametrize("prefix", ["", "/", "/of/ours/", "//of/ours"])
async def test_every_form_of_the_prefix_gives_the_same_key(settings: Settings, s3: S3, prefix: str) -> None:
    archive = open_archive(with_(settings, archive_url=f"s3://{s3.bucket}{prefix}", s3_endpoint=s3.endpoint))
    await obstore.put_async(archive, "key", b"x")
    (listed,) = s3.client.list_objects_v2(Bucket=s3.bucket)["Contents"]
    assert listed["Key"] == ("of/ours/key" if "ours" in prefix else "key")


async def test_a_missing_setting_is_reported_before_anything_is_opened(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="DOCV_REDIS_URL"):
        async with open_all(with_(settings, redis_url=None)):
            pass


async def test_the_other_resources_are_closed_if_one_does_not_answer(settings: Settings, s3: S3) -> None:
    bad = with_(settings, archive_url="s3://no-such-bucket-here", s3_endpoint=s3.endpoint)
    with pytest.raises(ServiceUnavailable):
        async with open_all(bad):
            pass  # an unclosed session is a warning, and warnings are errors


# Redis


async def test_a_redis_that_does_not_answer_is_reported_without_its_password(
    settings: Settings, unused_address: str
) -> None:
    with pytest.raises(ServiceUnavailable, match="DOCV_REDIS_URL") as caught:
        async with open_all(with_(settings, redis_url=SecretStr(f"redis://:geheim@{unused_address}/0"))):
            pass
    assert "geheim" not in f"{caught.value}{caught.value!r}"
    assert caught.value.__suppress_context__


# The archive


async def test_a_spool_folder_that_cannot_be_made_is_reported_with_its_setting(
    tmp_path: Path, settings: Settings
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ServiceUnavailable, match="below DOCV_STATE_DIR, cannot be created"):
        async with open_all(with_(settings, state_dir=tmp_path / "file")):
            pass


def test_writes_have_a_separate_client_only_under_object_lock(settings: Settings, s3: S3) -> None:
    plain = with_(settings, archive_url=f"s3://{s3.bucket}", s3_endpoint=s3.endpoint)
    locked = with_(plain, lock_mode="GOVERNANCE", lock_days=7)
    assert _open_write_client(open_archive(settings), settings) is None
    for each, is_separate in ((plain, False), (locked, True)):
        client = _open_write_client(archive := open_archive(each), each)
        assert client
        assert (client() is not archive) == is_separate


# The session to RiskOS


async def test_the_session_keeps_no_cookies(settings: Settings) -> None:
    async with serve_replies(json_reply(200, b"{}", Set_Cookie="who=me")) as server, open_all(settings) as resources:
        for _ in range(2):
            async with resources.http["default"].get(server.url) as response:
                await response.read()
    assert [request.headers.get("cookie") for request in server.requests] == [None, None]


async def test_the_session_has_no_more_connections_than_evaluations_are_in_flight(settings: Settings) -> None:
    at_once = most = 0

    async def answer(_: object) -> Reply:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1
        return Reply(http(200))

    async with serve_requests(answer) as server, open_all(with_(settings, concurrency=3)) as resources:

        async def send_request() -> None:
            async with resources.http["default"].get(server.url) as response:
                await response.read()

        await asyncio.gather(*[send_request() for _ in range(12)])
    assert most == 3


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate and its key; both are also in one file."""

    cert: Path
    key: Path
    both: Path


def certificate(folder: Path, name: str) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    cert = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = cert.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    made = Certificate(folder / f"{name}.crt", folder / f"{name}.key", folder / f"{name}.pem")
    made.cert.write_bytes(pem)
    made.key.write_bytes(secret)
    made.both.write_bytes(pem + secret)
    return made


@pytest.fixture
def ours(tmp_path: Path) -> Certificate:
    return certificate(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Certificate:
    return certificate(tmp_path, "theirs")


@pytest.fixture
def riskos_tls(ours: Certificate, theirs: Certificate) -> ssl.SSLContext:
    """Return the TLS context of RiskOS's mTLS host, which demands our certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(theirs.both)
    context.load_verify_locations(ours.cert)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def status_of(settings: Settings, tls: ssl.SSLContext) -> int:
    async with (
        serve_requests(lambda _: Reply(http(200)), tls) as server,
        open_all(settings) as resources,
        resources.http["default"].get(server.url) as response,
    ):
        return response.status


@pytest.mark.parametrize("in_one_file", [True, False])
async def test_a_client_certificate_is_sent(  # the parameters configure both sides
    settings: Settings,
    riskos_tls: ssl.SSLContext,
    ours: Certificate,
    theirs: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    in_one_file: bool,  # noqa: FBT001  # both are tried
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(theirs.cert))
    files = {"client_cert": ours.both} if in_one_file else {"client_cert": ours.cert, "client_key": ours.key}
    assert await status_of(with_(settings, **files), riskos_tls) == 200


async def test_the_mtls_host_refuses_a_connection_without_a_client_certificate(
    settings: Settings, riskos_tls: ssl.SSLContext, theirs: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(theirs.cert))
    with pytest.raises((aiohttp.ClientError, OSError)):
        await status_of(settings, riskos_tls)


async def test_a_server_with_an_untrusted_certificate_is_refused(
    settings: Settings, riskos_tls: ssl.SSLContext, ours: Certificate
) -> None:
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await status_of(with_(settings, client_cert=ours.both), riskos_tls)


async def test_an_older_tls_version_is_refused(
    settings: Settings,
    riskos_tls: ssl.SSLContext,
    ours: Certificate,
    theirs: Certificate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(theirs.cert))
    riskos_tls.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        riskos_tls.minimum_version = riskos_tls.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((aiohttp.ClientError, OSError)):
        await status_of(with_(settings, client_cert=ours.both), riskos_tls)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
async def test_an_invalid_client_certificate_is_reported_in_one_line(
    settings: Settings, tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "client.pem").write_bytes(content)
    with pytest.raises(SettingsError, match=r"DOCV_CLIENT_CERT: .*client\.pem") as caught:
        async with open_all(with_(settings, client_cert=tmp_path / "client.pem")):
            pass
    assert len(caught.value.lines) == 1


async def test_a_client_key_of_another_certificate_is_reported(
    settings: Settings, ours: Certificate, theirs: Certificate
) -> None:
    with pytest.raises(SettingsError, match="DOCV_CLIENT_CERT"):
        async with open_all(with_(settings, client_cert=ours.cert, client_key=theirs.key)):
            pass
