# the folder is what is tested here
import asyncio
import contextlib
import datetime as dt
import ipaddress
import os
import socket
import ssl
import stat
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import obstore
import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from obstore.store import S3Store
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.conftest import S3
from tests.riskos import Reply, Then, http, json, listening, s3_error, saying
from worker import resources
from worker.embedded import server_binary
from worker.object_lock import LockingClient
from worker.resources import (
    Unreachable,
    _locking,
    check_archive,
    check_keeping,
    check_syncing,
    open_archive,
    open_redis,
    open_resources,
)
from worker.settings import Settings, SettingsError


@pytest.fixture
def nobody() -> Iterator[str]:
    """Return an address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield "127.0.0.1:{1}".format(*taken.getsockname())


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return Settings(
        redis_url=SecretStr(redis_url), archive_url=(tmp_path / "archive").as_uri(), api_key=SecretStr("key")
    )


def with_(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update=changes)


@pytest.fixture
def _no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))


# All of it


async def test_what_is_opened_answers_and_is_closed_afterwards(settings: Settings, tmp_path: Path) -> None:
    async with saying(http(200, b"hello")) as server, open_resources(settings) as resources:
        assert await resources.redis.ping()
        async with resources.http.get(server.url) as response:
            assert await response.read() == b"hello"
        assert resources.archive == tmp_path / "archive"
    assert resources.http.closed


async def test_an_archive_in_s3_is_opened_with_its_prefix(settings: Settings, s3: S3) -> None:
    settings = with_(settings, archive_url=f"s3://{s3.bucket}/of/ours", s3_endpoint=s3.endpoint)
    async with open_resources(settings) as resources:
        assert isinstance(resources.archive, S3Store)
        await obstore.put_async(resources.archive, "key", b"x")
    listed = s3.client.list_objects_v2(Bucket=s3.bucket)["Contents"]
    assert [each["Key"] for each in listed] == ["of/ours/key"]


@pytest.mark.parametrize("prefix", ["", "/", "/of/ours/", "//of/ours"])
async def test_however_the_prefix_is_written_it_holds_the_same_key(settings: Settings, s3: S3, prefix: str) -> None:
    archive = open_archive(with_(settings, archive_url=f"s3://{s3.bucket}{prefix}", s3_endpoint=s3.endpoint))
    await obstore.put_async(archive, "key", b"x")
    (listed,) = s3.client.list_objects_v2(Bucket=s3.bucket)["Contents"]
    assert listed["Key"] == ("of/ours/key" if "ours" in prefix else "key")


async def test_what_is_missing_is_said_before_anything_is_opened(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="DOCV_REDIS_URL"):
        async with open_resources(with_(settings, redis_url=None)):
            pass


async def test_when_one_thing_does_not_answer_the_others_are_closed(settings: Settings, s3: S3) -> None:
    bad = with_(settings, archive_url="s3://no-such-bucket-here", s3_endpoint=s3.endpoint)
    with pytest.raises(Unreachable):
        async with open_resources(bad):
            pass  # an open session would be a warning, and warnings are errors


# Redis


async def test_a_redis_that_does_not_answer_is_unreachable_and_its_password_is_not_shown(
    settings: Settings, nobody: str
) -> None:
    with pytest.raises(Unreachable, match="DOCV_REDIS_URL") as caught:
        async with open_resources(with_(settings, redis_url=SecretStr(f"redis://:geheim@{nobody}/0"))):
            pass
    assert "geheim" not in f"{caught.value}{caught.value!r}"
    assert caught.value.__suppress_context__


async def test_a_connection_that_breaks_is_made_anew(redis_url: str) -> None:
    async with open_redis(redis_url) as redis, open_redis(redis_url) as another:
        await redis.set("key", "value")
        for each in await another.client_list():
            if int(each["id"]) != await another.client_id():
                await another.client_kill_filter(_id=each["id"])
        assert await redis.get("key") == "value"


async def test_more_callers_than_connections_wait_for_one(redis_url: str) -> None:
    # A worker that drains hands back everything it has taken at once: that may be many times its concurrency.
    async with open_redis(redis_url, connections=2) as redis:
        answers = await asyncio.gather(*[redis.ping() for _ in range(500)], return_exceptions=True)
    assert Counter(map(repr, answers)) == {"True": 500}


# The archive


async def test_a_folder_that_is_missing_is_made_for_its_owner_only(tmp_path: Path, settings: Settings) -> None:
    folder = tmp_path / "a b" / "100%" / "archive"
    archive = open_archive(with_(settings, archive_url=folder.as_uri()))
    assert archive == folder
    await check_archive(archive, settings)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    await check_archive(archive, settings)


async def test_a_folder_that_cannot_be_made_is_unreachable(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "archive"):
        with pytest.raises(Unreachable, match="cannot be made"):
            await check_archive(folder, settings)


async def test_a_folder_for_large_bundles_that_cannot_be_made_is_told_by_its_setting(
    tmp_path: Path, settings: Settings
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unreachable, match="below DOCV_STATE_DIR, cannot be made"):
        async with open_resources(with_(settings, state_dir=tmp_path / "file")):
            pass


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
async def test_a_folder_that_cannot_be_written_to_is_unreachable(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "archive").mkdir(mode=0o500)
    with pytest.raises(Unreachable, match="cannot be written to"):
        await check_archive(tmp_path / "archive", settings)


async def test_to_check_a_bucket_leaves_nothing_in_it(settings: Settings, s3: S3) -> None:
    settings = with_(settings, archive_url=f"s3://{s3.bucket}/of/ours", s3_endpoint=s3.endpoint)
    await check_archive(open_archive(settings), settings)
    assert s3.client.list_objects_v2(Bucket=s3.bucket)["KeyCount"] == 0


async def test_a_bucket_that_is_missing_is_unreachable(settings: Settings, s3: S3) -> None:
    settings = with_(settings, archive_url="s3://no-such-bucket-here/of/ours", s3_endpoint=s3.endpoint)
    with pytest.raises(Unreachable, match=r"s3://no-such-bucket-here/of/ours.*no such bucket.*DOCV_ARCHIVE_URL"):
        await check_archive(open_archive(settings), settings)


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(
    ("reply", "advice"),
    [
        (s3_error(403, "AccessDenied"), "s3:GetObject"),
        (s3_error(403, "InvalidAccessKeyId"), "s3:GetObject"),
        (s3_error(401, "Unauthorized"), "s3:GetObject"),
        (s3_error(400, "AuthorizationHeaderMalformed"), "DOCV_S3_ENDPOINT"),
        (Reply(b"", Then.CLOSE), "DOCV_S3_ENDPOINT"),
    ],
)
async def test_a_bucket_that_does_not_answer_as_it_must_is_unreachable(
    settings: Settings, reply: Reply | bytes, advice: str
) -> None:
    async with saying(reply) as server:
        settings = with_(settings, archive_url="s3://ours", s3_endpoint=server.url)
        with pytest.raises(Unreachable, match=advice) as caught:
            await check_archive(open_archive(settings), settings)
    assert "testing" not in str(caught.value)  # the credentials of the tests


@pytest.mark.usefixtures("s3")
async def test_an_endpoint_where_nobody_listens_is_unreachable(settings: Settings, nobody: str) -> None:
    settings = with_(settings, archive_url="s3://ours", s3_endpoint=f"http://{nobody}")
    with pytest.raises(Unreachable, match="DOCV_S3_ENDPOINT"):
        await check_archive(open_archive(settings), settings)


@pytest.mark.usefixtures("_no_credentials")
def test_without_credentials_a_bucket_cannot_be_opened(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="AWS_ACCESS_KEY_ID"):
        open_archive(with_(settings, archive_url="s3://ours"))


def test_under_object_lock_there_is_a_client_of_its_own_to_write_with(settings: Settings, s3: S3) -> None:
    plain = with_(settings, archive_url=f"s3://{s3.bucket}", s3_endpoint=s3.endpoint)
    locked = with_(plain, lock_mode="GOVERNANCE", lock_days=7)
    assert _locking(open_archive(plain), plain) is None
    assert isinstance(_locking(open_archive(locked), locked), LockingClient)


@pytest.mark.usefixtures("_no_credentials")
def test_a_folder_needs_no_credentials(settings: Settings, tmp_path: Path) -> None:
    assert open_archive(settings) == tmp_path / "archive"


async def test_documents_are_encrypted_with_the_key_of_the_settings(settings: Settings, s3: S3) -> None:
    key = "arn:aws:kms:us-east-1:123456789012:key/0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"
    encrypted = with_(settings, archive_url=f"s3://{s3.bucket}", s3_endpoint=s3.endpoint, kms_key_id=key)
    await obstore.put_async(open_archive(encrypted), "with", b"x")
    await obstore.put_async(open_archive(with_(encrypted, kms_key_id=None)), "without", b"x")
    head = s3.client.head_object(Bucket=s3.bucket, Key="with")
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key)
    assert head["BucketKeyEnabled"]
    assert "SSEKMSKeyId" not in s3.client.head_object(Bucket=s3.bucket, Key="without")


# The session to RiskOS


async def test_the_session_keeps_no_cookies(settings: Settings) -> None:
    async with saying(json(200, b"{}", Set_Cookie="who=me")) as server, open_resources(settings) as resources:
        for _ in range(2):
            async with resources.http.get(server.url) as response:
                await response.read()
    assert [heard.headers.get("cookie") for heard in server.heard] == [None, None]


async def test_the_session_has_no_more_connections_than_evaluations_are_in_flight(settings: Settings) -> None:
    at_once = most = 0

    async def answer(_: object) -> Reply:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1
        return Reply(http(200))

    async with listening(answer) as server, open_resources(with_(settings, concurrency=3)) as resources:

        async def ask() -> None:
            async with resources.http.get(server.url) as response:
                await response.read()

        await asyncio.gather(*[ask() for _ in range(12)])
    assert most == 3


@dataclass(frozen=True)
class Certificate:
    """A certificate that vouches for itself, and its key; both also in one file."""

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
    """Return what the mTLS host of RiskOS speaks: it wants to see our certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(theirs.both)
    context.load_verify_locations(ours.cert)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def status_of(settings: Settings, tls: ssl.SSLContext) -> int:
    async with (
        listening(lambda _: Reply(http(200)), tls) as server,
        open_resources(settings) as resources,
        resources.http.get(server.url) as response,
    ):
        return response.status


