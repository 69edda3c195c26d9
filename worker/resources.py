"""HTTP session, bucket, Redis: opened once, lent to each evaluation."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp
import obstore
import structlog
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.object_lock import LockingClient
from worker.settings import Settings, SettingsError

_log = structlog.get_logger("docv.resources")
_REDIS_TIMEOUT = 10.0
_CHECK_SECONDS = 10.0
_S3_RETRY_SECONDS = 60
_NO_OBJECT = "is-the-bucket-there"


class Unreachable(Exception):  # the name says it
    """A service that is needed does not answer as it must; the sentence says which, and how to mend it."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process has open.

    Attributes:
        http: the session to RiskOS.
        redis: the client of ledger and limiter.
        archive: client of the bucket, or the folder.
        writing: what gives the client to write with, where that is another one: under Object Lock.
        spool_dir: folder for what is too large for memory.
    """

    http: aiohttp.ClientSession
    redis: "Redis"
    archive: S3Store | Path
    writing: LockingClient | None
    spool_dir: Path


@contextlib.asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """Open everything, see that it answers, and close it again.

    Raises:
        SettingsError: something cannot be opened as the settings say.
        Unreachable: something does not answer as it must.
    """
    async with contextlib.AsyncExitStack() as stack:
        redis = await stack.enter_async_context(open_redis(settings.need_redis_url(), settings.concurrency))
        http = await stack.enter_async_context(_open_http(settings))
        archive = open_archive(settings)
        await check_redis(redis)
        await check_archive(archive, settings)
        spool_dir = settings.state_dir / "spool"
        _check_folder(spool_dir, "folder for large bundles, below DOCV_STATE_DIR,")
        yield Resources(http, redis, archive, _locking(archive, settings), spool_dir)


@contextlib.asynccontextmanager
async def open_redis(
    url: str, connections: int = 8, *, seconds: float = _REDIS_TIMEOUT, retries: int = 5
) -> "AsyncIterator[Redis]":
    """Open a client of Redis; its calls are tried again for a few seconds when the connection breaks.

    Args:
        url: where it is.
        connections: calls that may be under way at once; a few more are for what waits in Redis.
        seconds: longest time for one try of a call.
        retries: tries after the first; who has to answer somebody has little time for them.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        timeout=seconds,
        decode_responses=True,
        max_connections=connections + 8,
        socket_timeout=seconds,
        socket_connect_timeout=seconds / 2,
        health_check_interval=30,
        retry=Retry(ExponentialBackoff(cap=2.0, base=0.05), retries=retries),
        retry_on_error=[RedisConnectionError, RedisTimeoutError],
    )
    redis = Redis.from_pool(pool)
    try:
        yield redis
    finally:
        await redis.aclose()


async def check_redis(redis: "Redis") -> None:
    """See that Redis answers.

    Raises:
        Unreachable: it does not.
    """
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            await redis.ping()
    except (RedisError, OSError) as error:
        raise Unreachable(
            f"Redis does not answer ({_short(error)}): see that it runs and DOCV_REDIS_URL names it"
        ) from None


async def check_keeping(redis: "Redis", *, strict: bool) -> None:
    """See that Redis keeps what it is told: an append-only file, and nothing evicted.

    Raises:
        Unreachable: it may lose some of it, and the settings are strict about that.
    """
    facts = await redis.info()
    faults = []
    if not int(facts.get("aof_enabled", 0)):
        faults.append("it has no append-only file, so that a restart forgets what was accepted: set appendonly yes")
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        faults.append(f"when it is full it throws away what was accepted ({policy}): set maxmemory-policy noeviction")
    _tell(faults, strict=strict)


async def check_syncing(redis: "Redis", *, strict: bool) -> None:
    """See that what Redis is told is on its disk before it answers: for whoever answers others on its word.

    With ``everysec`` a crash of its process alone loses up to two seconds of what it has acknowledged: while an fsync
    takes long it puts off writing, too (seen with a disk that takes 0.7 s: 16 of 500). Nothing is said where the server
    does not tell how it is set.

    Raises:
        Unreachable: it may lose some of it, and the settings are strict about that.
    """
    if await syncing(redis) not in {None, "always"}:
        _tell(["its crash may lose the last two seconds of what was accepted: set appendfsync always"], strict=strict)


async def syncing(redis: "Redis") -> str | None:
    """Return how Redis is set to sync its file, None where it does not tell: services of a cloud refuse ``CONFIG``."""
    try:
        return str((await redis.config_get("appendfsync"))["appendfsync"])
    except (ResponseError, KeyError):
        return None


