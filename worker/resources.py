"""HTTP session, bucket, Redis: opened once, lent to each evaluation."""

import contextlib
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from obstore.store import S3Store
from redis.asyncio import Redis

from worker.clients.archive import check_archive, check_folder, open_archive
from worker.clients.object_lock import LockingClient
from worker.clients.redis import check_redis, open_redis
from worker.config.accounts_file import AccountSettings
from worker.config.settings import Settings, SettingsError

# A bundle arrives as the kernel has it, up to so much at a time; aiohttp's 64 KiB stop and go a dozen times for each.
_READ_AHEAD = 1 << 18


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process has open.

    Attributes:
        http: the session to RiskOS of each account; those with the same certificate have one together.
        redis: the client of ledger and limiter.
        archive: client of the bucket, or the folder.
        write_client: what gives the client to write with, where that is another one: under Object Lock.
        spool_dir: folder for what is too large for memory.
    """

    http: Mapping[str, aiohttp.ClientSession]
    redis: "Redis"
    archive: S3Store | Path
    write_client: LockingClient | None
    spool_dir: Path


@contextlib.asynccontextmanager
async def open_resources(settings: Settings, accounts: Iterable[AccountSettings]) -> AsyncIterator[Resources]:
    """Open everything, see that it answers, and close it again.

    Args:
        settings: of this process.
        accounts: whom RiskOS is asked with.

    Raises:
        SettingsError: something cannot be opened as the settings say.
        ServiceUnavailable: something does not answer as it must.
    """
    async with contextlib.AsyncExitStack() as stack:
        redis = await stack.enter_async_context(open_redis(settings.need_redis_url(), settings.concurrency))
        http = await _open_sessions(accounts, stack)
        archive = open_archive(settings)
        await check_redis(redis)
        await check_archive(archive, settings)
        spool_dir = settings.state_dir / "spool"
        check_folder(spool_dir, "folder for large bundles, below DOCV_STATE_DIR,")
        yield Resources(http, redis, archive, _open_write_client(archive, settings), spool_dir)


def _open_write_client(archive: S3Store | Path, settings: Settings) -> LockingClient | None:
    if isinstance(archive, Path) or not settings.lock_mode or not settings.lock_days:
        return None
    return LockingClient(archive, settings.lock_mode, settings.lock_days)


async def _open_sessions(
    accounts: Iterable[AccountSettings], stack: contextlib.AsyncExitStack
) -> dict[str, aiohttp.ClientSession]:
    opened: dict[tuple[Path | None, Path | None], aiohttp.ClientSession] = {}
    http = {}
    for account in accounts:
        certificate = account.settings.client_cert, account.settings.client_key
        if certificate not in opened:
            connector = aiohttp.TCPConnector(
                limit=account.settings.concurrency, ssl=_tls(account.settings), ttl_dns_cache=60
            )
            session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), read_bufsize=_READ_AHEAD
            )
            opened[certificate] = await stack.enter_async_context(session)
        http[account.name] = opened[certificate]
    return http


def _tls(settings: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.client_cert:
        try:
            context.load_cert_chain(settings.client_cert, settings.client_key)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError((f"DOCV_CLIENT_CERT: {settings.client_cert} cannot be used: {error}",)) from None
    return context
