"""Open the HTTP sessions, the bucket and the Redis client of a process."""

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from obstore.store import S3Store
from redis.asyncio import Redis

from worker.clients.archive import (
    check_archive,
    check_conditional_writes,
    check_folder,
    open_archive,
    open_tag_client,
)
from worker.clients.disk_errors import explain_disk_error
from worker.clients.errors import ServiceUnavailable
from worker.clients.object_lock import LockingClient, check_restricted_can_be_erased
from worker.clients.private_folder import make_private
from worker.clients.redis import check_redis, open_redis
from worker.clients.tls import make_tls_context
from worker.config.accounts_file import AccountSettings
from worker.config.settings import Settings

# With aiohttp's 64 KiB, reading pauses and resumes a dozen times for each bundle.
_READ_AHEAD = 1 << 18


@dataclass(frozen=True, slots=True)
class Resources:
    """The open clients of a process.

    Attributes:
        http: the HTTP session of each account, by its name; accounts with the same certificate share one.
        redis: the client for the ledger and the rate limiter.
        archive: client of the bucket, or the folder.
        write_client: returns the client for a write to the bucket; None for a folder.
        tag_client: boto3's client, which sets the tags after each write; None if they are sent with the write.
        spool_dir: folder for bundles and documents that are too large for memory.
    """

    http: Mapping[str, aiohttp.ClientSession]
    redis: "Redis"
    archive: S3Store | Path
    write_client: LockingClient | None
    tag_client: Any
    spool_dir: Path


@contextlib.asynccontextmanager
async def open_resources(settings: Settings, accounts: Iterable[AccountSettings]) -> AsyncIterator[Resources]:
    """Open all clients, check that their services answer, and close the clients after the block.

    Args:
        settings: settings of the process.
        accounts: the accounts at RiskOS.

    Raises:
        SettingsError: a client cannot be opened with these settings.
        ServiceUnavailable: a service does not answer correctly.
    """
    async with contextlib.AsyncExitStack() as stack:
        redis = await stack.enter_async_context(open_redis(settings.need_redis_url(), settings.concurrency))
        http = await _open_sessions(accounts, stack)
        archive = open_archive(settings)
        await check_redis(redis)
        await check_archive(archive, settings)
        await check_conditional_writes(archive, settings)
        if isinstance(archive, S3Store):
            await check_restricted_can_be_erased(settings, urlsplit(settings.archive_url).netloc)
        write_client, tag_client = _open_write_client(archive, settings), open_tag_client(settings)
        yield Resources(http, redis, archive, write_client, tag_client, _make_spool_dir(settings))


def _make_spool_dir(settings: Settings) -> Path:
    what, setting = "folder for large bundles, below DOCV_STATE_DIR,", "DOCV_STATE_DIR"
    try:
        make_private(settings.private_dir)
    except OSError as error:
        why = explain_disk_error(error, setting)
        raise ServiceUnavailable(f"{settings.private_dir}: the {what} cannot be created: {why}") from None
    check_folder(spool_dir := settings.private_dir / "spool", what, setting)
    return spool_dir


def _open_write_client(archive: S3Store | Path, settings: Settings) -> LockingClient | None:
    return None if isinstance(archive, Path) else LockingClient(archive, settings.lock_mode, settings.lock_days)


async def _open_sessions(
    accounts: Iterable[AccountSettings], stack: contextlib.AsyncExitStack
) -> dict[str, aiohttp.ClientSession]:
    opened: dict[tuple[Path | None, Path | None], aiohttp.ClientSession] = {}
    http = {}
    for account in accounts:
        certificate = account.settings.client_cert, account.settings.client_key
        if certificate not in opened:
            connector = aiohttp.TCPConnector(
                limit=account.settings.concurrency, ssl=make_tls_context(account.settings), ttl_dns_cache=60
            )
            session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), read_bufsize=_READ_AHEAD
            )
            opened[certificate] = await stack.enter_async_context(session)
        http[account.name] = opened[certificate]
    return http