def _tell(faults: Iterable[str], *, strict: bool) -> None:
    for fault in faults:
        if strict:
            raise Unreachable(f"Redis may lose evaluations, and DOCV_STRICT is set: {fault}")
        _log.error("redis.may_lose", fault=fault)


async def check_archive(archive: S3Store | Path, settings: Settings) -> None:
    """See that the archive is there and may be read.

    Raises:
        Unreachable: it is not.
    """
    if isinstance(archive, Path):
        _check_folder(archive, "folder of the archive")
    else:
        await _check_bucket(archive, settings)


async def _check_bucket(store: S3Store, settings: Settings) -> None:
    where = settings.archive_url
    try:
        # Asked for by its content, since the answer to a HEAD does not say whether bucket or object is missing. And
        # asked in a thread of Python's: whoever exits right after an answer of obstore's own threads is aborted by
        # them (0.12.1, nine times in ten), and after this answer some commands do exit.
        await asyncio.to_thread(obstore.get, store, _NO_OBJECT)
    except (NotFoundError, FileNotFoundError) as error:
        if "NoSuchBucket" in str(error):
            raise Unreachable(f"{where}: there is no such bucket; make it, or mend DOCV_ARCHIVE_URL") from None
    except (PermissionDeniedError, UnauthenticatedError, PermissionError):
        raise Unreachable(
            f"{where}: access is denied; these credentials need s3:GetObject, s3:PutObject, s3:PutObjectTagging "
            "and s3:ListBucket there"
        ) from None
    except (BaseError, OSError, ValueError) as error:
        raise Unreachable(
            f"{where}: the bucket does not answer ({type(error).__name__}); see DOCV_S3_ENDPOINT and the network"
        ) from None


def _check_folder(folder: Path, what: str) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unreachable(f"{folder}: the {what} cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Unreachable(f"{folder}: the {what} cannot be written to")


def _locking(archive: S3Store | Path, settings: Settings) -> LockingClient | None:
    if isinstance(archive, Path) or not settings.lock_mode or not settings.lock_days:
        return None
    return LockingClient(archive, settings.lock_mode, settings.lock_days)


def _short(error: Exception) -> str:
    """An error's kind; texts of Redis's client may hold the password of its URL."""
    return type(error).__name__


def open_archive(settings: Settings) -> S3Store | Path:
    """Return the client of the bucket, or the folder.

    Raises:
        SettingsError: there are no credentials for the bucket.
    """
    url = urlsplit(settings.archive_url)
    return Path(unquote(url.path)) if url.scheme == "file" else _open_s3(settings, url.netloc, url.path)


def _open_s3(settings: Settings, bucket: str, prefix: str) -> S3Store:
    # Imported here: it takes a third of a second that a folder's user need not wait.
    from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415

    try:
        credentials = Boto3CredentialProvider()
    except ValueError:
        raise SettingsError(
            ("no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or a role",)
        ) from None
    # A bucket key spares S3 most of its calls to KMS, each of which costs as much as a PUT.
    encryption: Any = {
        "server_side_encryption": "aws:kms",
        "sse_kms_key_id": settings.kms_key_id,
        "sse_bucket_key_enabled": True,
    }
    endpoint: Any = {"endpoint": settings.s3_endpoint, "virtual_hosted_style_request": False}
    return S3Store(
        bucket,
        prefix=prefix.strip("/") or None,
        credential_provider=credentials,
        checksum_algorithm="SHA256",
        client_options={
            "allow_http": (settings.s3_endpoint or "").startswith("http://"),
            # Tells S3-compatible servers to keep the checksum; the SDKs of Amazon send it beside the checksum, too.
            "default_headers": {"x-amz-sdk-checksum-algorithm": "SHA256"},
            "connect_timeout": timedelta(seconds=5),
            "timeout": timedelta(seconds=300),
        },
        retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=_S3_RETRY_SECONDS)},
        **(encryption if settings.kms_key_id else {}),
        **(endpoint if settings.s3_endpoint else {}),
    )


@contextlib.asynccontextmanager
async def _open_http(settings: Settings) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=settings.concurrency, ssl=_tls(settings), ttl_dns_cache=60)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), raise_for_status=False
    ) as session:
        yield session


def _tls(settings: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.client_cert:
        try:
            context.load_cert_chain(settings.client_cert, settings.client_key)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError((f"DOCV_CLIENT_CERT: {settings.client_cert} cannot be used: {error}",)) from None
    return context