@pytest.mark.parametrize("in_one_file", [True, False])
async def test_a_client_certificate_is_shown(  # all of them make the two sides
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


async def test_without_a_client_certificate_the_mtls_host_does_not_speak_to_us(
    settings: Settings, riskos_tls: ssl.SSLContext, theirs: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(theirs.cert))
    with pytest.raises((aiohttp.ClientError, OSError)):
        await status_of(settings, riskos_tls)


async def test_a_server_that_nobody_vouches_for_is_not_spoken_to(
    settings: Settings, riskos_tls: ssl.SSLContext, ours: Certificate
) -> None:
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await status_of(with_(settings, client_cert=ours.both), riskos_tls)


async def test_an_older_tls_than_riskos_wants_is_not_spoken(
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
async def test_a_client_certificate_that_is_none_is_one_clear_line(
    settings: Settings, tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "client.pem").write_bytes(content)
    with pytest.raises(SettingsError, match=r"DOCV_CLIENT_CERT: .*client\.pem") as caught:
        async with open_resources(with_(settings, client_cert=tmp_path / "client.pem")):
            pass
    assert len(caught.value.lines) == 1


async def test_a_key_that_does_not_fit_its_certificate_is_one_clear_line(
    settings: Settings, ours: Certificate, theirs: Certificate
) -> None:
    with pytest.raises(SettingsError, match="DOCV_CLIENT_CERT"):
        async with open_resources(with_(settings, client_cert=ours.cert, client_key=theirs.key)):
            pass


# What Redis keeps


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[MutableMapping[str, Any]]]:
    """Return the events that were told; by a logger of this test's own, since others may be set up already."""
    with structlog.testing.capture_logs() as events:
        monkeypatch.setattr(resources, "_log", structlog.get_logger("docv.resources"))
        yield events


@contextlib.asynccontextmanager
async def redis_with(*flags: str) -> AsyncIterator[Redis]:
    """Run a server of this test's own."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are too deep for the path of a socket
        path = f"{folder}/redis.sock"
        server = await asyncio.create_subprocess_exec(
            *(server_binary(), "--dir", folder, "--unixsocket", path, "--port", "0", "--save", "", *flags),
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            async with open_redis(f"unix://{path}") as redis:
                await answers(redis)
                yield redis
        finally:
            server.kill()
            await server.wait()


async def answers(redis: Redis) -> None:
    """Wait until a server that is being started answers."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(RedisConnectionError):
                await redis.ping()
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("strict", [False, True])
async def test_a_redis_that_keeps_everything_is_no_news(
    redis: Redis, told: list[MutableMapping[str, Any]], *, strict: bool
) -> None:
    await check_keeping(redis, strict=strict)
    assert told == []


async def test_a_redis_that_may_forget_is_an_error_in_the_log_with_what_to_do(
    told: list[MutableMapping[str, Any]],
) -> None:
    async with redis_with("--appendonly", "no", "--maxmemory-policy", "allkeys-lru") as forgetful:
        await check_keeping(forgetful, strict=False)
    assert [(event["event"], event["log_level"]) for event in told] == [("redis.may_lose", "error")] * 2
    no_file, evicts = (event["fault"] for event in told)
    assert "set appendonly yes" in no_file
    assert "(allkeys-lru): set maxmemory-policy noeviction" in evicts


@pytest.mark.parametrize(
    ("flags", "advice"),
    [
        (("--appendonly", "no"), "set appendonly yes"),
        (("--appendonly", "yes", "--maxmemory-policy", "volatile-ttl"), "set maxmemory-policy noeviction"),
    ],
    ids=["no append-only file", "evicts"],
)
async def test_whoever_is_strict_does_not_start_with_a_redis_that_may_forget(
    flags: tuple[str, ...], advice: str, told: list[MutableMapping[str, Any]]
) -> None:
    async with redis_with(*flags) as forgetful:
        with pytest.raises(Unreachable, match=f"DOCV_STRICT.*{advice}"):
            await check_keeping(forgetful, strict=True)
    assert told == []


@pytest.mark.parametrize("strict", [False, True])
async def test_a_redis_that_syncs_before_it_answers_is_no_news(
    told: list[MutableMapping[str, Any]], *, strict: bool
) -> None:
    async with redis_with("--appendonly", "yes", "--appendfsync", "always") as careful:
        await check_syncing(careful, strict=strict)
    assert told == []


async def test_a_redis_that_answers_before_it_syncs_is_told_or_refused(
    redis: Redis, told: list[MutableMapping[str, Any]]
) -> None:
    await redis.config_set("appendfsync", "everysec")
    await check_syncing(redis, strict=False)
    assert [event["event"] for event in told] == ["redis.may_lose"]
    assert "set appendfsync always" in told[0]["fault"]
    with pytest.raises(Unreachable, match=r"DOCV_STRICT.*appendfsync always"):
        await check_syncing(redis, strict=True)


async def test_of_a_redis_that_does_not_tell_how_it_syncs_nothing_is_said(told: list[MutableMapping[str, Any]]) -> None:
    async with redis_with("--rename-command", "CONFIG", "") as closed:
        await check_syncing(closed, strict=True)
    assert told == []
