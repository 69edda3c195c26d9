"""The archive's bucket for a command: seen to be there before anything is asked of it, left in order afterwards."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from obstore.store import S3Store

from tasks.errors import StorageError
from tasks.storage.bucket import Bucket
from tasks.storage.open_bucket import open_bucket
from worker.clients.archive import check_archive, open_archive
from worker.clients.errors import ServiceUnavailable
from worker.config.settings import Settings

# obstore's threads abort a process that ends within an instant of their answer (0.12.1).
_CLOSE_SECONDS = 0.2


@contextlib.asynccontextmanager
async def open_archive_bucket(settings: Settings) -> AsyncIterator[Bucket]:
    """Lend the archive's bucket.

    Raises:
        SettingsError: there are no credentials for it.
        ServiceUnavailable: it does not answer, or not any more.
    """
    archive = open_archive(settings)
    await check_archive(archive, settings)
    async with _close_in_order(archive):
        yield open_bucket(archive, settings.storage_class)


@contextlib.asynccontextmanager
async def open_read_only_bucket(settings: Settings, *, may_be_new: bool = False) -> AsyncIterator[Bucket]:
    """Lend the bucket to who changes nothing: a folder is not made, and need not let anybody write.

    Args:
        may_be_new: accept a folder that is not there: workers make it when they archive the first evaluation.

    Raises:
        SettingsError: there are no credentials for it.
        ServiceUnavailable: it is not there, or does not answer.
    """
    archive = open_archive(settings)
    if not isinstance(archive, Path):
        await check_archive(archive, settings)
    elif not (may_be_new and not archive.exists()) and not _is_readable(archive):
        raise ServiceUnavailable(f"{archive}: there is no archive here that can be read; see DOCV_ARCHIVE_URL")
    async with _close_in_order(archive):
        yield open_bucket(archive)


def _is_readable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)


@contextlib.asynccontextmanager
async def _close_in_order(archive: S3Store | Path) -> AsyncIterator[None]:
    try:
        yield
    except StorageError as error:
        raise ServiceUnavailable(f"{error}; give the same command again when it can") from None
    finally:
        if isinstance(archive, S3Store):
            await asyncio.sleep(_CLOSE_SECONDS)
